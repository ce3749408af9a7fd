#!lua flags=no-writes
-- Id and token of what a worker has claimed, a page of it. ARGV: worker, first, last.

local answer = {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'held:' .. ARGV[3], ARGV[4], ARGV[5])) do
    answer[#answer + 1] = id
    answer[#answer + 1] = redis.call('HGET', record(id), 'token')
end
return answer
