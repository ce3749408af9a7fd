#!lua flags=allow-oom
-- with states index
-- STEP claim, of one suspect: the first that is due in these queues, by priority, next_at and id.
--
-- ARGV: worker, or '' to ask only whether there is one; queues. Returns the time, and its id and record after the claim.

local worker = ARGV[3]
local now = store_time()

-- The first due suspect of a band that has a record; what leads to none is dropped when it is met.
local function first_of(queue, priority)
    local band = P .. 'suspect:' .. queue .. ':' .. priority
    while true do
        local first = redis.call('ZRANGEBYSCORE', band, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
        if #first == 0 then
            return nil
        end
        local m = indexed(first[1])
        local is_sound = m and m.event and m.queue and is_whole(m.priority) and is_whole(m.due_at) and is_whole(m.next_at)
            and is_whole(redis.call('HGET', record(first[1]), 'token'))
        if is_sound and m.status == 'scheduled' then
            return {id = first[1], m = m, priority = tonumber(priority), next_at = tonumber(first[2])}
        end
        redis.call('ZREM', band, first[1])
        if m and not is_sound and m.status == 'scheduled' then
            set_aside(first[1], now, 'cannot be read: columns', queue, priority)
            write_index()
        end
        close_band('suspect', queue, priority)
    end
end

local function is_before(one, other)
    if one.priority ~= other.priority then
        return one.priority > other.priority
    end
    if one.next_at ~= other.next_at then
        return one.next_at < other.next_at
    end
    return one.id < other.id
end

local best
for position = 4, #ARGV do
    local queue = ARGV[position]
    for _, priority in ipairs(bands('suspect', queue)) do
        local found = first_of(queue, priority)
        if found and (not best or is_before(found, best)) then
            best = found
        end
        if found then
            break -- the lower bands of this queue come after it
        end
    end
end
if not best then
    return {now}
end
if worker ~= '' then
    unindex(best.id, best.m)
    redis.call('HSET', record(best.id), 'status', 'claimed', 'claimed_by', worker, 'claimed_at', now)
    redis.call('HINCRBY', record(best.id), 'token', 1)
    best.m.status, best.m.claimed_by = 'claimed', worker
    index(best.id, best.m)
    write_index()
end
return {now, best.id, redis.call('HGETALL', record(best.id))}
