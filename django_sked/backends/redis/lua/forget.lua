#!lua flags=allow-oom
-- with states index
-- STEP prune, of what somebody names: delete these messages where they are finished; returns how many.
-- ARGV: ids.

local forgotten = 0
for position = 3, #ARGV do
    local id = ARGV[position]
    local m = indexed(id)
    if m and FINISHED[m.status] then
        delete(id, m)
        forgotten = forgotten + 1
    end
end
return forgotten
