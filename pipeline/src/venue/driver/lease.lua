-- A lease: one of many holds it for a term, longer only as long as it says so in time.
-- KEYS[1] the lease, KEYS[2] the number of times it was taken, KEYS[3] which process bears a name; ARGV: the name, the
-- process, the term in ms, 1 to give everything up.
-- Answers the number of the holding (a fencing token: every holder's is higher than all before; 0 where another holds it
-- or nobody), what is left of the holder's term, and for how long yet another process bears the name, in ms. A name has
-- one bearer, and nobody else by that name is given the lease: not before its term is over, if it has died.
local me, term = ARGV[1] .. '/' .. ARGV[2], tonumber(ARGV[3])
local bearer = redis.call('GET', KEYS[3])
local named = not bearer or bearer == ARGV[2]
local holder = redis.call('GET', KEYS[1])
local own = holder and string.sub(holder, 1, #me + 1) == me .. ' '
if ARGV[4] == '1' then
  if own then redis.call('DEL', KEYS[1]) end
  if named then redis.call('DEL', KEYS[3]) end
  return {0, 0, 0}
end
if not named then
  return {0, math.max(0, redis.call('PTTL', KEYS[1])), math.max(1, redis.call('PTTL', KEYS[3]))}
end
redis.call('SET', KEYS[3], ARGV[2], 'PX', term)
if holder and not own then return {0, redis.call('PTTL', KEYS[1]), 0} end
local token
if own then
  token = tonumber(string.sub(holder, #me + 2))
else
  token = redis.call('INCR', KEYS[2])
end
redis.call('SET', KEYS[1], me .. ' ' .. token, 'PX', term)
return {token, term, 0}
