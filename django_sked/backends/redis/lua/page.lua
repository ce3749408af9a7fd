#!lua flags=no-writes
-- with sources
-- The next messages of a search, by due_at (the score in their indexes) and then by id; or only their ids, their queues, or
-- how many they are.
--
-- ARGV: 'rows', 'ids', 'queues' or 'count'; 'up' or 'down'; the due_at and id to go on after, or the due_at to begin with
-- and ''; the due_at to end with; how many to look at; how many of the only index to jump over without a look; how many of
-- those that meet the conditions to pass over; event, queue, key ('' for any); the statuses with spaces around ('' for any);
-- then the indexes that hold them, see `sources.lua`. Returns the due_at and id to go on after ('' at the end), how many met
-- the conditions, and the ids, for 'rows' with the records, or the queues, of these without those that are passed over.

local what, is_up = ARGV[3], ARGV[4] == 'up'
local from_due, from_id, bound = ARGV[5], ARGV[6], tonumber(ARGV[7])
local most, jump, pass = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local event, queue, key, statuses = ARGV[11], ARGV[12], ARGV[13], ARGV[14]
local sources = {}

for position = 15, #ARGV do
    add_sources(sources, ARGV[position])
end

-- How many members come before the place where to go on: up, that is after `from`, and down, before it. Those with one
-- score are in the order of their ids.
local function rank(source)
    if from_id == '' then
        return redis.call('ZCOUNT', source, '-inf', is_up and '(' .. from_due or from_due)
    end
    local low = redis.call('ZCOUNT', source, '-inf', '(' .. from_due)
    local high = redis.call('ZCOUNT', source, '-inf', from_due)
    while low < high do
        local middle = math.floor((low + high) / 2)
        local id = redis.call('ZRANGE', source, middle, middle)[1]
        if id > from_id or (id == from_id and not is_up) then
            high = middle
        else
            low = middle + 1
        end
    end
    return low
end

local function next_members(source)
    local at = rank(source)
    if is_up then
        return redis.call('ZRANGE', source, at + jump, at + jump + most - 1, 'WITHSCORES')
    end
    local last = at - jump - 1
    if last < 0 then
        return {}
    end
    return redis.call('ZRANGE', source, math.max(0, last - most + 1), last, 'WITHSCORES')
end

local found = {}
for _, source in ipairs(sources) do
    local members = next_members(source)
    for position = 1, #members, 2 do
        found[#found + 1] = {id = members[position], due_at = tonumber(members[position + 1])}
    end
end
table.sort(found, function(one, other)
    if not is_up then
        one, other = other, one
    end
    if one.due_at ~= other.due_at then
        return one.due_at < other.due_at
    end
    return one.id < other.id
end)

local function meets(id)
    local m = redis.pcall('HMGET', record(id), 'status', 'event', 'queue', 'key')
    return not m.err and m[1]
        and (event == '' or m[2] == event)
        and (queue == '' or m[3] == queue)
        and (key == '' or m[4] == key)
        and (statuses == '' or statuses:find(' ' .. m[1] .. ' ', 1, true))
        and m
end

local rows, count, last = {}, 0, nil
for position = 1, math.min(most, #found) do
    last = found[position]
    if is_up and last.due_at > bound or not is_up and last.due_at < bound then
        return {'', '', count, rows}
    end
    local m = meets(last.id)
    if m then
        count = count + 1
    end
    if m and count > pass then
        if what == 'queues' then
            rows[#rows + 1] = m[3] or ''
        elseif what ~= 'count' then
            rows[#rows + 1] = last.id
        end
        if what == 'rows' then
            rows[#rows + 1] = redis.call('HGETALL', record(last.id))
        end
    end
end
if #found < most then
    return {'', '', count, rows}
end
return {text(last.due_at), last.id, count, rows}
