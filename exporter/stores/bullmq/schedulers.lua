-- Job schedulers and old repeatable jobs: what they repeat, and when they last ran.
-- KEYS: one for each part of a queue's schedulers, what the queue's keys begin with. ARGV[1]: the
-- longest value that is read (bytes); then for each part the number of schedulers that are named, and
-- these, or 0, and the first and the last index.
-- For each part an error, or a row for each scheduler, except those whose keys are longer.

local longest = tonumber(ARGV[1])
local FIELDS = { 'name', 'pattern', 'tz', 'every', 'limit', 'ic', 'endDate' }
-- How many of them, from the first, are texts of the application.
local TEXTS = 3
local TOO_LONG = { err = 'too long' }

-- How often the scheduler has run since it was registered, 1 for its first job, from the options of
-- its next job; false if they do not contain it.
local function iteration(job)
  local length = read('HSTRLEN', job, 'opts')
  if is_error(length) or length == 0 or length > longest then return false end
  local ok, opts = pcall(cjson.decode, read('HGET', job, 'opts'))
  local repeated = ok and type(opts) == 'table' and opts['repeat']
  return type(repeated) == 'table' and tonumber(repeated.count) or false
end

-- A worker adds the next job when it takes the previous one (5.56.3 and 6.7.0: Worker
-- nextJobFromJobData), so the `timestamp` of that job is when the scheduler last ran. The first job is
-- added when the scheduler is registered, and whenever the application registers it again:
-- that is not a run. Once it has ended there is no next job, only the last one.
local function last_run(job, added, taken)
  if taken then return taken end
  local count = iteration(job)
  return count and count > 1 and added
end

-- The value of a field of a scheduler, or an error.
local function value_of(key, i)
  if i <= TEXTS then
    local length = read('HSTRLEN', key, FIELDS[i])
    if is_error(length) then return length end
    if length > longest then return TOO_LONG end
  end
  return shown(read('HGET', key, FIELDS[i]))
end

-- Those of these that exist, each with its next run.
local function members_of(base, names)
  local scores = read('ZMSCORE', base .. 'repeat', unpack(names))
  if is_error(scores) then return scores end
  local members = {}
  for i, name in ipairs(names) do
    if scores[i] then
      members[#members + 1] = name
      members[#members + 1] = scores[i]
    end
  end
  return members
end

local function rows(base, members)
  if is_error(members) then return members end
  local found = {}
  for i = 1, #members, 2 do
    if #members[i] <= longest then
      local key = base .. 'repeat:' .. members[i]
      local job = key .. ':' .. members[i + 1]
      local added = shown(read('HGET', job, 'timestamp'))
      local taken = shown(read('HGET', job, 'processedOn'))
      local row = { members[i], shown(members[i]), members[i + 1], added, last_run(job, added, taken) }
      for field = 1, #FIELDS do row[#row + 1] = value_of(key, field) end
      found[#found + 1] = row
    end
  end
  return found
end

local result = {}
local next_argument, next_list = arguments_after(1)

for i, base in ipairs(KEYS) do
  local names = next_list()
  if #names > 0 then
    result[i] = rows(base, members_of(base, names))
  else
    local first, last = next_argument(), next_argument()
    result[i] = rows(base, read('ZRANGE', base .. 'repeat', first, last, 'WITHSCORES'))
  end
end
return result
