-- Logs and publishes events of one job in one shared room of a cluster, where the room is in another slot than the job.
-- What was logged before is left out; what is missing is asked for: so swapped and missing calls heal.
--
-- KEYS: 1 the room's log, which is also the name of its channel, 2 hash of what was logged of each job, 3 index of active
-- jobs. A server that is taking over the slot gets the others at the end of ARGV.
-- ARGV: 1 the job, 2 how many entries the log keeps, 3 the number before the first event in the job's history (0 for
-- none) and 4 its time, 5 what comes before the entry's id in a message and 6 after it; then for each event its number,
-- its time in ms and its JSON; at last the server's run.
-- Answers nothing, or the last number that was logged where events after it are missing.

local run = table.remove(ARGV)
while #KEYS < 3 do KEYS[#KEYS + 1] = table.remove(ARGV) end
local log, logged, index = KEYS[1], KEYS[2], KEYS[3]
local job, entries, before, before_at = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local FIRST_EVENT, FIELDS = 7, 3

-- Of the job: the last number, and when it was written to the index. Of the room, by names that no job has: the run that
-- wrote last and the time from which on ids go on; the newest time at which a job was active that was forgotten.
local known = redis.call('HMGET', logged, job, '/run', '/forgotten')
local last, indexed = string.match(known[1] or '', '^(%d+) (%d+)$')
last = tonumber(last)
-- A new hash may have lost what it knew, but a call that was overtaken is not older than this.
local forgotten = tonumber(known[3] or now - AHEAD)
if last and last < before then return text(last) end
if not last and before > 0 and before_at > forgotten then return '0' end

local known_run, floor = string.match(known[2] or '', '^(%S+) (%d+)$')
floor = tonumber(floor or 0)
if known_run and known_run ~= run then floor = now + AHEAD end

local at = 0
for place = FIRST_EVENT, #ARGV, FIELDS do
  local seq = tonumber(ARGV[place])
  if not last or seq > last then
    last, at = seq, tonumber(ARGV[place + 1])
    local id = add(log, math.max(at, floor), ARGV[place] .. ' ' .. job)
    redis.call('SPUBLISH', log, ARGV[5] .. id .. ARGV[6] .. ARGV[place + 2])
    if is_trimmed_at((place - FIRST_EVENT) / FIELDS) then trim(log, entries) end
  end
end
if at == 0 then return end

local renew = not indexed or at - indexed >= INDEX_PAUSE
if renew then
  indexed = text(at)
  local gone, since = touch(index, job, at)
  if #gone > 0 then
    redis.call('HDEL', logged, unpack(gone))
    forgotten = math.max(forgotten, since)
  end
end
redis.call('HSET', logged, job, text(last) .. ' ' .. indexed, '/run', run .. ' ' .. text(floor), '/forgotten',
  text(forgotten))
if renew then
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, text(STAYS + 2 * INDEX_PAUSE)) end
end
