-- Reads event streams without return values and the ends of long texts, which are not needed, but which
-- XREAD, XRANGE and XINFO always send. Reads only.
-- KEYS: the streams. ARGV: the maximum number of entries and of bytes, then for each stream the id to read
-- after (empty: no entries), and its last known length (empty: no information; -1: always information).
-- Long ids of jobs are cut as text.remembered_id does.
-- Replies for each stream, in this order, {information, unfinished, bytes of the largest entry,
-- entries}. Information is {length, id of the first entry, last id, entries added or -1, bytes of the
-- first entry, bytes of the last one}, 0 if the length is unchanged, or an error. It is read just
-- before the entries. Once a limit is reached, the remaining streams have no reply; the first stream always
-- has one, with at least one entry.

local KEPT_BYTES = 4096
local KEPT_WORDS = 32
local UNUSED = { returnvalue = true, data = true }

local function bytes_of(fields)
  local bytes = 0
  for _, word in ipairs(fields) do bytes = bytes + #word end
  return bytes
end

local function useful(fields)
  local kept = {}
  for i = 1, math.min(#fields, KEPT_WORDS) do
    local unused = i % 2 == 0 and UNUSED[fields[i - 1]]
    kept[i] = unused and '' or string.sub(fields[i], 1, KEPT_BYTES)
    -- The reason of a failure may be at its end.
    if fields[i - 1] == 'failedReason' and #fields[i] > 2 * KEPT_BYTES then
      kept[i] = kept[i] .. '\n' .. string.sub(fields[i], -KEPT_BYTES)
    end
  end
  if fields[3] == 'jobId' and fields[4] then kept[4] = remembered(fields[4]) end
  return kept
end

local entries_left, bytes_left = tonumber(ARGV[1]), tonumber(ARGV[2])
local bytes_read = 0

local function count(bytes)
  bytes_left, bytes_read = bytes_left - bytes, bytes_read + bytes
  return bytes
end

-- FULL COUNT 1 returns only the first entry, XINFO STREAM the last one too, which also determines the size
-- of an ordinary XINFO.
local function information(key, known)
  local length = read('XLEN', key)
  if is_error(length) then return length end
  if length == known then return 0 end
  local reply = read('XINFO', 'STREAM', key, 'FULL', 'COUNT', 1)
  if is_error(reply) then return reply end
  local by_name = {}
  for i = 1, #reply, 2 do by_name[reply[i]] = reply[i + 1] end
  local first, first_bytes, last_bytes = by_name.entries[1], 0, 0
  if first then
    first_bytes = count(bytes_of(first[2]))
    last_bytes = count(bytes_of(read('XREVRANGE', key, '+', '-', 'COUNT', 1)[1][2]))
  end
  return {
    length,
    first and first[1] or '',
    by_name['last-generated-id'],
    by_name['entries-added'] or -1,
    first_bytes,
    last_bytes,
  }
end

local replies = {}
for i, key in ipairs(KEYS) do
  if i > 1 and (entries_left <= 0 or bytes_left <= 0) then break end
  local after, known = ARGV[2 * i + 1], ARGV[2 * i + 2]
  local info = known == '' and 0 or information(key, tonumber(known))
  local entries, largest, unfinished = {}, 0, 0
  if after ~= '' and not is_error(info) then
    -- One at a time, because the size of the next one is unknown until it is read.
    repeat
      local found = read('XRANGE', key, '(' .. after, '+', 'COUNT', 1)
      if is_error(found) then
        info, unfinished = found, 0
        break
      end
      unfinished = #found
      if unfinished == 0 then break end
      local id, fields = found[1][1], found[1][2]
      largest = math.max(largest, count(bytes_of(fields)))
      entries[#entries + 1] = { id, useful(fields) }
      after, entries_left = id, entries_left - 1
    until entries_left <= 0 or bytes_left <= 0
  end
  replies[i] = { info, unfinished, largest, entries }
end

-- Otherwise Lua would free what was read only gradually, and Redis's memory would grow.
if bytes_read > 1000000 then collectgarbage() end
return replies
