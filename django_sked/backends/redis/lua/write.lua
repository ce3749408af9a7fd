#!lua flags=allow-oom
-- with states steps conditions index families
-- Every step that Python has decided: written only if the record is still the one that the decision was made from.
--
-- ARGV: the queue to tell of, or ''; a name of this call, or '' where it need not be known again; then for each write: step, id, the rev, token and status it was decided from, the new
-- rev, a worker that must have no lease or '', 1 to delete the record if it is on its own, how many names follow with a value each, how many
-- names to remove, and these. Returns for each: 'written', 'changed' (look again), 'gone', 'leased' or 'key'; and then, where
-- others waited for one of them, what has followed (see `families.lua`).

local EDGES = 100

local now = store_time()
local answer = {}
local at = 5
local made = ARGV[4] ~= '' and P .. 'made:' .. ARGV[4]

-- A call whose answer was lost is made again at once. Others may have changed the records since, and so no `rev` tells of it.
if made then
    for word in (redis.call('GET', made) or ''):gmatch('%a+') do
        answer[#answer + 1] = word
    end
    if #answer > 0 then
        return answer
    end
end

-- The first step that states.py does not have. Its record is left as it is, and those of the others are written as a whole:
-- an error at once would leave them without their indexes.
local refusal

-- What may be indexed differently afterwards, as it will be; nil after a step that states.py does not have.
local function after(old, step, first, sets, dels)
    local new = {}
    for name, value in pairs(old) do
        new[name] = value
    end
    for position = first, first + 2 * sets - 1, 2 do
        new[ARGV[position]] = ARGV[position + 1]
    end
    for position = first + 2 * sets, first + 2 * sets + dels - 1 do
        new[ARGV[position]] = nil
    end
    if not (STEPS[step] and STEPS[step].from[old.status] and STEPS[step].to[new.status]) then
        refusal = refusal or 'no step ' .. step .. ' leads from ' .. old.status .. ' to ' .. new.status
        return nil
    end
    return new
end

local function write(step, id, first, sets, dels)
    local old = indexed(id)
    local state = old and redis.call('HMGET', record(id), 'rev', 'token')
    if not old then
        return 'gone'
    end
    if state[1] == ARGV[at + 5] then
        return 'written' -- by this very call, whose answer was lost
    end
    if (state[1] or '') ~= ARGV[at + 2] or state[2] ~= ARGV[at + 3] or old.status ~= ARGV[at + 4] then
        return 'changed'
    end
    if ARGV[at + 6] ~= '' and has_lease(ARGV[at + 6], now) then
        return 'leased'
    end
    local new = after(old, step, first, sets, dels)
    if not new then
        return 'changed'
    end
    if new.live and not old.live and key_holder(new.key) then
        return 'key'
    end
    if ARGV[at + 7] == '1' and not old.has_children and not old.flow then
        delete(id, old)
        return 'written'
    end
    unindex(id, old)
    redis.call('HSET', record(id), 'rev', ARGV[at + 5], unpack(ARGV, first, first + 2 * sets - 1))
    if dels > 0 then
        redis.call('HDEL', record(id), unpack(ARGV, first + 2 * sets, first + 2 * sets + dels - 1))
    end
    index(id, new)
    note_change(id, old, new)
    return 'written'
end

while at <= #ARGV do
    local sets, dels = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9])
    answer[#answer + 1] = write(ARGV[at], ARGV[at + 1], at + 10, sets, dels)
    at = at + 10 + 2 * sets + dels
end
if followed.has_begun then
    follow(now, EDGES)
else
    write_index()
end
tell(ARGV[3])
if refusal then
    return redis.error_reply('ERR ' .. refusal)
end
if made then
    redis.call('SET', made, table.concat(answer, ' '), 'EX', 60)
end
if followed.has_begun then
    answer[#answer + 1] = what_followed()
end
return answer
