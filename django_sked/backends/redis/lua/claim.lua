#!lua flags=allow-oom
-- with states index
-- STEP claim: scheduled -> claimed, each with a new token; by band, highest first, then by next_at and id.
--
-- ARGV: worker, queue, limit, microseconds ahead. Returns the time, the ids that led to no record, those that cannot be read
-- and are set aside, and for each message its id, its priority, and its fields in the order of FIELDS without the last two.

local worker, queue, limit = ARGV[3], ARGV[4], tonumber(ARGV[5])
local now = store_time()
local latest = text(tonumber(now) + tonumber(ARGV[6]))
local FIELDS = {
    'token', 'event', 'due_at', 'next_at', 'body', 'status',
    'expires_at', 'key', 'live', 'attempt', 'unroutable', 'crashes', 'reason', 'history',
    'queue', 'priority',
}
local answer, astray, aside, held = {now, {}, {}}, {}, {}, {}

-- Nothing that fails may follow the first write, or what was written before it would be held by nobody.
local function is_sound(m)
    return is_whole(m[1]) and m[2] and is_whole(m[3]) and is_whole(m[4]) and m[15] and is_whole(m[16])
end

for _, priority in ipairs(bands('due', queue)) do
    local band = P .. 'due:' .. queue .. ':' .. priority
    local ids = redis.call('ZRANGEBYSCORE', band, '-inf', latest, 'LIMIT', 0, limit)
    for _, id in ipairs(ids) do
        local m = redis.pcall('HMGET', record(id), unpack(FIELDS))
        if m.err or m[6] ~= 'scheduled' then
            astray[#astray + 1] = id
        elseif not is_sound(m) then
            aside[#aside + 1] = id
            aside[#aside + 1] = priority
        else
            m[15], m[16] = nil, nil
            m[1] = text(tonumber(m[1]) + 1)
            redis.call('HSET', record(id), 'status', 'claimed', 'claimed_by', worker, 'claimed_at', now, 'token', m[1])
            held[#held + 1] = m[3]
            held[#held + 1] = id
            if m[7] then
                redis.call('ZREM', P .. 'expiry', id)
            end
            answer[#answer + 1] = id
            answer[#answer + 1] = priority
            answer[#answer + 1] = m
        end
    end
    if #ids > 0 then
        redis.call('ZREM', band, unpack(ids))
        redis.call('ZREM', P .. 'status:scheduled', unpack(ids))
        close_band('due', queue, priority)
        limit = limit - #ids
    end
    if limit == 0 then
        break
    end
end
if #held > 0 then
    redis.call('ZADD', P .. 'held:' .. worker, unpack(held))
    redis.call('SADD', P .. 'holders', worker)
end
for position = 1, #aside, 2 do
    set_aside(aside[position], now, 'cannot be read: columns', queue, aside[position + 1])
    answer[3][#answer[3] + 1] = aside[position]
end
write_index()
answer[2] = astray
return answer
