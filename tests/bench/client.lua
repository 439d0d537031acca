-- What wrk asks for: pages 1, 2, … LAST of a queue's jobs, over and over.
-- Arguments: API_KEY PATH LAST. Prints answers, failed ones, seconds, and the ms of p50 and p99.

local key, path, last
local page = 0

function init(arguments)
  key, path, last = arguments[1], arguments[2], tonumber(arguments[3])
end

function request()
  page = page % last + 1
  return wrk.format('GET', path .. page, { ['X-API-KEY'] = key })
end

function done(summary, latency)
  local failed = 0
  for _, number in pairs(summary.errors) do failed = failed + number end
  print(summary.requests, failed, summary.duration / 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000)
end
