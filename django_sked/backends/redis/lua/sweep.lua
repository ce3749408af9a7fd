#!lua flags=allow-oom
-- with states index
-- What is to be swept, at most so many: for each message its id, its worker, and where that is or was, as JSON, or ''. What
-- leads to no record any more, or to one that has gone on, is dropped when it is met.
--
-- ARGV: how many, and 'lapsed' for what workers without a lease hold, or 'expired' for what is past its expiry.

local most = tonumber(ARGV[3])
local now = store_time()
local answer = {}

-- A status that is not known here may be one of a newer release: that is left where it is.
local function is_astray(id, expected)
    local status = redis.pcall('HGET', record(id), 'status')
    if type(status) ~= 'string' then
        return redis.call('EXISTS', record(id)) == 0
    end
    local is_known = PENDING[status] or FINISHED[status] or status == 'claimed'
    return is_known and not expected[status]
end

-- Looks again as long as all it finds is astray.
local function take(source, first_ids, worker, place, expected)
    local before, ids = #answer, first_ids()
    while #ids > 0 and #answer == before do
        for _, id in ipairs(ids) do
            if is_astray(id, expected) then
                redis.call('ZREM', source, id)
            else
                answer[#answer + 1] = id
                answer[#answer + 1] = worker
                answer[#answer + 1] = place
            end
        end
        ids = first_ids()
    end
end

if ARGV[4] == 'expired' then
    local source = P .. 'expiry'
    take(source, function()
        return redis.call('ZRANGEBYSCORE', source, '-inf', now, 'LIMIT', 0, most)
    end, '', '', PENDING)
    return answer
end
for _, worker in ipairs(redis.call('SMEMBERS', P .. 'holders')) do
    local left = most - #answer / 3
    if left > 0 and not has_lease(worker, now) then
        local source = P .. 'held:' .. worker
        take(source, function()
            return redis.call('ZRANGE', source, 0, left - 1)
        end, worker, redis.call('HGET', P .. 'places', worker) or '', {claimed = true})
        forget_holder(worker)
    end
end
return answer
