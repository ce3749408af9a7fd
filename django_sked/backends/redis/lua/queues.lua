#!lua flags=no-writes
-- with states index
-- The queues in which messages are scheduled; or, of one queue, the earliest next_at of what is no suspect.
-- ARGV: queue, or '' for the queues.

if ARGV[3] == '' then
    return redis.call('SUNION', P .. 'due-queues', P .. 'suspect-queues')
end
local earliest
for _, priority in ipairs(bands('due', ARGV[3])) do
    local first = redis.call('ZRANGE', P .. 'due:' .. ARGV[3] .. ':' .. priority, 0, 0, 'WITHSCORES')
    local next_at = tonumber(first[2])
    if next_at and (not earliest or next_at < earliest) then
        earliest = next_at
    end
end
return earliest and text(earliest)
