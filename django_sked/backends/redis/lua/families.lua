-- What waits for other messages, and what follows from their end. Besides the indexes there are:
--
--   parents:C                 parent -> two letters, the condition of the edge (see CONDITIONS) and its state: o(pen),
--                             m(et), u(nmet), or e(nd): unmet, and what has ended the child (a hash)
--   children:P                everybody who waits for P, or has (a set)
--   undecided:P, unmet:P      of these, whose edge is open, and whose is to be open again when P is redriven: it is unmet,
--                             or was met before its child was released (sets)
--   work                      what is still to follow, the first first (a list): 'e', the id of who has ended, and the
--                             reason for those who are cancelled by that, unless it is the end of this very message; or
--                             'r' and the id of who has been redriven
--   revs                      a number for the `rev` of what is written here, so that no older decision overwrites it
--
-- The call that ends a message appends to `work` and then does what is first in it, a bounded number of edges; whoever
-- finds the rest, be it a settle or a sweep, goes on. As this is one line, an end and a redrive that follow each other
-- are never mixed up.

local followed = {left = 0, queues = {}, cancelled = {}, has_begun = false}
local rev

local function new_rev()
    rev = rev or 'w' .. redis.call('INCR', P .. 'revs')
    return rev
end

local function dashed(id)
    return id:sub(1, 8) .. '-' .. id:sub(9, 12) .. '-' .. id:sub(13, 16) .. '-' .. id:sub(17, 20) .. '-' .. id:sub(21)
end

local function has_ended(id)
    redis.call('RPUSH', P .. 'work', 'e' .. id)
    followed.has_begun = true
end

-- After a write: do children have to know of it?
local function note_change(id, old, new)
    if not old.has_children then
        return
    end
    if FINISHED[new.status] and not FINISHED[old.status] then
        has_ended(id)
    elseif FINISHED[old.status] and not FINISHED[new.status] then
        redis.call('RPUSH', P .. 'work', 'r' .. id)
        followed.has_begun = true
    end
end

-- nil when it is not there any more.
local function status_of(id)
    local status = redis.pcall('HGET', record(id), 'status')
    return type(status) == 'string' and status or nil
end

-- Of a child: each parent, and the letters of that edge; a thousand at most.
local function edges_of(child)
    local name = P .. 'parents:' .. child
    return redis.call('HGETALL', name)
end

-- The last parent has ended as it should: a delay begins now. See `dependencies.released`. What cannot be read stays as it
-- is: an error in here would stand at the head of `work` for ever.
local function release(child, m, now)
    if not (m.queue and is_whole(m.due_at) and is_whole(m.next_at)) then
        return
    end
    local c = redis.call('HMGET', record(child), 'held_at', 'release_delay', 'release_expiry')
    local delay, expiry = tonumber(c[2]), tonumber(c[3])
    unindex(child, m)
    if delay then
        m.due_at = text(tonumber(now) + delay)
        m.next_at = m.due_at
    end
    if expiry then
        m.expires_at = text(math.max(tonumber(m.due_at), tonumber(now)) + expiry)
        redis.call('HSET', record(child), 'expires_at', m.expires_at)
    end
    if not c[1] then
        m.status = 'scheduled'
        followed.queues[m.queue] = true
    end
    redis.call('HSET', record(child), 'status', m.status, 'due_at', m.due_at, 'next_at', m.next_at, 'rev', new_rev())
    redis.call('HDEL', record(child), 'parents_left', 'release_delay', 'release_expiry')
    index(child, m)
end

local function cancel(child, m, why, now)
    unindex(child, m)
    m.status, m.finished_at, m.live = 'cancelled', now, nil
    redis.call('HSET', record(child), 'status', m.status, 'finished_at', now, 'reason', why, 'rev', new_rev())
    redis.call('HDEL', record(child), 'live')
    index(child, m)
    followed.cancelled[#followed.cancelled + 1] = child
    if m.has_children then
        redis.call('RPUSH', P .. 'work', 'e' .. child .. why)
    end
end

-- Decide one edge, of a parent that ended so. See `dependencies.decide`.
local function decide(parent, child, status, why, now)
    local edges = P .. 'parents:' .. child
    local edge = redis.call('HGET', edges, parent)
    local m = edge and edge:sub(2) == 'o' and indexed(child)
    if not m then
        return
    end
    local condition = edge:sub(1, 1)
    local is_met = status and (CONDITIONS[condition] or {})[status]
    local ends = not is_met and m.status == 'blocked'
    redis.call('HSET', edges, parent, condition .. (is_met and 'm' or ends and 'e' or 'u'))
    local left = (tonumber(redis.call('HGET', record(child), 'parents_left')) or 1) - 1
    if not is_met or (m.status == 'blocked' and left > 0) or m.status == 'cancelled' then
        redis.call('SADD', P .. 'unmet:' .. parent, child)
    end
    if ends then
        cancel(child, m, why, now)
    elseif m.status == 'blocked' then
        if left > 0 then
            redis.call('HSET', record(child), 'parents_left', left, 'rev', new_rev())
        else
            release(child, m, now)
        end
    end
end

-- A met edge is open again, too, unless its child has been released.
local function reopen_met(parent, child, condition)
    local m = redis.pcall('HMGET', record(child), 'status', 'parents_left')
    local left = not m.err and tonumber(m[2]) or 0
    if left <= 0 or (m[1] ~= 'blocked' and m[1] ~= 'cancelled') then
        return
    end
    redis.call('HSET', P .. 'parents:' .. child, parent, condition .. 'o')
    redis.call('SADD', P .. 'undecided:' .. parent, child)
    if m[1] == 'blocked' then
        redis.call('HSET', record(child), 'parents_left', left + 1, 'rev', new_rev())
    end
end

-- Its parent is no longer dead: the edge is open again, and if it had ended the child, that waits again, unless another
-- one would have ended it, too. Returns at how many edges it has looked.
local function reopen(parent, child, now)
    local edges = P .. 'parents:' .. child
    local edge = redis.call('HGET', edges, parent)
    local state = edge and edge:sub(2)
    if state == 'm' then
        reopen_met(parent, child, edge:sub(1, 1))
        return 1
    end
    if state ~= 'u' and state ~= 'e' then
        return 1
    end
    redis.call('HSET', edges, parent, edge:sub(1, 1) .. 'o')
    redis.call('SADD', P .. 'undecided:' .. parent, child)
    if state == 'u' then
        return 1
    end
    local all, open = edges_of(child), 0
    for position = 1, #all, 2 do
        local other, how = all[position], all[position + 1]
        if how:sub(2) == 'o' then
            open = open + 1
        elseif how:sub(2) == 'u' and status_of(other) then
            redis.call('HSET', edges, other, how:sub(1, 1) .. 'e')
            return position
        end
    end
    local m = indexed(child)
    if not m or m.status ~= 'cancelled' or (m.key and key_holder(m.key)) then
        return #all
    end
    unindex(child, m)
    redis.call('HDEL', record(child), 'finished_at', 'reason', 'cancel_requested')
    if m.expires_at and (tonumber(m.expires_at) or 0) <= tonumber(now) then
        m.expires_at = nil
        redis.call('HDEL', record(child), 'expires_at')
    end
    m.status, m.finished_at, m.cancel_requested, m.live = 'blocked', nil, nil, m.key and '1'
    redis.call('HSET', record(child), 'status', m.status, 'parents_left', open, 'rev', new_rev())
    if m.live then
        redis.call('HSET', record(child), 'live', m.live)
    end
    index(child, m)
    if m.has_children then
        redis.call('RPUSH', P .. 'work', 'r' .. child)
    end
    return #all
end

local function flush_index()
    write_index()
    entries, members = {}, {}
end

-- Do what is first in `work`, of at most about so many edges. A message is met twice only by two entries, between which
-- the index is written.
local function follow(now, most)
    flush_index()
    while most > 0 do
        local entry = redis.call('LINDEX', P .. 'work', 0)
        if not entry then
            break
        end
        followed.has_begun = true
        local what, id, why = entry:sub(1, 1), entry:sub(2, 33), entry:sub(34)
        local status = status_of(id)
        local source = P .. (what == 'e' and 'undecided:' or 'unmet:') .. id
        -- Who has been redriven since has not ended: that is further back in the line.
        local is_over = what == 'e' and status and not FINISHED[status]
        -- To reopen an edge takes a look at all those of the child.
        local children = is_over and {} or redis.call('SPOP', source, what == 'e' and most or math.min(most, 10))
        if why == '' then
            local became = status and 'is ' .. status or 'is not there any more'
            why = 'what it waited for cannot happen: message ' .. dashed(id) .. ' ' .. became
        end
        most = most - 1
        for _, child in ipairs(children) do
            if what == 'e' then
                decide(id, child, status, why, now)
                most = most - 1
            else
                most = most - reopen(id, child, now)
            end
        end
        if is_over or redis.call('EXISTS', source) == 0 then
            redis.call('LPOP', P .. 'work')
        end
        flush_index()
    end
end

-- What has come of it: how many entries of `work` are left, the queues in which somebody was released, and who was
-- cancelled. Idle workers are told of the former.
local function what_followed()
    local queues = {}
    for queue in pairs(followed.queues) do
        queues[#queues + 1] = queue
        tell(queue)
    end
    return {redis.call('LLEN', P .. 'work'), queues, followed.cancelled}
end
