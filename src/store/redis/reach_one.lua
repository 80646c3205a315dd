-- KEYS: 1 the room's index. ARGV: 1 its channel, 2 the job, 3 its time in Unix milliseconds, 4 history.retention in
-- ms, 5 how many jobs an index keeps, then the events.

local events = {}
for place = 6, #ARGV do events[#events + 1] = ARGV[place] end
local retention = tonumber(ARGV[4])
reach(KEYS[1], ARGV[1], ARGV[2], ARGV[3], retention, retention, ARGV[5], true, events)
