-- One job: its state, the lengths of its fields, its logs and its children.
-- KEYS[1]: what the queue's keys begin with. ARGV: job id, first and last index of the log lines,
-- the longest log line (bytes), how far to look into a list, how many children to name, then the
-- fields whose sizes to return.

local base, id = KEYS[1], ARGV[1]
local key = base .. id
local longest, reach, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- The number of a kind of children, and the keys of the first ones; none of a large hash or set,
-- because a part of it cannot be read in a known time.
local function children(kind, count, all)
  local number = read(count, key .. kind)
  if is_error(number) then return { 0, {} } end
  if count == 'ZCARD' then return { number, read('ZRANGE', key .. kind, 0, most - 1) } end
  return { number, number <= most and read(all, key .. kind) or {} }
end

-- Line by line, because a line is read whole before it is cut: 100 lines of 4 MiB would block Redis
-- for 0.7 s. After a MiB the rest of the page is omitted.
local lines, passed = {}, 0
local logged = read('LLEN', key .. ':logs')
if is_error(logged) then logged = 0 end
for at = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), logged - 1) do
  if passed > 1048576 then
    lines[#lines + 1] = '[left out]'
  else
    local line = read('LINDEX', key .. ':logs', at)
    passed = passed + #line
    if #line > longest then
      line = string.sub(line, 1, longest) .. ' [left out: ' .. (#line - longest) .. ' bytes]'
    end
    lines[#lines + 1] = line
  end
end

return {
  state_of(base, id, reach),
  field_lengths(key, 7),
  logged,
  lines,
  children(':processed', 'HLEN', 'HKEYS'),
  children(':dependencies', 'SCARD', 'SMEMBERS'),
  children(':unsuccessful', 'ZCARD'),
  children(':failed', 'HLEN', 'HKEYS'),
}
