#!lua
-- with states conditions index families
-- STEP schedule: all of these messages or none.
--
-- ARGV: on_conflict; 1 when this is said again because the first answer was lost; the queue to tell of, or ''; a name of
-- this call; how many ticks to note, the oldest notes going, or 0 when these are no messages of ticks; 1 to know this call
-- for a while, as what ends is deleted at once; how many kinds of messages there are, and status, queue, event and
-- priority of each; then for each message its id, the number of its kind, its due_at, its body, and how many further
-- fields follow as name and value. One of them is 'added' where the id is the caller's own, and next_at where it is not
-- due_at. What has none of them is scheduled. The last one may be 'waits': for each message that it waits for its id and
-- one letter, see `CONDITIONS`.
--
-- The id of a tick is noted by the call that stores its message, and outlives it; one that is noted is passed over.
--
-- Returns {'refused', position, 'id' or 'key', holder, its record}, or {'unknown', ids that a message would wait for}, or
-- {'stored', and for each message that was ignored its position, holder and record; then those that were replaced as
-- {id}; then perhaps {'followed', and what: see `families.lua`}}.

local on_conflict, again, news, call, most_ticks = ARGV[3], ARGV[4] == '1', ARGV[5], ARGV[6], tonumber(ARGV[7])
local now = store_time()
local kinds, last = {}, #ARGV
-- By where a message begins in ARGV; `fields` are its further fields by name.
local messages, fields, is_stored, is_noted, ignored_for, replaces = {}, {}, {}, {}, {}, {}
local taken, answer, replaced = {}, {'stored'}, {}
local made, was_ignored = ARGV[8] == '1' and P .. 'made:' .. call, {}
local was_made = made and again and redis.call('GET', made)
local at = 10 + 4 * tonumber(ARGV[9])

for position in (was_made or ''):gmatch('%d+') do
    was_ignored[position] = true
end
for first = 10, at - 1, 4 do
    kinds[#kinds + 1] = {status = ARGV[first], queue = ARGV[first + 1], event = ARGV[first + 2], priority = ARGV[first + 3]}
end
while at <= last do
    messages[#messages + 1] = at
    if ARGV[at + 4] == '0' then
        at = at + 5
    else
        local found, next_at = {}, at + 5 + 2 * tonumber(ARGV[at + 4])
        for position = at + 5, next_at - 1, 2 do
            found[ARGV[position]] = ARGV[position + 1]
        end
        fields[at], at = found, next_at
    end
end

-- What is in the way of a message: who holds its id or key, and which of them; nothing is in the way of most.
local function in_the_way(position, at, id, own, key)
    if was_made and not was_ignored[tostring(position)] then
        -- It may be gone by now.
        is_stored[at] = true
        return
    end
    if (own or again) and redis.call('EXISTS', record(id)) == 1 then
        -- Others may have changed it since. An id that is not the caller's own is nobody else's.
        if again and (not own or redis.call('HGET', record(id), 'added') == call) then
            is_stored[at] = true
        elseif own then
            return id, 'id'
        end
    end
    if own and taken[id] then
        return id, 'id'
    end
    if most_ticks > 0 and not is_stored[at] and redis.call('ZSCORE', P .. 'ticks', id) then
        is_noted[at] = true
    end
    if key and not is_stored[at] then
        return taken['key:' .. key] or key_holder(key), 'key'
    end
end

-- First whatever refuses or ignores, so that nothing has been written by then.
for position, at in ipairs(messages) do
    local m = fields[at]
    if m or again then
        local id, own, key = ARGV[at], m and m.added, m and m.live and m.key
        local holder, what = in_the_way(position, at, id, own, key)
        if holder and on_conflict == 'ignore' then
            ignored_for[at] = holder
        elseif holder and (what == 'id' or on_conflict == 'error') then
            return {'refused', position - 1, what, holder, redis.call('HGETALL', record(holder))}
        else
            replaces[at] = holder
            if own then
                taken[id] = id
            end
            if key then
                taken['key:' .. key] = id
            end
        end
    end
end

-- Whom the messages that are to be stored wait for: by child, parent -> condition. A parent of this call that is not
-- stored, for another message holds its key, is waited for in that one.
local waits, waiting, instead, known, unknown = {}, false, {}, {}, {'unknown'}

for at, m in pairs(fields) do
    waiting = waiting or m.waits
end
if waiting then
    for _, at in ipairs(messages) do
        known[ARGV[at]] = true
        instead[ARGV[at]] = ignored_for[at]
    end
    for at, m in pairs(fields) do
        if m.waits and not ignored_for[at] and not is_stored[at] then
            waits[at] = {}
            for first = 1, #m.waits, 33 do
                local parent = m.waits:sub(first, first + 31)
                parent = instead[parent] or parent
                if known[parent] == nil then
                    known[parent] = redis.call('EXISTS', record(parent)) == 1
                    unknown[#unknown + 1] = not known[parent] and parent or nil
                end
                waits[at][parent] = m.waits:sub(first + 32, first + 32)
            end
        end
    end
    if #unknown > 1 then
        return unknown
    end
end

-- A pending holder of the key is cancelled, a claimed one is asked to stop and goes on without it.
local function take_key(id, by)
    local held = indexed(id)
    if not held then
        return
    end
    local set = {'rev', by, 'reason', 'replaced by ' .. dashed(by)}
    unindex(id, held)
    if PENDING[held.status] then
        held.status, held.finished_at = 'cancelled', now
        set[5], set[6], set[7], set[8] = 'status', 'cancelled', 'finished_at', now
        replaced[#replaced + 1] = id
    else
        held.cancel_requested = '1'
        set[5], set[6] = 'cancel_requested', '1'
    end
    held.live = nil
    redis.call('HSET', record(id), unpack(set))
    redis.call('HDEL', record(id), 'live')
    index(id, held)
    if held.has_children and FINISHED[held.status] then
        has_ended(id)
    end
end

local function store(at)
    local id, kind, due_at, m = ARGV[at], kinds[tonumber(ARGV[at + 1])], ARGV[at + 2], fields[at]
    -- 'waits' is no field of the record.
    local more = m and tonumber(ARGV[at + 4]) - (m.waits and 1 or 0) or 0
    redis.call('HSET', record(id), 'status', kind.status, 'queue', kind.queue, 'event', kind.event, 'priority',
        kind.priority, 'due_at', due_at, 'next_at', m and m.next_at or due_at, 'token', '0', 'body', ARGV[at + 3],
        unpack(ARGV, at + 5, at + 4 + 2 * more))
    if not m then
        kind.lists = kind.lists or lists_of(kind)
        for _, list in ipairs(kind.lists) do
            local size = #list
            list[size + 1], list[size + 2] = due_at, id
        end
        return
    end
    m.status, m.queue, m.event, m.priority = kind.status, kind.queue, kind.event, kind.priority
    m.due_at, m.next_at = due_at, m.next_at or due_at
    index(id, m)
end

local ignored = {}

for position, at in ipairs(messages) do
    local holder = ignored_for[at]
    if is_noted[at] then
        answer[#answer + 1] = {position - 1, 'noted', {}}
    elseif holder then
        answer[#answer + 1] = {position - 1, holder, redis.call('HGETALL', record(holder))}
        ignored[#ignored + 1] = position
    elseif not is_stored[at] then
        if replaces[at] then
            take_key(replaces[at], ARGV[at])
        end
        store(at)
        if most_ticks > 0 then
            enter('ticks', now, ARGV[at])
        end
    end
end

-- Their edges. A parent that has ended is one that has just ended for them; one of this call is there, and knows.
local function join_families()
    local children, is_new = {}, {}
    for at, m in pairs(fields) do
        is_new[ARGV[at]] = m.has_children and not ignored_for[at] and not is_stored[at]
    end
    for at, parents in pairs(waits) do
        local id, edges = ARGV[at], {}
        for parent, condition in pairs(parents) do
            edges[#edges + 1] = parent
            edges[#edges + 1] = condition .. 'o'
            children[parent] = children[parent] or {}
            table.insert(children[parent], id)
        end
        redis.call('HSET', P .. 'parents:' .. id, unpack(edges))
        if #edges / 2 ~= tonumber(fields[at].parents_left) then
            redis.call('HSET', record(id), 'parents_left', #edges / 2)
        end
    end
    for parent, ids in pairs(children) do
        for first = 1, #ids, 2000 do
            local last = math.min(first + 1999, #ids)
            redis.call('SADD', P .. 'children:' .. parent, unpack(ids, first, last))
            redis.call('SADD', P .. 'undecided:' .. parent, unpack(ids, first, last))
        end
        if not is_new[parent] then
            redis.call('HSET', record(parent), 'has_children', 1)
            if FINISHED[status_of(parent)] then
                has_ended(parent)
            end
        end
    end
end

write_index()
if waiting then
    entries, members = {}, {}
    join_families()
end
if followed.has_begun then
    entries, members = {}, {}
    follow(now, 100)
end
if most_ticks > 0 then
    redis.call('ZREMRANGEBYRANK', P .. 'ticks', 0, -most_ticks - 1)
end
for _, id in ipairs(replaced) do
    answer[#answer + 1] = {id}
end
if made then
    redis.call('SET', made, ' ' .. table.concat(ignored, ' '), 'EX', 15)
end
tell(news)
if followed.has_begun then
    local what = what_followed()
    answer[#answer + 1] = {'followed', what[1], what[2], what[3]}
end
return answer
