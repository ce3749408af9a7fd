#!lua flags=no-writes
-- How many messages each group of indexes has between two due times.
-- ARGV: the first and the latest due_at; then groups of indexes as in page.lua, each begun by '+'.

local counts = {}
for position = 5, #ARGV do
    local name = ARGV[position]
    if name == '+' then
        counts[#counts + 1] = 0
    elseif name == '+held' then
        for _, worker in ipairs(redis.call('SMEMBERS', P .. 'holders')) do
            counts[#counts] = counts[#counts] + redis.call('ZCOUNT', P .. 'held:' .. worker, ARGV[3], ARGV[4])
        end
    else
        counts[#counts] = counts[#counts] + redis.call('ZCOUNT', P .. name, ARGV[3], ARGV[4])
    end
end
return counts
