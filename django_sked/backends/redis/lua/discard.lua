#!lua flags=allow-oom
-- Delete what was staged: by a call that has failed, or by one of those that have staged nothing for so long.
-- ARGV: the name of the call, or ''; microseconds. Returns 1, or 0 when there was none.

local call = ARGV[3]
if call == '' then
    local latest = text(tonumber(store_time()) - tonumber(ARGV[4]))
    call = redis.call('ZRANGEBYSCORE', P .. 'staged', '-inf', latest, 'LIMIT', 0, 1)[1]
end
if not call then
    return 0
end
for _, id in ipairs(redis.call('LRANGE', P .. 'staged:' .. call, 0, -1)) do
    redis.call('UNLINK', record(id))
end
redis.call('UNLINK', P .. 'staged:' .. call)
redis.call('ZREM', P .. 'staged', call)
return 1
