#!lua
-- STEP schedule, of many messages that are alike, a part of them: their records, to which nothing leads yet. Then
-- `enlist.lua` makes all of them scheduled, or `discard.lua` deletes them. Besides what `index.lua` says there are:
--
--   staged                   names of calls by when they have staged something (a sorted set)
--   staged:C                 the ids that call C has staged (a list)
--
-- ARGV: the name of the call; queue, event, priority, due_at, and expires_at or ''; then id and body of each message.

local call, queue, event, priority, due_at, expires_at = unpack(ARGV, 3, 8)
local ids, expiry = {}, {}

if expires_at ~= '' then
    expiry = {'expires_at', expires_at}
end
for position = 9, #ARGV, 2 do
    ids[#ids + 1] = ARGV[position]
end
redis.call('ZADD', P .. 'staged', store_time(), call)
redis.call('RPUSH', P .. 'staged:' .. call, unpack(ids))
for position = 9, #ARGV, 2 do
    redis.call('HSET', record(ARGV[position]), 'status', 'scheduled', 'queue', queue, 'event', event, 'priority', priority,
        'due_at', due_at, 'next_at', due_at, 'token', '0', 'body', ARGV[position + 1], unpack(expiry))
end
