-- Replaces a value by a newer one, atomically (invariant 6): one of higher origin whose venue
-- time is not earlier. Origins of two incarnations of a topic cannot be compared; times can.
-- KEYS: the value. ARGV: milliseconds to live, topic id, origin, venue time, then fields and
-- values in turn. Returns 1 where it replaced; where it is to live for 0, whether it would have.
local held = redis.call('hmget', KEYS[1], 'topic_id', 'origin', 'venue_time')
if held[1] then
    if tonumber(ARGV[4]) < tonumber(held[3]) then
        return 0
    end
    if held[1] == ARGV[2] and tonumber(ARGV[3]) <= tonumber(held[2]) then
        return 0
    end
end
if ARGV[1] == '0' then
    return 1
end
if held[1] then
    redis.call('del', KEYS[1])
end
redis.call('hset', KEYS[1], 'topic_id', ARGV[2], 'origin', ARGV[3], 'venue_time', ARGV[4], unpack(ARGV, 5))
redis.call('pexpire', KEYS[1], ARGV[1])
return 1
