-- Reads the oldest events of a history that are newer than a known one, without reading the whole list.
--
-- KEYS: 1 history list. ARGV: 1 the known number, 2 how many at the most.
-- Answers a slice of the list, newest first, that holds them and perhaps others.

local newest = redis.call('LINDEX', KEYS[1], 0)
if not newest then return {} end
local seq = string.match(newest, '"seq":(%d+)}$')
-- Another program wrote here: numbers say nothing about places.
if not seq then return redis.call('LRANGE', KEYS[1], 0, -1) end
local newer = math.min(tonumber(seq) - tonumber(ARGV[1]), redis.call('LLEN', KEYS[1]))
if newer <= 0 then return {} end
return redis.call('LRANGE', KEYS[1], math.max(newer - tonumber(ARGV[2]), 0), newer - 1)
