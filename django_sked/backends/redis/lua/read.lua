#!lua flags=no-writes
-- The time, and the records of these ids, empty for those that are not there.

local answer = {store_time()}
for position = 3, #ARGV do
    local found = redis.pcall('HGETALL', record(ARGV[position]))
    answer[#answer + 1] = found.err and {} or found
end
return answer
