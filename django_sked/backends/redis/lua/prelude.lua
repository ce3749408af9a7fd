-- Shared by every script. ARGV[1] is the prefix of all keys of this backend, with its hash tag, ARGV[2] the time that a
-- test wants it to be, or ''. Times are whole microseconds since 1970, as text in records and as numbers in scores.
--
-- KEYS are two names in the slot of this backend, of which at least one is never there. While a cluster moves the slot
-- key by key it therefore answers TRYAGAIN before the script begins, and never finds only a part of what is stored.

local P = ARGV[1]

local function store_time()
    if ARGV[2] ~= '' then
        return ARGV[2]
    end
    local time = redis.call('TIME')
    return time[1] .. string.rep('0', 6 - #time[2]) .. time[2]
end

local function text(number)
    return string.format('%.0f', number)
end

-- Is this a whole number as scripts write it? Lua takes more for a number than scores may be: 'nan', ' 7', '0x7'.
local function is_whole(text)
    return text and tostring(text):match('^%-?%d+$') ~= nil
end

local function record(id)
    return P .. 'm:' .. id
end

-- Tell idle workers of a message in this queue, '*' for several and '' for none; at most once in 5 ms. Whoever hears it
-- looks again a little later than that, and so finds what others wrote meanwhile. Who may not publish has written all the
-- same.
local function tell(queue)
    if queue ~= '' and redis.call('SET', P .. 'told:' .. queue, 1, 'NX', 'PX', 5) then
        redis.pcall('PUBLISH', P .. 'news', queue)
    end
end
