-- How BullMQ lays a queue out, shared by every script of ours. Reads only.
-- A key of the wrong type yields the error itself as the value: the caller sees which one.

local function read(...)
  return redis.pcall(...)
end

local function is_error(value)
  return type(value) == 'table' and value.err ~= nil
end

-- Before BullMQ 5.0 `wait` and `paused` could end in a marker (`0:…`) that is no job.
-- BullMQ's own getCounts pops it; we leave it and do not count it.
local function list_length(key)
  local length = read('LLEN', key)
  if is_error(length) or length == 0 then return length end
  if string.sub(read('LINDEX', key, -1), 1, 2) == '0:' then return length - 1 end
  return length
end

-- 1 while the queue is paused, 0 while not, or an error.
local function paused_flag(base)
  local flag = read('HGET', base .. 'meta', 'paused')
  if is_error(flag) then return flag end
  return flag and 1 or 0
end

-- Up to 5.x pausing renames `wait` to `paused`; from 6.0 jobs stay in `wait` and only the flag is
-- set. Either way a job that is not taken until the queue is resumed counts as paused.
local function counts(base)
  local paused, wait, held = paused_flag(base), list_length(base .. 'wait'), list_length(base .. 'paused')
  local waiting, stopped = wait, held
  if is_error(paused) then
    waiting, stopped = paused, paused
  elseif paused == 1 then
    waiting = 0
    if is_error(wait) then
      waiting, stopped = wait, wait
    elseif not is_error(held) then
      stopped = held + wait
    end
  end
  -- In the order of keys.State.
  return paused, {
    read('LLEN', base .. 'active'),
    read('ZCARD', base .. 'completed'),
    read('ZCARD', base .. 'failed'),
    read('ZCARD', base .. 'delayed'),
    waiting,
    stopped,
    read('ZCARD', base .. 'prioritized'),
    read('ZCARD', base .. 'waiting-children'),
  }
end
