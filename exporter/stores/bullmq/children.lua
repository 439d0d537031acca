-- The states of jobs of one queue, and why they failed: the children of a flow's parent.
-- KEYS[1]: what the queue's keys begin with. ARGV: how far to search a list, the maximum length of
-- a reason (bytes), then the jobs' ids. Returns for each job whether its hash exists, its state and its
-- reason. A job without a hash is not searched for, because its id is useless.

local base = KEYS[1]
local reach, longest = tonumber(ARGV[1]), tonumber(ARGV[2])

local result = {}
for at = 3, #ARGV do
  local key = base .. ARGV[at]
  local exists, state, reason = read('EXISTS', key), false, false
  if exists == 1 then
    state = state_of(base, ARGV[at], reach)
    -- A string is read whole before it is cut.
    local length = read('HSTRLEN', key, 'failedReason')
    if not is_error(length) and length > 0 then
      reason = length <= longest and read('HGET', key, 'failedReason')
        or '[left out: ' .. length .. ' bytes]'
    end
  end
  result[#result + 1] = { exists, state, reason }
end
return result
