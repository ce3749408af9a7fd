#!lua flags=allow-oom
-- with states index
-- STEP settle, of plain deliveries: claimed -> delivered, each only while its token is still the message's. Those that
-- others wait for are left to `write.lua`.
--
-- ARGV: 1 to keep them or 0 to delete those that are of no workflow, then id and token of each. Returns the time and, for each, its new attempt,
-- or -1 when it was not written.

local keep = ARGV[3] == '1'
local now = store_time()
local answer, by_worker, delivered, ended = {now}, {}, {}, {}

local function deliver(id, token)
    local m = redis.pcall('HMGET', record(id), 'status', 'token', 'attempt', 'due_at', 'claimed_by', 'live', 'key',
        'unroutable', 'suspect', 'reason', 'cancel_requested', 'has_children')
    if m.err or m[1] ~= 'claimed' or m[2] ~= token or not is_whole(m[4]) or m[12] then
        return -1
    end
    local worker = m[5] or 'nobody'
    local attempt = math.min((tonumber(m[3]) or 0) + 1, 32000)
    if m[6] and m[7] and redis.call('HGET', P .. 'live', m[7]) == id then
        redis.call('HDEL', P .. 'live', m[7])
    end
    if m[11] then
        redis.call('SREM', P .. 'stopping:' .. worker, id)
    end
    local held = by_worker[worker] or {}
    by_worker[worker] = held
    held[#held + 1] = id
    redis.call('HSET', record(id), 'status', 'delivered', 'finished_at', now, 'attempt', attempt)
    if m[6] or m[8] or m[9] or m[10] then
        redis.call('HDEL', record(id), 'live', 'unroutable', 'suspect', 'reason')
    end
    local position = #delivered
    delivered[position + 1], delivered[position + 2] = m[4], id
    ended[position + 1], ended[position + 2] = now, id
    return attempt
end

for position = 4, #ARGV, 2 do
    answer[#answer + 1] = deliver(ARGV[position], ARGV[position + 1])
end
for worker, ids in pairs(by_worker) do
    redis.call('ZREM', P .. 'held:' .. worker, unpack(ids))
    forget_holder(worker)
end
if #delivered > 0 then
    redis.call('ZADD', P .. 'status:delivered', unpack(delivered))
    redis.call('ZADD', P .. 'ended:delivered', unpack(ended))
end
if not keep then
    for position = 2, #delivered, 2 do
        local id = delivered[position]
        local m = indexed(id)
        if not m.flow then
            delete(id, m)
        end
    end
end
return answer
