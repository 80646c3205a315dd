-- Reads the newest events of a history from the oldest of them on, as far as they fit.
--
-- KEYS: 1 history list. ARGV: 1 how many of the newest, 2 how many bytes at the most.
-- Answers how many of them are newer than those that it answers, and these, newest first. It answers -1 where another
-- program wrote some of those that are left: these cannot be found by a number.

local last = math.min(redis.call('LLEN', KEYS[1]), ARGV[1]) - 1
local found = slice(0, last, tonumber(ARGV[2]))
local left = last + 1 - #found
if left > 0 then
  local newest, reached = number_at(0), number(found[1])
  if not newest or not reached or newest - reached < left then return {-1, {}} end
end
return {left, found}
