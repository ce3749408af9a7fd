#!lua flags=allow-oom
-- with states index
-- STEP release, of what cannot be read: set aside, or where it only should have expired, no longer looked for there.
-- Returns of how many that was true.
--
-- ARGV: the index in which it was found; a worker that must have no lease, or ''; a reason; ids.

local now = store_time()
local found = 0
if ARGV[4] ~= '' and has_lease(ARGV[4], now) then
    return 0
end
for position = 6, #ARGV do
    local id = ARGV[position]
    if redis.call('ZREM', P .. ARGV[3], id) == 1 then
        found = found + 1
        local m = ARGV[3] ~= 'expiry' and indexed(id)
        if m and m.status == 'claimed' then
            set_aside(id, now, ARGV[5])
        end
    end
end
write_index()
return found
