-- What one poll tells of each queue.
-- KEYS: one a queue, what its keys begin with (`bull:ingestion:`).
-- ARGV[1]: how many schedulers to read of each queue; ARGV[1 + i]: the heartbeat key of queue i.

-- When the job became ready to be taken, in ms, as far as its hash tells. `timestamp` is when it
-- was added: a delayed job became ready `delay` later, and promotion sets the hash's own `delay`
-- to 0, so only `opts` still has it. A job that ran before waits at most since that run began.
local function ready_at(base, id)
  local job = read('HMGET', base .. id, 'timestamp', 'processedOn', 'opts')
  if is_error(job) then return nil end
  local added, started, opts = tonumber(job[1]), tonumber(job[2]), job[3]
  if started then return started end
  if added and opts and string.find(opts, '"delay"', 1, true) then
    local ok, decoded = pcall(cjson.decode, opts)
    if ok and type(decoded) == 'table' and type(decoded.delay) == 'number' then
      return added + decoded.delay
    end
  end
  return added
end

-- Workers take from the right. A job added with `lifo` goes in there too, so the oldest may stand
-- at either end; the head of `prioritized` is the next of those. Read: three jobs at the most.
local function oldest_ready(base, waiting, prioritized)
  local oldest
  local function consider(id)
    local at = id and not is_error(id) and ready_at(base, id)
    if at and (not oldest or at < oldest) then oldest = at end
  end
  if not is_error(waiting) and waiting > 0 then
    local wait = base .. 'wait'
    local last = read('LINDEX', wait, -1)
    if string.sub(last, 1, 2) == '0:' then last = read('LINDEX', wait, -2) end
    consider(last)
    if waiting > 1 then consider(read('LINDEX', wait, 0)) end
  end
  if not is_error(prioritized) and prioritized > 0 then
    consider(read('ZRANGE', base .. 'prioritized', 0, 0)[1])
  end
  return oldest
end

local result = {}
for i, base in ipairs(KEYS) do
  local paused, count = counts(base)
  local active, delayed, prioritized, waiting = count[1], count[3], count[6], count[7]

  local oldest_waiting = false
  if paused == 0 then oldest_waiting = oldest_ready(base, waiting, prioritized) or false end

  local oldest_active = false
  if not is_error(active) and active > 0 then
    oldest_active = read('HGET', base .. read('LINDEX', base .. 'active', -1), 'processedOn')
  end

  local next_delayed = false
  if not is_error(delayed) and delayed > 0 then
    next_delayed = read('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES')[2]
  end

  local schedulers, runs = read('ZCARD', base .. 'repeat'), {}
  if not is_error(schedulers) and schedulers > 0 and tonumber(ARGV[1]) > 0 then
    runs = read('ZRANGE', base .. 'repeat', 0, ARGV[1] - 1, 'WITHSCORES')
  end

  result[i] = {
    read('EXISTS', base .. 'meta'),
    paused,
    count,
    read('HGET', base .. 'meta', 'version'),
    oldest_waiting and string.format('%.0f', oldest_waiting),
    oldest_active,
    next_delayed,
    schedulers,
    runs,
    read('GET', ARGV[1 + i]),
  }
end
return result
