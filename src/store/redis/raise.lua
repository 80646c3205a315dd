-- Tells a job's state of a number that watchers have seen, in case the store has lost the end of what it accepted:
-- then the next event gets a larger one. It counts for as long as an event of this moment would.
--
-- KEYS: 1 state hash. ARGV: 1 the number, 2 history.retention in ms.

local known = redis.call('HMGET', KEYS[1], 'seq', 'at')
local last = tonumber(known[1] or nil)
if last and last >= tonumber(ARGV[1]) then return 0 end
local following = string.format('%.0f', ARGV[1] + 1)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('HSET', KEYS[1], 'seq', ARGV[1], 'broken', following, 'at',
  string.format('%.0f', math.max(now, tonumber(known[2] or 0))), 'expires', string.format('%.0f', now + ARGV[2]))
redis.call('HSETNX', KEYS[1], 'first', following)
if tonumber(ARGV[2]) > redis.call('PTTL', KEYS[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
