#!lua flags=no-writes
-- Some of the keys that live messages hold, of one queue or ('') of any. ARGV: queue, where to go on ('0' to begin).
-- Returns where to go on ('0' at the end), and the keys.

local page = redis.call('HSCAN', P .. 'live', ARGV[4], 'COUNT', 500)
local answer = {page[1]}
for position = 1, #page[2], 2 do
    if ARGV[3] == '' or redis.pcall('HGET', record(page[2][position + 1]), 'queue') == ARGV[3] then
        answer[#answer + 1] = page[2][position]
    end
end
return answer
