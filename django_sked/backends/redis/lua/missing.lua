#!lua flags=no-writes
-- Those of these ids that no message has. ARGV: ids.

local answer = {}
for position = 3, #ARGV do
    if redis.call('EXISTS', record(ARGV[position])) == 0 then
        answer[#answer + 1] = ARGV[position]
    end
end
return answer
