#!lua flags=no-writes
-- Of each of these messages, whom it waits for, or has waited for, each with the letters of that edge (see `families.lua`).
-- ARGV: ids.

local answer = {}
for position = 3, #ARGV do
    local name = P .. 'parents:' .. ARGV[position]
    answer[#answer + 1] = redis.call('HGETALL', name)
end
return answer
