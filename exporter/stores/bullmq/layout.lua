-- BullMQ's layout of a queue, shared by all of our scripts. Reads only.
-- A key of the wrong type yields the error itself as the value: the caller sees which one.

local read = redis.pcall

local function is_error(value)
  return type(value) == 'table' and value.err ~= nil
end

-- Two functions that read ARGV after the first `count`: the next argument, and a list of arguments
-- that is preceded by its length.
local function arguments_after(count)
  local at = count
  local function next_argument()
    at = at + 1
    return ARGV[at]
  end
  local function next_list()
    local list = {}
    for number = 1, tonumber(next_argument()) do list[number] = next_argument() end
    return list
  end
  return next_argument, next_list
end

-- Before BullMQ 5.0 `wait` and `paused` could end in a marker (`0:…`) that is not a job. BullMQ's
-- own getCounts pops it; we leave it and do not count it.
local function list_length(key)
  local length = read('LLEN', key)
  if is_error(length) or length == 0 then return length end
  if string.sub(read('LINDEX', key, -1), 1, 2) == '0:' then return length - 1 end
  return length
end

-- 1 or 0: whether a queue is paused. Bull's have `meta-paused`; since 3.22 also BullMQ's flag, in a
-- `meta` that holds nothing else. A queue of BullMQ may still have that key from Bull, where it
-- means nothing.
local function paused_flag(base)
  local meta = base .. 'meta'
  local flag = read('HEXISTS', meta, 'paused')
  if flag ~= 0 then return flag end
  local is_bullmq = read('HEXISTS', meta, 'version') == 1 or read('HEXISTS', meta, 'opts.maxLenEvents') == 1
  return is_bullmq and 0 or read('EXISTS', base .. 'meta-paused')
end

-- What poll.counts_of makes the counts of: 1 or 0 for the flag of a paused queue, then how long its
-- lists and sets are, in the order of poll.SIZES. Here the marker is taken off.
local function sizes(base)
  local counts = {
    paused_flag(base),
    list_length(base .. 'wait'),
    list_length(base .. 'paused'),
    read('LLEN', base .. 'active'),
  }
  for _, name in ipairs({ 'completed', 'failed', 'delayed', 'prioritized', 'waiting-children' }) do
    counts[#counts + 1] = read('ZCARD', base .. name)
  end
  return counts
end

-- The lengths of the fields of a hash that ARGV names from there on; 0 if it is not a hash.
local function field_lengths(key, first)
  local lengths = {}
  for i = first, #ARGV do
    local length = read('HSTRLEN', key, ARGV[i])
    lengths[#lengths + 1] = is_error(length) and 0 or length
  end
  return lengths
end

-- Whether a job is within `reach` of either end of a list.
local function is_near_an_end(key, id, reach)
  for rank = 1, -1, -2 do
    local found = read('LPOS', key, id, 'RANK', rank, 'MAXLEN', reach)
    if found and not is_error(found) then return true end
  end
  return false
end

-- The state of a job, false if it is in none. Like BullMQ's getStateV2, but without searching the whole
-- of a long list: a job that is in no set and not near the ends of a long list is `waiting`.
local function state_of(base, id, reach)
  for _, name in ipairs({ 'completed', 'failed', 'delayed', 'prioritized', 'waiting-children' }) do
    local score = read('ZSCORE', base .. name, id)
    if score and not is_error(score) then return name end
  end
  if is_near_an_end(base .. 'active', id, reach) then return 'active' end
  local stopped = paused_flag(base) == 1 and 'paused' or 'waiting'
  if is_near_an_end(base .. 'wait', id, reach) then return stopped end
  if is_near_an_end(base .. 'paused', id, reach) then return 'paused' end
  for name, state in pairs({ wait = stopped, paused = 'paused' }) do
    local length = read('LLEN', base .. name)
    if not is_error(length) and length > 2 * reach then return state end
  end
  return false
end

-- An id, shortened as by text.remembered_id.
local MAX_ID_BYTES = 512
local function remembered(id)
  if #id <= MAX_ID_BYTES then return id end
  return string.sub(id, 1, MAX_ID_BYTES - 41) .. '~' .. redis.sha1hex(id)
end

-- A value of 20 MB is not returned, because it becomes a label. A hash distinguishes values with the same
-- beginning.
local function shown(value)
  if type(value) ~= 'string' or #value <= 200 then return value end
  return string.sub(value, 1, 191) .. '~' .. string.sub(redis.sha1hex(value), 1, 8)
end
