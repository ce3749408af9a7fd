#!lua flags=allow-oom
-- with states index
-- STEP prune: delete finished messages of one status that ended before a time, the oldest first. What a promoter is to
-- read (of a recurrence, and no plain delivery) is kept for longer, and met again when that has passed.
-- ARGV: status, microseconds that they are kept, how many at most, microseconds that a promoter has. Returns at how many
-- it has looked, and how many it has deleted.

local status, kept, awaited, now = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(store_time())
local ended = P .. 'ended:' .. status
local ids = redis.call('ZRANGEBYSCORE', ended, '-inf', '(' .. text(now - kept), 'LIMIT', 0, tonumber(ARGV[5]))
local deleted = 0

-- When a promoter has had its time; nil when it has, or needs none.
local function awaited_until(id, m)
    local until_ = (tonumber(m.finished_at) or 0) + awaited
    if kept >= awaited or until_ < now or redis.call('HEXISTS', record(id), 'recurs') == 0 then
        return nil
    end
    if status == 'delivered' and redis.call('HEXISTS', record(id), 'said') == 0 then
        return nil
    end
    return until_
end

for _, id in ipairs(ids) do
    local m = indexed(id)
    local later = m and awaited_until(id, m)
    if later then
        redis.call('ZADD', ended, text(later - kept), id)
    elseif m then
        unindex(id, m)
        redis.call('UNLINK', record(id))
        deleted = deleted + 1
    else
        redis.call('ZREM', ended, id)
        redis.call('ZREM', P .. 'status:' .. status, id)
        deleted = deleted + 1
    end
end
return {#ids, deleted}
