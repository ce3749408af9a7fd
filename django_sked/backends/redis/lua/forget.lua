#!lua flags=allow-oom
-- with states index
-- STEP prune, of what somebody names: delete these messages where they are finished; returns how many.
-- ARGV: ids.

local forgotten = 0
for position = 3, #ARGV do
    local id = ARGV[position]
    local m = indexed(id)
    if m and FINISHED[m.status] then
        unindex(id, m)
        redis.call('UNLINK', record(id))
        forgotten = forgotten + 1
    end
end
return forgotten
