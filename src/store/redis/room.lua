-- What is done to a room's log and to its index of active jobs. What is the same for all calls of a gateway stands before
-- this: RETENTION (of history, in ms), ROOM_ENTRIES and ALL_JOBS_ENTRIES (of a log) and MAX_JOBS (of an index).

-- How far above the clock the ids of entries begin once a server runs as something else: it may have lost its newest
-- entries, and its clock may be behind, but no position that was seen may come again.
local AHEAD = 10000

-- How old the score of an active job may be: it is not written more often.
local INDEX_PAUSE = 1000

-- What is private stays for up to a thousandth longer than it must, so that it need not be renewed at every event.
local STAYS = RETENTION + math.floor(RETENTION / 1000)

-- The largest number that is exact here. A larger one in a list was written by another program.
local LARGEST = 9007199254740991

-- A whole number as text. What is handed to a command as a number is written with all that a fraction might need,
-- which takes longer than the command.
local function text(number) return string.format('%d', number) end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Whether the log is to be trimmed with the event of this place in the call: with about every sixteenth.
local function is_trimmed_at(place) return (clock[2] + place) % 16 == 0 end

-- Adds an entry, whose id is not below `at` and above all ids before. Answers its id.
local function add(log, at, entry)
  if at > now then
    -- Refused where the log is further.
    local id = redis.pcall('XADD', log, text(at) .. '-*', 'e', entry)
    if type(id) == 'string' then return id end
  end
  return redis.call('XADD', log, '*', 'e', entry)
end

-- Takes the oldest entries away, about.
local function trim(log, entries)
  redis.call('XTRIM', log, 'MINID', '~', text(now - RETENTION))
  redis.call('XTRIM', log, 'MAXLEN', '~', entries)
end

-- Notes that a job is active. Where the index has grown it is tidied: answers the jobs that it forgot, and since when
-- none of them can have been active.
local function touch(index, job, at)
  local gone, since = {}, at - RETENTION
  if redis.call('ZADD', index, 'GT', text(at), job) > 0 then
    gone = redis.call('ZRANGEBYSCORE', index, '-inf', text(since), 'LIMIT', '0', '16')
    if #gone > 0 then
      redis.call('ZREM', index, unpack(gone))
    elseif redis.call('ZCARD', index) > MAX_JOBS then
      local oldest = redis.call('ZPOPMIN', index)
      gone, since = {oldest[1]}, oldest[2] + INDEX_PAUSE
    end
  end
  return gone, since
end
