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

-- What poll.counts_of makes the counts of: 1 or 0 for the flag of a paused queue, then how long its
-- lists and sets are, in the order of poll.SIZES. Here the marker is taken off.
local function sizes(base)
  local of_lists = { read('HEXISTS', base .. 'meta', 'paused') }
  for _, name in ipairs({ 'wait', 'paused', 'active' }) do
    of_lists[#of_lists + 1] = name == 'active' and read('LLEN', base .. name) or list_length(base .. name)
  end
  for _, name in ipairs({ 'completed', 'failed', 'delayed', 'prioritized', 'waiting-children' }) do
    of_lists[#of_lists + 1] = read('ZCARD', base .. name)
  end
  return of_lists
end
