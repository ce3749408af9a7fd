#!lua flags=no-writes
-- with sources
-- How many messages each group of indexes has between two due times.
-- ARGV: the first and the latest due_at; then groups of indexes as in `sources.lua`, each begun by '+'.

local counts = {}
for position = 5, #ARGV do
    if ARGV[position] == '+' then
        counts[#counts + 1] = 0
    else
        local sources = {}
        add_sources(sources, ARGV[position])
        for _, source in ipairs(sources) do
            counts[#counts] = counts[#counts] + redis.call('ZCOUNT', source, ARGV[3], ARGV[4])
        end
    end
end
return counts
