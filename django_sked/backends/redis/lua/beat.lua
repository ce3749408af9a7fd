#!lua flags=allow-oom
-- STEP beat: renew a lease; returns the time, and of what this worker holds that shall be cancelled each id and token.
-- ARGV: worker, microseconds, its host and process, as JSON; microseconds of 0 end the lease.

local worker, lease = ARGV[3], tonumber(ARGV[4])
local now = store_time()
if lease == 0 then
    redis.call('ZREM', P .. 'leases', worker)
    redis.call('HDEL', P .. 'places', worker)
    return {now, {}}
end
redis.call('ZADD', P .. 'leases', tonumber(now) + lease, worker)
redis.call('HSET', P .. 'places', worker, ARGV[5])
-- Workers that ended without retiring are forgotten a day later, a few at a time.
local yesterday = tonumber(now) - 86400000000
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', yesterday, 'LIMIT', 0, 10)) do
    redis.call('ZREM', P .. 'leases', gone)
    redis.call('HDEL', P .. 'places', gone)
end
local stopping = {}
for _, id in ipairs(redis.call('SMEMBERS', P .. 'stopping:' .. worker)) do
    local token = redis.pcall('HGET', record(id), 'token')
    if type(token) == 'string' and token:match('^%d+$') then
        stopping[#stopping + 1] = id
        stopping[#stopping + 1] = token
    end
end
return {now, stopping}
