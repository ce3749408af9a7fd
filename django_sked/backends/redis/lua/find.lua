#!lua flags=no-writes
-- The id that holds this key; or '' and a page of those that have held it, the newest first.
-- ARGV: key, first, last.

local holder = redis.call('HGET', P .. 'live', ARGV[3])
if holder then
    return {holder}
end
return {'', unpack(redis.call('ZRANGE', P .. 'newest:' .. ARGV[3], ARGV[4], ARGV[5], 'REV'))}
