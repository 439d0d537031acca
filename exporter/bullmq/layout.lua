-- How BullMQ lays a queue out, shared by every script of ours. Reads only.
-- A key of the wrong type yields the error itself as the value: the caller sees which one.

local read = redis.pcall

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
  local told = {
    read('HEXISTS', base .. 'meta', 'paused'),
    list_length(base .. 'wait'),
    list_length(base .. 'paused'),
    read('LLEN', base .. 'active'),
  }
  for _, name in ipairs({ 'completed', 'failed', 'delayed', 'prioritized', 'waiting-children' }) do
    told[#told + 1] = read('ZCARD', base .. name)
  end
  return told
end

-- How long the fields of a hash are that ARGV names from there on; 0 where it is no hash.
local function field_lengths(key, first)
  local lengths = {}
  for i = first, #ARGV do
    local length = read('HSTRLEN', key, ARGV[i])
    lengths[#lengths + 1] = is_error(length) and 0 or length
  end
  return lengths
end
