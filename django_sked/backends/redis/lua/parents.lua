#!lua flags=no-writes
-- Of each of these messages, whom it waits for, or has waited for. ARGV: ids.

local answer = {}
for position = 3, #ARGV do
    answer[#answer + 1] = redis.call('HKEYS', P .. 'parents:' .. ARGV[position])
end
return answer
