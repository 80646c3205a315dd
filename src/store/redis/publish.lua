-- Accepts events of one job: checks, numbers, keeps and publishes them in one step, so that the order on the job's
-- channel is the order of its history.
--
-- KEYS: 1 history list, 2 state hash, of one slot. In a cluster a slot may be on its way to another server, which
-- takes calls for keys that do not exist yet only if they name one; so the state is named by ARGV too.
-- ARGV: 1 the state hash, 2 the job's channel, 3 what comes before the rooms' indexes and 4 before their channels
--       (empty where these are in other slots, so that the caller has to reach the rooms), 5 the job's id,
--       6 a number that watchers have seen (0 for none); then for each event: its JSON up to its owner, userId,
--       tenantId (empty where the draft names none), 'needs_open' if a finished job refuses it, '1' if the job is
--       finished after it, its idempotency key (empty for none), and the fingerprint of its body.
-- Answers for each event 'word seq timestamp userId tenantId', where word is ok or repeated, or only a word: finished,
-- owner or conflict.
--
-- What is the same for all calls of a gateway stands before this: MAX_EVENTS and RETENTION in ms (of history), for how
-- long an idempotency key counts in ms (KEY_LIFETIME), and how many jobs an index keeps (MAX_JOBS).

local history, state, channel = KEYS[1], ARGV[1], ARGV[2]
local indexes, channels, job, seen = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local FIRST_EVENT, FIELDS = 7, 7

-- A time in Unix milliseconds as text (days to a date as in Howard Hinnant's civil_from_days).
local function rfc3339(milliseconds)
  local floor, format = math.floor, string.format
  local days = floor(milliseconds / 86400000)
  local rest = milliseconds - days * 86400000
  local shifted = days + 719468
  local era = floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local from_march = floor((5 * of_year + 2) / 153)
  local day = of_year - floor((153 * from_march + 2) / 5) + 1
  local month = from_march < 10 and from_march + 3 or from_march - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, floor(rest / 3600000),
    floor(rest / 60000) % 60, floor(rest / 1000) % 60, rest % 1000)
end

-- A whole number as text. What is handed to a command as a number is written with all that a fraction might need,
-- which takes longer than the command.
local function text(number) return string.format('%d', number) end

-- What is private stays for up to a thousandth longer than it must, so that it need not be renewed at every event. What
-- a state says counts no longer than the history for all that.
local STAYS = RETENTION + math.floor(RETENTION / 1000)

local known = redis.call('HMGET', state, 'seq', 'user', 'tenant', 'finished', 'at', 'expires')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ends = known[5] and known[5] + RETENTION or tonumber(known[6] or nil)
if ends and ends <= now then
  -- Only its idempotency keys have kept it.
  redis.call('HDEL', state, 'seq', 'user', 'tenant', 'finished', 'at', 'first', 'broken')
  known = {}
end
local last, user, tenant = tonumber(known[1] or nil), known[2] or '', known[3] or ''
local finished = known[4] or '0'
-- A server's clock may be set back, or another server's be behind it: within a job time does not run backwards.
local at = math.max(now, tonumber(known[5] or 0))
local timestamp = rfc3339(at)
local fresh = not last
if fresh then
  -- The state may have been evicted while the history lives: go on from there.
  local newest = redis.call('LINDEX', history, '0')
  last = newest and tonumber(string.match(newest, '"seq":(%d+)}$') or nil)
end

-- The first answer under an idempotency key, or nil where the key does not count any more.
local function first_answer(key)
  local record = redis.call('HGET', state, 'key:' .. key)
  if not record then return nil end
  local expires, seq, time, fingerprint = string.match(record, '^(%d+) (%d+) (%S+) (%S*)$')
  if tonumber(expires) <= now then return nil end
  return {seq = seq, timestamp = time, fingerprint = fingerprint}
end

-- Remembers an answer, and forgets up to two that do not count any more: so that no more are kept than are due.
local function remember(key, fingerprint, seq, time)
  local ends = redis.call('HMGET', state, 'keys:oldest', 'keys:newest')
  local oldest, newest = tonumber(ends[1] or 1), tonumber(ends[2] or 0)
  for _ = 1, 2 do
    local old = oldest <= newest and redis.call('HGET', state, 'keys:' .. text(oldest))
    if not old then break end
    local record = redis.call('HGET', state, 'key:' .. old)
    local expires = record and tonumber(string.match(record, '^(%d+)'))
    if expires and expires > now then break end
    redis.call('HDEL', state, 'key:' .. old, 'keys:' .. text(oldest))
    oldest = oldest + 1
  end
  newest = newest + 1
  redis.call('HSET', state, 'key:' .. key, text(now + KEY_LIFETIME) .. ' ' .. seq .. ' ' .. time .. ' ' .. fingerprint,
    'keys:' .. text(newest), key, 'keys:oldest', text(oldest), 'keys:newest', text(newest))
end

local events, answers, keyed, broken = {}, {}, false, nil

local function answer(word, seq, time) return table.concat({word, seq, time, user, tenant}, ' ') end

local function accept(head, its_user, its_tenant, needs_open, finishes, key, fingerprint)
  if key ~= '' then
    local first = first_answer(key)
    if first then
      if first.fingerprint ~= fingerprint then return 'conflict' end
      -- A write, so that whoever waits for replicas waits for the first one too.
      redis.call('HSET', state, 'repeated', first.seq)
      return answer('repeated', first.seq, first.timestamp)
    end
  end
  if finished == '1' and needs_open == 'needs_open' then return 'finished' end
  if (user ~= '' and its_user ~= '' and user ~= its_user)
    or (tenant ~= '' and its_tenant ~= '' and tenant ~= its_tenant) then
    return 'owner'
  end
  if user == '' then user = its_user end
  if tenant == '' then tenant = its_tenant end

  -- A number that somebody has seen is never given again, whatever became of the end of the history.
  local number = math.max(last and last + 1 or at, seen + 1)
  if fresh then
    redis.call('HSET', state, 'first', text(number))
    fresh = false
  end
  if last and number ~= last + 1 then broken = number end
  last, finished = number, finishes
  local seq = text(number)

  local event = {head}
  if user ~= '' then event[#event + 1] = ',"userId":"' .. user .. '"' end
  if tenant ~= '' then event[#event + 1] = ',"tenantId":"' .. tenant .. '"' end
  event[#event + 1] = ',"timestamp":"' .. timestamp .. '","seq":' .. seq .. '}'
  events[#events + 1] = table.concat(event)
  if key ~= '' then
    remember(key, fingerprint, seq, timestamp)
    keyed = true
  end
  return answer('ok', seq, timestamp)
end

for place = FIRST_EVENT, #ARGV, FIELDS do
  answers[#answers + 1] = accept(unpack(ARGV, place, place + FIELDS - 1))
end
if #events == 0 then return answers end

local renew = tonumber(known[6] or 0) < now + RETENTION
local moment = text(at)
local changes = {'seq', text(last), 'at', moment}
local function change(field, value, before)
  if value == before then return end
  changes[#changes + 1] = field
  changes[#changes + 1] = value
end
change('user', user, known[2] or '')
change('tenant', tenant, known[3] or '')
change('finished', finished, known[4] or '0')
if renew then change('expires', text(now + STAYS)) end
if broken then change('broken', text(broken)) end
redis.call('HSET', state, unpack(changes))
if renew or keyed then
  local stays = math.max(STAYS, keyed and KEY_LIFETIME or 0)
  if stays > redis.call('PTTL', state) then redis.call('PEXPIRE', state, text(stays)) end
end
local length
for first = 1, #events, 1000 do
  length = redis.call('LPUSH', history, unpack(events, first, math.min(first + 999, #events)))
end
if length > MAX_EVENTS then redis.call('LTRIM', history, '0', text(MAX_EVENTS - 1)) end
redis.call('PEXPIRE', history, text(RETENTION))

for _, event in ipairs(events) do redis.call('SPUBLISH', channel, event) end
if indexes ~= '' then
  local rooms = {'all-jobs'}
  if user ~= '' then rooms[#rooms + 1] = 'user:' .. user end
  if tenant ~= '' then rooms[#rooms + 1] = 'tenant:' .. tenant end
  for _, room in ipairs(rooms) do
    reach(indexes .. '{' .. room .. '}', channels .. '{' .. room .. '}', job, moment, RETENTION, STAYS, MAX_JOBS, renew,
      events)
  end
end
return answers
