-- Reads the oldest events of a history that are newer than a known one, without reading the whole list.
--
-- KEYS: 1 history list. ARGV: 1 the known number, 2 how many at the most, 3 how many bytes at the most; 0 for any.
-- Answers the number of the last event at or before the known number (0 for none), the newest number (0 for none), how
-- many events are newer, and a slice of the list, newest first, that holds what was asked for and perhaps others.

local known = tonumber(ARGV[1])

local function answer(earlier, newest, newer, slice)
  return {string.format('%d', earlier or 0), string.format('%d', newest), newer, slice}
end

local newest = number_at(0)
local length = redis.call('LLEN', KEYS[1])
if not newest then
  -- Another program wrote last, so that nothing can be told by place.
  local earlier, newer = 0, 0
  newest = 0
  for place = 0, length - 1 do
    local number = number_at(place) or 0
    newest = math.max(newest, number)
    if number > known then newer = newer + 1 else earlier = math.max(earlier, number) end
  end
  return answer(earlier, newest, newer, redis.call('LRANGE', KEYS[1], 0, -1))
end
if newest <= known then return answer(newest, newest, 0, {}) end

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
local first, last, bytes = math.max(newer - ARGV[2], 0), newer - 1, tonumber(ARGV[3])
local found = bytes > 0 and slice(first, last, bytes) or redis.call('LRANGE', KEYS[1], first, last)
return answer(newer < length and number_at(newer), newest, newer, found)
