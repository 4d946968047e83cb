-- A budget of requests as one number: the microsecond at which it would be full again.
-- KEYS[1] the budget; ARGV: what is taken of it or, with a minus, for how long nobody may take; then what
-- a full one holds; all in microseconds of refilling. Answers how long to wait before asking again, 0 where it was given.
-- The time is the server's: the clocks of those who ask need not agree.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local want, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local wait = 0
if want < 0 then
  full = math.max(full, now + capacity - want)
else
  wait = math.max(0, full + want - now - capacity)
  if wait > 0 then return wait end
  full = full + want
end
local live = math.max(60000, math.ceil((full - now) / 1000))
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', live)
return 0
