#!lua flags=allow-oom
-- with states index
-- STEP schedule, of what `stage.lua` has stored in parts: all of it is scheduled now.
--
-- ARGV: the name of the call; 1 when this is said again because the first answer was lost; how many it has staged; queue,
-- event, priority, due_at, and expires_at or ''; the queue to tell of, or ''. Returns 1; 0 when not all of them are staged
-- any more, and then nothing is written.

local list, made = P .. 'staged:' .. ARGV[3], P .. 'made:' .. ARGV[3]

if ARGV[4] == '1' and redis.call('EXISTS', made) == 1 then
    return 1
end
local ids = redis.call('LRANGE', list, 0, -1)
if #ids ~= tonumber(ARGV[5]) then
    return 0
end

local function by(score)
    local found = {}
    for position, id in ipairs(ids) do
        found[2 * position - 1], found[2 * position] = score, id
    end
    return found
end

local due = by(ARGV[9])
lists_of({queue = ARGV[6], event = ARGV[7], priority = ARGV[8]})
for name in pairs(entries) do
    entries[name] = due
end
if ARGV[10] ~= '' then
    entries['expiry'] = by(ARGV[10])
end
write_index()
redis.call('UNLINK', list)
redis.call('ZREM', P .. 'staged', ARGV[3])
redis.call('SET', made, 1, 'EX', 60)
tell(ARGV[11])
return 1
