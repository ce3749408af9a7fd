#!lua flags=allow-oom
-- with states conditions index families
-- STEP unblock: go on with what is still to follow from ends and redrives. When nothing is left of that, look through a
-- part of what is blocked, for parents whose end nobody has told: by a worker of an earlier release, or deleted by hand.
--
-- ARGV: how many edges; the first of those that are blocked to look at, and the last. Returns what has followed, and at
-- how many it has looked.

local now = store_time()
local most, first, last = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local looked, edges, told = 0, 0, {}

local function make_up(id)
    local m = indexed(id)
    if not m or m.status ~= 'blocked' or not redis.call('HGET', record(id), 'parents_left') then
        return
    end
    local all, is_open = edges_of(id), false
    edges = edges + #all / 2
    for position = 1, #all, 2 do
        local parent = all[position]
        if all[position + 1]:sub(2) == 'o' then
            is_open = true
            local status = status_of(parent)
            if not status or FINISHED[status] then
                redis.call('SADD', P .. 'undecided:' .. parent, id)
                told[parent] = true
            end
        end
    end
    if not is_open then
        release(id, m, now)
    end
end

follow(now, most)
if last >= first and redis.call('LLEN', P .. 'work') == 0 then
    for _, id in ipairs(redis.call('ZRANGE', P .. 'status:blocked', first, last)) do
        make_up(id)
        looked = looked + 1
        if edges > most then
            break
        end
    end
    for parent in pairs(told) do
        has_ended(parent)
    end
    follow(now, most)
end
local answer = what_followed()
answer[4] = looked
return answer
