-- A queue's counts and one page of the ids of one state.
-- KEYS[1]: what the queue's keys begin with. ARGV: state, first index, last index, 'asc' or 'desc',
-- up to how many bytes in all no sizes are returned, then the fields whose sizes to return.
-- 'asc' is oldest first, as BullMQ's getJobs(state, start, end, true) orders them.

local base, state, order = KEYS[1], ARGV[1], ARGV[4]
local first, last = tonumber(ARGV[2]), tonumber(ARGV[3])
local size = sizes(base)
local paused = size[1]

-- Appends to `ids` the part of [first, last] that is in a list of `length` jobs, the oldest at the
-- right.
local function from_list(ids, key, length, from, to)
  from, to = math.max(from, 0), math.min(to, length - 1)
  if from > to then return end
  if order == 'asc' then
    local range = redis.call('LRANGE', key, length - 1 - to, length - 1 - from)
    for i = #range, 1, -1 do ids[#ids + 1] = range[i] end
  else
    for _, id in ipairs(redis.call('LRANGE', key, from, to)) do ids[#ids + 1] = id end
  end
end

-- Which lists a state is in, oldest first. After an upgrade to 6.x `paused` may still hold jobs;
-- they are taken before those of `wait`.
local function lists()
  if state == 'active' then return { 'active' } end
  if state == 'waiting' then return paused == 1 and {} or { 'wait' } end
  if state == 'paused' then return paused == 1 and { 'paused', 'wait' } or { 'paused' } end
end

local function ids_of_page()
  local ids, keys = {}, lists()
  if keys then
    local passed = 0
    for i = 1, #keys do
      local key = base .. keys[order == 'asc' and i or #keys + 1 - i]
      local length = state == 'active' and redis.call('LLEN', key) or list_length(key)
      if is_error(length) then return length end
      -- A list ending in the marker is one longer than its jobs: the marker is at index `length`.
      from_list(ids, key, length, first - passed, last - passed)
      passed = passed + length
    end
    return ids
  end
  return redis.call(order == 'asc' and 'ZRANGE' or 'ZREVRANGE', base .. state, first, last)
end

-- A key of another type holds no jobs; a key that Redis refuses to read must not look empty.
local ok, ids = pcall(ids_of_page)
if not ok or is_error(ids) then
  local why = type(ids) == 'table' and ids.err or tostring(ids)
  if not string.find(why, 'WRONGTYPE', 1, true) then return redis.error_reply(why) end
  ids = {}
end
-- The lengths of the fields that an application may fill with anything, job by job: with 1,000 jobs
-- the script blocks Redis 7.0 for 3 ms, with 100 for 0.6 ms.
local lengths, bytes = {}, 0
for i, id in ipairs(ids) do
  lengths[i] = field_lengths(base .. id, 6)
  for _, length in ipairs(lengths[i]) do bytes = bytes + length end
end
if bytes <= tonumber(ARGV[5]) then lengths = {} end
return {
  read('EXISTS', base .. 'meta'),
  read('EXISTS', base .. 'id'),
  read('EXISTS', base .. 'repeat'),
  size,
  ids,
  lengths,
}
