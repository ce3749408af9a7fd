#!lua flags=no-writes
-- Id and token of what a worker has claimed, a page of it; nil for a token that cannot be read. ARGV: worker, first, last.

local answer = {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'held:' .. ARGV[3], ARGV[4], ARGV[5])) do
    answer[#answer + 1] = id
    local token = redis.pcall('HGET', record(id), 'token')
    answer[#answer + 1] = type(token) == 'string' and is_whole(token) and token
end
return answer
