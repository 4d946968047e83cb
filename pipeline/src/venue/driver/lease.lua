-- A lease: one of many holds it for a term, longer only as long as it says so in time.
-- KEYS[1] the lease, KEYS[2] the number of times it was taken; ARGV: who asks, the term in ms, 1 to give it up.
-- Answers the number of the holding (a fencing token: every holder's is higher than all before) and what is left of
-- the term in ms; 0 in front where another holds it.
local holder = redis.call('GET', KEYS[1])
local own = false
if holder then
  own = string.sub(holder, 1, #ARGV[1] + 1) == ARGV[1] .. ' '
  if not own then return {0, redis.call('PTTL', KEYS[1])} end
end
if ARGV[3] == '1' then
  if own then redis.call('DEL', KEYS[1]) end
  return {0, 0}
end
local token
if own then
  token = tonumber(string.sub(holder, #ARGV[1] + 2))
else
  token = redis.call('INCR', KEYS[2])
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'PX', ARGV[2])
return {token, tonumber(ARGV[2])}
