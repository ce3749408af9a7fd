#!lua flags=allow-oom
-- with states index
-- STEP prune: delete finished messages of one status that ended before a time, the oldest first. What a promoter is to
-- read (of a recurrence, and no plain delivery) is kept for longer, and met again when that has passed. What a live child
-- waits for, or waited, is kept, and so is a workflow of which a part is: they are met again later.
--
-- ARGV: status, microseconds that they are kept, how many at most, microseconds that a promoter has; then for each status
-- microseconds that such messages are kept, or '' for ever. Returns at how many it has looked, how many it has deleted, and
-- some of the workflows of which nothing is left.

local status, kept, awaited, now = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(store_time())
local most = tonumber(ARGV[5])
local ended = P .. 'ended:' .. status
local ids = redis.call('ZRANGEBYSCORE', ended, '-inf', '(' .. text(now - kept), 'LIMIT', 0, most)
local deleted, retention, is_old, looks = 0, {}, {}, 0
-- When somebody is looked at again who was needed, and at how many others and edges one call looks.
local LATER, LOOKS = 600000000, 5000

for position = 7, #ARGV, 2 do
    retention[ARGV[position]] = tonumber(ARGV[position + 1])
end

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

-- Does anybody live wait for it, or has? Of very many the next call goes on where this one has stopped; whoever joins them
-- meanwhile is decided at once, as it has ended.
local function is_waited_for(id)
    local mark = P .. 'looked:' .. id
    local cursor = redis.call('GET', mark) or '0'
    repeat
        local page = redis.call('SSCAN', P .. 'children:' .. id, cursor, 'COUNT', 500)
        for _, child in ipairs(page[2]) do
            looks = looks + 1
            local became = redis.pcall('HGET', record(child), 'status')
            if type(became) == 'string' and not FINISHED[became] then
                return true
            end
        end
        cursor = page[1]
        if cursor ~= '0' and looks > LOOKS then
            redis.call('SET', mark, cursor, 'EX', 86400)
            return true
        end
    until cursor == '0'
    return false
end

-- Is all of a workflow past its retention? What has just been found to be so goes on being so.
local function is_past(flow)
    for _, id in ipairs(redis.call('ZRANGE', P .. 'workflow:' .. flow, 0, -1)) do
        looks = looks + 1
        local m = redis.pcall('HMGET', record(id), 'status', 'finished_at')
        local stays = not m.err and m[1] and retention[m[1]]
        if not m.err and m[1] and (not stays or not m[2] or tonumber(m[2]) >= now - stays) then
            return false
        end
    end
    return true
end

local function needed_until(id, m)
    if m.flow and is_old[m.flow] == nil then
        is_old[m.flow] = is_past(m.flow)
    end
    if (m.flow and not is_old[m.flow]) or (m.has_children and is_waited_for(id)) then
        return now + LATER
    end
end

local looked = 0
for _, id in ipairs(ids) do
    looked = looked + 1
    local m = indexed(id)
    local later = m and (needed_until(id, m) or awaited_until(id, m))
    if later then
        redis.call('ZADD', ended, text(later - kept), id)
    elseif m then
        looks = looks + delete(id, m)
        deleted = deleted + 1
    else
        redis.call('ZREM', ended, id)
        redis.call('ZREM', P .. 'status:' .. status, id)
        deleted = deleted + 1
    end
    if looks > LOOKS then
        looked = most -- there may be more
        break
    end
end
return {looked, deleted, redis.call('SRANDMEMBER', P .. 'gone', 100)}
