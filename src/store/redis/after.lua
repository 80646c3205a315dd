-- Reads the oldest events of a history that are newer than a known one, without reading the whole list.
--
-- KEYS: 1 history list. ARGV: 1 the known number, 2 how many at the most.
-- Answers a slice of the list, newest first, that holds them and perhaps others.

local known = tonumber(ARGV[1])

-- The number at a place of the list; nil beyond its end and for what another program wrote.
local function number_at(place)
  local entry = redis.call('LINDEX', KEYS[1], place)
  return entry and tonumber(string.match(entry, '"seq":(%d+)}$') or nil)
end

local newest = number_at(0)
local length = redis.call('LLEN', KEYS[1])
if not newest then return redis.call('LRANGE', KEYS[1], 0, -1) end
if newest <= known then return {} end

-- How many are newer. As a rule numbers rise by one, so that it can be told at once.
local newer = math.min(newest - known, length)
local oldest = number_at(newer - 1)
if not oldest or oldest <= known then
  -- Somewhere they jumped: search.
  local low, high = 1, newer
  while low < high do
    local middle = math.floor((low + high) / 2)
    local number = number_at(middle)
    if number and number > known then low = middle + 1 else high = middle end
  end
  newer = low
end
return redis.call('LRANGE', KEYS[1], math.max(newer - ARGV[2], 0), newer - 1)
