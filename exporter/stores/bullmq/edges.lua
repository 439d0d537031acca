-- The edges of each queue's lists and sets: the oldest jobs, the next ones due.
-- KEYS: one a queue, what its keys begin with (`bull:ingestion:`).
-- ARGV[1]: how many schedulers to read of each queue; ARGV[2]: the time in ms (TIME is no read
-- command: the ACL user may not call it); then for each queue what to read, by the probes of poll.py;
-- after a `b` its heartbeat key, after a `k` the number of schedulers that were exposed before, and their names,
-- and after a `z` the longest-waiting job of `prioritized` and its time.

-- How many jobs to look at for one whose hash is there.
local TRIES = 5
-- How many of the highest priorities to check, in addition to the lowest. Each costs two commands.
local PRIORITIES = 20
local MAX_SAFE_INTEGER = 2 ^ 53 - 1
local MAX_NUMBER_BYTES = 40
-- Longer options of a job are not read (as in options.py).
local MAX_OPTIONS_BYTES = 16 * 1024
local NO_HASH = { err = 'no hash for the jobs at its head' }

local now = tonumber(ARGV[2])

-- A computed time. If it is in the future, it is wrong: Job.promote() or Job.changeDelay() made the
-- job ready earlier, at an unknown time. (A stored time is returned as it is: the application's
-- clock may be ahead of ours.)
local function passed(at)
  return at <= now and at or nil
end

-- When the job became ready to be taken, in ms, by its hash; nil if that does not show it.
-- `without_opts`: its options are too long to be read.
local function ready_at(job, without_opts, is_bull)
  local added, started = tonumber(job[1]), tonumber(job[2])
  -- Its worker was lost once: it is unknown when moveStalledJobsToWait returned it.
  if started and job[7] then return nil end
  local made = tonumber(job[4] or job[6] or 0) or 0
  if without_opts and (made > 0 or not started) then return nil end
  local opts = {}
  if job[3] and string.find(job[3], '"delay"', 1, true) then
    local ok, decoded = pcall(cjson.decode, job[3])
    if ok and type(decoded) == 'table' then opts = decoded end
  end
  if started then
    -- It ran, failed and waited for its backoff (BullMQ: Backoffs.builtinStrategies; Bull: backoffs.js).
    local backoff = opts.backoff
    if made > 0 and type(backoff) == 'table' and type(backoff.delay) == 'number' then
      if backoff.type == 'fixed' then return passed(started + backoff.delay) end
      if backoff.type == 'exponential' then
        local factor = is_bull and 2 ^ made - 1 or 2 ^ (made - 1)
        return passed(started + backoff.delay * factor)
      end
    end
    return started
  end
  -- Job.retry() deletes `processedOn` and keeps the attempts, so its time is unknown.
  if made > 0 or (tonumber(job[5] or 0) or 0) > 0 then return nil end
  -- `timestamp` is when it was added. Promotion sets the hash's own `delay` to 0; `opts` has it.
  if added and type(opts.delay) == 'number' then return passed(added + opts.delay) end
  return added
end

-- Adds a job to the candidates for the oldest one, with its `ready_at` (false if its hash does not show
-- it), and returns that; nil if there is no such job.
local function consider(jobs, base, id, is_bull)
  if not id or is_error(id) then return nil end
  local key = base .. id
  -- 20 MB of them would block the server for half a second.
  local length = read('HSTRLEN', key, 'opts')
  if is_error(length) then return nil end
  local without_opts = length > MAX_OPTIONS_BYTES
  local job = read(
    'HMGET',
    key,
    'timestamp',
    'processedOn',
    without_opts and '' or 'opts',
    'atm',
    'ats',
    'attemptsMade',
    is_bull and 'stalledCounter' or 'stc'
  )
  if not (job[1] or job[2]) then return nil end
  local at = ready_at(job, without_opts, is_bull)
  -- An invalid time (1e308, nan) cannot be returned as an integer.
  if at and not (math.abs(at) <= MAX_SAFE_INTEGER) then at = nil end
  local next = #jobs
  jobs[next + 1] = remembered(id)
  jobs[next + 2] = at or false
  return at
end

-- Workers take from the right. A job with `lifo` is added there too, so the oldest job may be at
-- either end.
local function oldest_in_wait(base, last_waiting)
  local jobs, known = {}, false
  local looked_at = #last_waiting
  local whole = looked_at < TRIES
  known = consider(jobs, base, whole and last_waiting[1] or not whole and read('LINDEX', base .. 'wait', 0))
  -- The marker of versions before 5.0 has no hash, so it is ignored here.
  for at = looked_at, whole and 2 or 1, -1 do
    if known and at < looked_at - 1 then break end
    known = consider(jobs, base, last_waiting[at]) or known
  end
  return jobs
end

-- The same in a queue of Bull, where jobs with a priority are in `wait` as well, and taken after
-- those without one: each priority is a section of the list, whose oldest job is the last. The set
-- `priority` has their lengths (Bull 3.0 to 4.16: addJobWithPriority).
local function oldest_in_wait_of_bull(base)
  local jobs, behind, from = {}, 0, '-inf'
  for _ = 0, PRIORITIES do
    consider(jobs, base, read('LINDEX', base .. 'wait', -1 - behind), true)
    local first = read('ZRANGEBYSCORE', base .. 'priority', from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[2] then break end
    from = '(' .. first[2]
    behind = read('ZCOUNT', base .. 'priority', '-inf', first[2])
  end
  -- A job that was added with `lifo` comes after all of them, and the newest job is at the other
  -- end.
  consider(jobs, base, read('LINDEX', base .. 'wait', 0), true)
  return jobs
end

-- The oldest job of the highest and of the lowest priority in `prioritized`: the next one, and the
-- one that may starve. A score is priority * 2^32 + a counter (getPriorityScore).
local function oldest_of_two_priorities(base)
  local jobs, key = {}, base .. 'prioritized'
  local first = read('ZRANGE', key, 0, 0)[1]
  consider(jobs, base, first)
  local last = tonumber(read('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2])
  if not last then return jobs end -- taken since they were counted
  local lowest = string.format('%.0f', last - last % 2 ^ 32)
  local other = read('ZRANGEBYSCORE', key, lowest, '+inf', 'LIMIT', 0, 1)[1]
  if other ~= first then consider(jobs, base, other) end
  return jobs
end

-- The same for each priority, because any of them may starve. Jobs that were returned have no counter
-- (pushBackJobWithPriority) and come before the one that has waited the longest.
local function oldest_of_each_priority(base)
  local jobs, key, from = {}, base .. 'prioritized', '-inf'
  for _ = 1, PRIORITIES do
    local first = read('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local score = tonumber(first[2])
    if not score then return jobs end
    consider(jobs, base, first[1])
    local counter = score % 2 ^ 32
    from = counter == 0 and '(' .. first[2] or string.format('%.0f', score - counter + 2 ^ 32)
  end
  for _, other in ipairs(oldest_of_two_priorities(base)) do jobs[#jobs + 1] = other end
  return jobs
end

-- The longest-waiting job of an earlier check, if its time is the same as then: no job that came later has
-- waited longer. Otherwise the jobs of two priorities.
local function oldest_as_known(base, id, known)
  local jobs = {}
  if tonumber(read('ZSCORE', base .. 'prioritized', id)) then
    local at = consider(jobs, base, id)
    if at and at == tonumber(known) then return jobs end
  end
  return oldest_of_two_priorities(base)
end

-- The last jobs of a list, the next one at the end; none if it is no longer a list.
local function last_of(key)
  local ids = read('LRANGE', key, -TRIES, -1)
  return is_error(ids) and {} or ids
end

-- When the first of the jobs at the head of `active` that has a hash was taken, whether a worker
-- still holds it (it renews the job's lock for as long as its process runs), and its id.
local function oldest_taken(base)
  local ids = last_of(base .. 'active')
  for i = #ids, 1, -1 do
    local job = base .. ids[i]
    local at = read('HGET', job, 'processedOn')
    if at then return at, read('EXISTS', job .. ':lock'), remembered(ids[i]) end
  end
  -- None: they have finished since they were counted.
  return #ids > 0 and NO_HASH, false, false
end

-- The beginning of a string: as much as a number can have, and one byte more; false if there is none.
local function start_of(key)
  local start = read('GETRANGE', key, 0, MAX_NUMBER_BYTES)
  return start ~= '' and start
end

-- A time is a few digits; passing on 50 MB in its place would cost a poll a second.
local function number(value)
  if type(value) == 'string' and #value > MAX_NUMBER_BYTES then return { err = 'longer than any number' } end
  return value
end

-- The fields of `meta` that limits.Meta holds, in its order.
local function meta(base)
  local length = read('HSTRLEN', base .. 'meta', 'version')
  if is_error(length) then return length end
  local version = length > MAX_OPTIONS_BYTES and '' or 'version'
  local fields = read('HMGET', base .. 'meta', version, 'concurrency', 'max', 'duration')
  return { shown(fields[1]), number(fields[2]), number(fields[3]), number(fields[4]) }
end

-- The rate limiter: how many jobs it has counted, and the ms until it expires; false if there is none.
-- Without an expiry it limits nothing (BullMQ 5.56.3, 6.7.0: getRateLimitTTL).
local function limiter(base)
  local taken = start_of(base .. 'limiter')
  if not taken or is_error(taken) then return taken end
  local left = read('PTTL', base .. 'limiter')
  return left > 0 and { number(taken), left }
end

-- Whether a scheduler has run for the last time. Those that have ended by `limit` or `endDate` stay
-- in the set forever, with their last run (seen in 5.56.3 and 6.7.0), and are not overdue.
local function has_ended(base, name)
  -- Those of Bull have no hash; their end date is in the name.
  local end_in_name = tonumber(string.match(name, '^[^:]*:[^:]*:(%d+):'))
  if end_in_name and end_in_name < now then return true end
  local opts = read('HMGET', base .. 'repeat:' .. name, 'endDate', 'limit', 'ic')
  local last, limit, count = tonumber(opts[1]), tonumber(opts[2]), tonumber(opts[3])
  return (last and last < now) or (limit and count and count >= limit)
end

-- Schedulers with their next runs. If there are more than are exposed, the overdue ones come first, then
-- those that were exposed before: otherwise each run would change which ones are exposed.
local function next_runs(base, exposed_before)
  local most = tonumber(ARGV[1])
  local kept, seen = {}, {}
  local function keep(name, at)
    if #kept < 2 * most and not seen[name] then
      seen[name] = true
      table.insert(kept, name)
      table.insert(kept, at)
    end
  end

  -- Those that have ended stay first forever, so more are read than returned.
  local runs = read('ZRANGE', base .. 'repeat', 0, 5 * most - 1, 'WITHSCORES')
  local others = {}
  for i = 1, #runs, 2 do
    local name, at = shown(runs[i]), runs[i + 1]
    if #kept == 2 * most or #others == 2 * most then break end
    if tonumber(at) >= now - 60000 then
      table.insert(others, name)
      table.insert(others, at)
    elseif not has_ended(base, runs[i]) then
      keep(name, at)
    end
  end
  local scores = #exposed_before > 0 and read('ZMSCORE', base .. 'repeat', unpack(exposed_before)) or {}
  for i, at in ipairs(scores) do
    -- An overdue one is among the first, unless too many are overdue.
    if at and tonumber(at) >= now - 60000 then keep(exposed_before[i], at) end
  end
  for i = 1, #others, 2 do keep(others[i], others[i + 1]) end
  return kept
end

-- When the longest-waiting parent began to wait for its children, in ms: the lowest score of
-- `waiting-children` (addParentJob-5 and moveToWaitingChildren-8 of 5.56.3, -6 and -7 of 6.7.0).
local function longest_waiting_parent(base)
  local first = read('ZRANGE', base .. 'waiting-children', 0, 0, 'WITHSCORES')
  if is_error(first) then return first end
  return first[2] or false
end

local function ends_in_marker(ids)
  return #ids > 0 and string.sub(ids[#ids], 1, 2) == '0:' and 1 or 0
end

-- The probes as a set, made once for all queues with the same.
local sets = {}
local function set_of(probes)
  if not sets[probes] then
    sets[probes] = {}
    for probe in string.gmatch(probes, '.') do sets[probes][probe] = true end
  end
  return sets[probes]
end

local result = {}
local next_argument, next_list = arguments_after(2)

for i, base in ipairs(KEYS) do
  local wanted = set_of(next_argument())
  local last_waiting = wanted.w and last_of(base .. 'wait') or {}
  local heartbeat = wanted.b and number(start_of(next_argument()))
  local exposed_before = wanted.k and next_list() or {}
  local prioritized = {}
  if wanted.z then
    prioritized = oldest_as_known(base, next_argument(), next_argument())
  elseif wanted.m then
    prioritized = oldest_of_each_priority(base)
  elseif wanted.p then
    prioritized = oldest_of_two_priorities(base)
  end

  local oldest_active, held, active_id = false, false, false
  if wanted.a then oldest_active, held, active_id = oldest_taken(base) end

  local next_delayed = wanted.d and read('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES')
  if next_delayed and not is_error(next_delayed) then next_delayed = next_delayed[2] or false end

  result[i] = {
    wanted.v and meta(base) or false,
    wanted.o and (wanted.B and oldest_in_wait_of_bull(base) or oldest_in_wait(base, last_waiting)) or {},
    prioritized,
    wanted.l and limiter(base) or false,
    ends_in_marker(last_waiting),
    wanted.h and ends_in_marker(last_of(base .. 'paused')) or 0,
    number(oldest_active),
    held,
    next_delayed or false,
    wanted.s and next_runs(base, exposed_before) or false,
    heartbeat or false,
    wanted.c and longest_waiting_parent(base) or false,
    active_id,
  }
end
return result
