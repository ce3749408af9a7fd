-- What leads to a record, kept in step with it. All of these are sorted sets unless said otherwise:
--
--   status:S, event:E, queue:Q, key:K       ids by due_at; of claimed ones there is held:W instead of status:S
--   newest:K                                 ids of what holds or has held key K, by created_at
--   due:Q:N, suspect:Q:N                     scheduled ids by next_at, of queue Q and priority N
--   due-bands:Q, due-queues                  the N in use in Q; the Q in use (sets); the same for suspect
--   held:W, holders, stopping:W              what worker W has claimed, by due_at; all such W (a set); what of it shall
--                                            be cancelled (a set)
--   expiry                                   pending ids by expires_at
--   ended:S                                  finished ids by finished_at
--   live                                     key -> id of the live message that holds it (a hash)
--   workflow:W, gone                         ids of a workflow by due_at; the W of which nothing is left (a set)
--
-- `families.lua` says what there is besides for those that wait for others.

local INDEXED = {
    'status', 'queue', 'event', 'priority', 'due_at', 'next_at', 'suspect', 'key', 'live',
    'expires_at', 'finished_at', 'claimed_by', 'cancel_requested', 'created_at', 'flow', 'has_children',
}

-- The indexed fields of a record by name; nil when it is not there or is no record at all.
local function indexed(id)
    local values = redis.pcall('HMGET', record(id), unpack(INDEXED))
    if values.err or not values[1] then
        return nil
    end
    local found = {}
    for position, name in ipairs(INDEXED) do
        found[name] = values[position] or nil
    end
    return found
end

-- Entries to be made, by sorted set, and sets to be joined: made all at once by `write_index`, for each call of a command
-- takes longer than the command. Nothing that is read here looks at them before that.
local entries, members = {}, {}

local function list_of(name)
    local list = entries[name]
    if not list then
        list = {}
        entries[name] = list
    end
    return list
end

-- What has no score that is a number cannot be found that way, and no script fails because of it.
local function enter(name, score, member)
    if not is_whole(score) then
        return
    end
    local list = list_of(name)
    list[#list + 1] = score
    list[#list + 1] = member
end

local function join(name, member)
    members[name] = members[name] or {}
    members[name][member] = true
end

local function write_index()
    for name, list in pairs(entries) do
        for first = 1, #list, 2000 do
            redis.call('ZADD', P .. name, unpack(list, first, math.min(first + 1999, #list)))
        end
    end
    for name, list in pairs(members) do
        for member in pairs(list) do
            redis.call('SADD', P .. name, member)
        end
    end
end

local function enter_band(kind, id, m)
    if not (m.queue and is_whole(m.priority) and is_whole(m.next_at)) then
        return
    end
    enter(kind .. ':' .. m.queue .. ':' .. m.priority, m.next_at, id)
    join(kind .. '-bands:' .. m.queue, m.priority)
    join(kind .. '-queues', m.queue)
end

-- The priorities in use in a queue, highest first.
local function bands(kind, queue)
    local found = redis.call('SMEMBERS', P .. kind .. '-bands:' .. queue)
    table.sort(found, function(one, other) return tonumber(one) > tonumber(other) end)
    return found
end

-- Forget a band that is empty by now, and a queue without bands.
local function close_band(kind, queue, priority)
    if redis.call('EXISTS', P .. kind .. ':' .. queue .. ':' .. priority) == 1 then
        return
    end
    redis.call('SREM', P .. kind .. '-bands:' .. queue, priority)
    if redis.call('EXISTS', P .. kind .. '-bands:' .. queue) == 0 then
        redis.call('SREM', P .. kind .. '-queues', queue)
    end
end

local function kind_of(m)
    return m.suspect and 'suspect' or 'due'
end

-- A message that somebody stored as claimed may be nobody's; then it is rescued.
local function holder_of(m)
    return m.claimed_by or 'nobody'
end

local function forget_holder(worker)
    if redis.call('EXISTS', P .. 'held:' .. worker) == 0 then
        redis.call('SREM', P .. 'holders', worker)
    end
end

local function has_lease(worker, now)
    local till = redis.call('ZSCORE', P .. 'leases', worker)
    return till and tonumber(till) >= tonumber(now)
end

-- The live message that holds a key. An entry that leads to no record, for that was deleted by hand, is forgotten.
local function key_holder(key)
    local id = redis.call('HGET', P .. 'live', key)
    if not id then
        return nil
    end
    local status = redis.pcall('HGET', record(id), 'status')
    if type(status) == 'string' then
        return id
    end
    redis.call('HDEL', P .. 'live', key)
    return nil
end

local function index(id, m)
    if m.event then
        enter('event:' .. m.event, m.due_at, id)
    end
    if m.queue then
        enter('queue:' .. m.queue, m.due_at, id)
    end
    if m.key then
        enter('key:' .. m.key, m.due_at, id)
        enter('newest:' .. m.key, m.created_at, id)
    end
    if m.flow then
        enter('workflow:' .. m.flow, m.due_at, id)
    end
    if m.live and m.key then
        redis.call('HSET', P .. 'live', m.key, id)
    end
    if m.status == 'claimed' then
        enter('held:' .. holder_of(m), m.due_at, id)
        join('holders', holder_of(m))
        if m.cancel_requested then
            join('stopping:' .. holder_of(m), id)
        end
        return
    end
    enter('status:' .. m.status, m.due_at, id)
    if m.status == 'scheduled' then
        enter_band(kind_of(m), id, m)
    end
    if PENDING[m.status] and m.expires_at then
        enter('expiry', m.expires_at, id)
    end
    if FINISHED[m.status] then
        enter('ended:' .. m.status, m.finished_at, id)
    end
end

-- The lists of entries of a scheduled message that is due when it may be claimed, has no key and does not expire: the same
-- for all of one queue, event and priority.
local function lists_of(m)
    join('due-bands:' .. m.queue, m.priority)
    join('due-queues', m.queue)
    return {
        list_of('event:' .. m.event), list_of('queue:' .. m.queue), list_of('status:scheduled'),
        list_of('due:' .. m.queue .. ':' .. m.priority),
    }
end

local function unindex(id, m)
    if m.event then
        redis.call('ZREM', P .. 'event:' .. m.event, id)
    end
    if m.queue then
        redis.call('ZREM', P .. 'queue:' .. m.queue, id)
    end
    if m.key then
        redis.call('ZREM', P .. 'key:' .. m.key, id)
        redis.call('ZREM', P .. 'newest:' .. m.key, id)
    end
    if m.flow then
        redis.call('ZREM', P .. 'workflow:' .. m.flow, id)
    end
    if m.live and m.key and redis.call('HGET', P .. 'live', m.key) == id then
        redis.call('HDEL', P .. 'live', m.key)
    end
    if m.status == 'claimed' then
        redis.call('ZREM', P .. 'held:' .. holder_of(m), id)
        redis.call('SREM', P .. 'stopping:' .. holder_of(m), id)
        forget_holder(holder_of(m))
        return
    end
    redis.call('ZREM', P .. 'status:' .. m.status, id)
    if m.status == 'scheduled' and m.queue and m.priority then
        redis.call('ZREM', P .. kind_of(m) .. ':' .. m.queue .. ':' .. m.priority, id)
        close_band(kind_of(m), m.queue, m.priority)
    end
    if m.expires_at then
        redis.call('ZREM', P .. 'expiry', id)
    end
    if m.finished_at then
        redis.call('ZREM', P .. 'ended:' .. m.status, id)
    end
end

-- What cannot be read is out of everybody's way for an hour, perhaps until a newer release can. Where the record does not
-- say its queue and priority, it stays in the band in which it was found.
local function set_aside(id, now, reason, queue, priority)
    local m = indexed(id)
    if not m then
        return
    end
    unindex(id, m)
    m.status, m.claimed_by, m.next_at = 'scheduled', nil, text(tonumber(now) + 3600000000)
    m.queue, m.priority = m.queue or queue, is_whole(m.priority) and m.priority or priority
    redis.call('HSET', record(id), 'status', m.status, 'next_at', m.next_at, 'reason', reason)
    redis.call('HDEL', record(id), 'claimed_by', 'claimed_at')
    index(id, m)
end

-- Delete a message, with what it says of others and others of it. A child that is still to be decided finds that it is not
-- there any more. Returns for how many others it has waited.
local function delete(id, m)
    local edges = 0
    unindex(id, m)
    redis.call('UNLINK', record(id))
    if m.flow and redis.call('EXISTS', P .. 'workflow:' .. m.flow) == 0 then
        redis.call('SADD', P .. 'gone', m.flow)
    end
    if m.has_children then
        redis.call('UNLINK', P .. 'children:' .. id, P .. 'unmet:' .. id)
        if redis.call('EXISTS', P .. 'undecided:' .. id) == 1 then
            redis.call('RPUSH', P .. 'work', 'e' .. id)
        end
    end
    if redis.call('EXISTS', P .. 'parents:' .. id) == 1 then
        for _, parent in ipairs(redis.call('HKEYS', P .. 'parents:' .. id)) do
            edges = edges + 1
            redis.call('SREM', P .. 'children:' .. parent, id)
            redis.call('SREM', P .. 'undecided:' .. parent, id)
            redis.call('SREM', P .. 'unmet:' .. parent, id)
        end
        redis.call('UNLINK', P .. 'parents:' .. id)
    end
    return edges
end
