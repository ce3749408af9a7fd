#!lua flags=no-writes
-- Those of these ids under which nothing is stored. ARGV: 'm:' for messages or 'workflow:' for workflows that have some, and
-- the ids.

local answer = {}
for position = 4, #ARGV do
    if redis.call('EXISTS', P .. ARGV[3] .. ARGV[position]) == 0 then
        answer[#answer + 1] = ARGV[position]
    end
end
return answer
