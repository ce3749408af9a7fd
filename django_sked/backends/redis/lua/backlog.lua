#!lua flags=no-writes
-- with sources
-- What is scheduled in each of these queues: how much of it may be claimed by now, how much later, and since when the first
-- may be, or ''. ARGV: the time, then the queues.

local answer = {}
for position = 4, #ARGV do
    local sources, due, future, first = {}, 0, 0, nil
    add_sources(sources, '+waiting:' .. ARGV[position])
    for _, source in ipairs(sources) do
        local count = redis.call('ZCOUNT', source, '-inf', ARGV[3])
        due, future = due + count, future + redis.call('ZCARD', source) - count
        if count > 0 then
            local next_at = tonumber(redis.call('ZRANGE', source, 0, 0, 'WITHSCORES')[2])
            first = math.min(first or next_at, next_at)
        end
    end
    answer[#answer + 1] = due
    answer[#answer + 1] = future
    answer[#answer + 1] = first and text(first) or ''
end
return answer
