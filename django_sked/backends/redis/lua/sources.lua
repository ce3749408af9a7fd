-- What the names of indexes stand for: those of `index.lua`, and groups of them.
--
--   +held        what workers have claimed, by due_at
--   +waiting:Q   what is scheduled in queue Q, suspects among it, by next_at

local function add_sources(sources, name)
    local queue = name:match('^%+waiting:(.*)$')
    if name == '+held' then
        for _, worker in ipairs(redis.call('SMEMBERS', P .. 'holders')) do
            sources[#sources + 1] = P .. 'held:' .. worker
        end
    elseif queue then
        for _, kind in ipairs({'due', 'suspect'}) do
            for _, priority in ipairs(redis.call('SMEMBERS', P .. kind .. '-bands:' .. queue)) do
                sources[#sources + 1] = P .. kind .. ':' .. queue .. ':' .. priority
            end
        end
    else
        sources[#sources + 1] = P .. name
    end
end
