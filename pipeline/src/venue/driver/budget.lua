-- A budget of requests, with reservation: who asks has its turn from then on, and those who ask later come behind it.
-- KEYS[1] the budget: the microsecond at which it would be full again, that until which nobody may take, and by how
-- much such pauses have moved turns since the key came to be. ARGV: what is taken of it, 0 to ask only or, with a minus,
-- for how long nobody may take; then what a full one holds; all in microseconds of refilling.
-- Answers how long it is until the turn, and by how much turns were moved so far: a turn whose moves have grown since
-- it was reserved comes by so much later.
-- The time is the server's: the clocks of those who ask need not agree.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local want, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local known = redis.call('GET', KEYS[1]) or ''
local full, paused, moved = string.match(known, '^(%d+) (%d+) (%d+)$')
full = math.max(tonumber(full or 0), now)
paused, moved = math.max(tonumber(paused or 0), now), tonumber(moved or 0)
if want == 0 then return {0, moved} end
local wait = 0
if want < 0 then
  -- Of several refusals at once the longest counts, not their sum.
  local by = math.max(0, now - want - paused)
  paused, moved = paused + by, moved + by
  full = math.max(full + by, paused + capacity)
else
  full = full + want
  wait = math.max(0, full - now - capacity)
end
local live = math.max(60000, math.ceil((full - now) / 1000))
redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f', full, paused, moved), 'PX', live)
return {wait, moved}
