#!lua flags=allow-oom
-- These workflows are known to be gone. ARGV: their ids.

redis.call('SREM', P .. 'gone', unpack(ARGV, 3))
