-- Accepts events of one job: checks, numbers, keeps and publishes them in one step. So the order on the channels is the
-- order of the job's history and of the rooms' logs.
--
-- KEYS: 1 history list, 2 state hash, which is also the name of the job's channel. Where the shared rooms are on the same
-- server: 3 the run that the server wrote last as, then of each room its log, which is also the name of its channel, and
-- its index of active jobs: all jobs, then the user and the tenant whom ARGV names. A server of a cluster that is taking
-- over the slot gets the state at the end of ARGV.
-- ARGV: 1 the job, 2 the user and 3 the tenant whose rooms are among the keys (empty for none), then for each event: its
-- JSON up to its owner, userId, tenantId (empty where the draft names none), 'needs_open' if a finished job refuses it,
-- '1' if the job is finished after it, its idempotency key (empty for none), and the fingerprint of its body; at last the
-- server's run.
-- Answers 'before at', the number before the first event (0 for none) and its time; then for each event
-- 'word seq timestamp userId tenantId', where word is ok or repeated, or only a word: finished, owner or conflict.
-- Answers only 'rooms userId tenantId', and accepts nothing, where the job is of others than those whom ARGV names.
--
-- Besides what room.lua asks for, there stand before this: MAX_EVENTS (of a history), and for how long an idempotency key
-- counts in ms (KEY_LIFETIME).

local run = table.remove(ARGV)
if #KEYS == 1 then KEYS[2] = table.remove(ARGV) end
local history, state, job = KEYS[1], KEYS[2], ARGV[1]
local its_rooms = #KEYS > 2
local FIRST_EVENT, FIELDS = 4, 7

-- By how much a number jumps where the state was written by another run of the server, by far more than can have been lost;
-- and by how much more for each millisecond since the last event that is left: what was given after an earlier jump may have
-- been lost as well, and the same jump must not come twice.
local JUMP, JUMP_PER_MS = 1048576, 16384

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

-- The number of an entry; nil for what another program wrote.
local function seq_of(entry)
  local seq = tonumber(string.match(entry, '"seq":(%d+)}$') or nil)
  return seq and seq < LARGEST and seq or nil
end

local known = redis.call('HMGET', state, 'seq', 'user', 'tenant', 'finished', 'at', 'expires', 'run', 'indexed')
local ends = known[5] and known[5] + RETENTION or tonumber(known[6] or nil)
if ends and ends <= now then
  -- Only its idempotency keys have kept it.
  redis.call('HDEL', state, 'seq', 'user', 'tenant', 'finished', 'at', 'first', 'run', 'indexed')
  known = {}
end
local last, user, tenant = tonumber(known[1] or nil), known[2] or '', known[3] or ''
local before, before_at = last or 0, known[5] or 0
local finished = known[4] or '0'
-- A server's clock may be set back, or another server's be behind it: within a job time does not run backwards.
local at = math.max(now, tonumber(known[5] or 0))
local timestamp = rfc3339(at)
local fresh, new_run = not last, known[7] ~= run
if fresh then
  -- The state may have been evicted while the history lives.
  for _, entry in ipairs(redis.call('LRANGE', history, '0', '-1')) do
    last = math.max(last or 0, seq_of(entry) or 0)
  end
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

local events, seqs, users, tenants, answers, keyed = {}, {}, {}, {}, {}, {}

local function answer(word, seq, time)
  return word .. ' ' .. seq .. ' ' .. time .. ' ' .. user .. ' ' .. tenant
end

-- The next number. The first of a job is the time; where the end of the history may have been lost it jumps.
local function next_number()
  if not last or last == 0 then return at end
  if #events > 0 or not new_run then return last + 1 end
  local idle = math.max(now - tonumber(known[5] or 0), 0)
  local number = math.max(last + JUMP + (known[5] and JUMP_PER_MS * idle or 0), at)
  return number < LARGEST and number or at
end

local function accept(head, its_user, its_tenant, needs_open, finishes, key, fingerprint)
  if key ~= '' then
    local first = keyed[key] or first_answer(key)
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

  local number = next_number()
  last, finished = number, finishes
  local seq, event = text(number), head
  if user ~= '' then event = event .. ',"userId":"' .. user .. '"' end
  if tenant ~= '' then event = event .. ',"tenantId":"' .. tenant .. '"' end
  local place = #events + 1
  events[place] = event .. ',"timestamp":"' .. timestamp .. '","seq":' .. seq .. '}'
  seqs[place], users[place], tenants[place] = seq, user, tenant
  if key ~= '' then keyed[key] = {seq = seq, timestamp = timestamp, fingerprint = fingerprint} end
  return answer('ok', seq, timestamp)
end

answers[1] = text(before) .. ' ' .. before_at
for place = FIRST_EVENT, #ARGV, FIELDS do
  answers[#answers + 1] = accept(unpack(ARGV, place, place + FIELDS - 1))
end
if #events == 0 then return answers end
if its_rooms and ((user ~= '' and user ~= ARGV[2]) or (tenant ~= '' and tenant ~= ARGV[3])) then
  return {table.concat({'rooms', user, tenant}, ' ')}
end

local renew = tonumber(known[6] or 0) < now + RETENTION
local found_owner = user ~= (known[2] or '') or tenant ~= (known[3] or '')
local index = its_rooms and (found_owner or at - (known[8] or 0) >= INDEX_PAUSE)
local moment = text(at)
local changes = {'seq', seqs[#seqs], 'at', moment}
local function change(field, value, before)
  if value == before then return end
  changes[#changes + 1] = field
  changes[#changes + 1] = value
end
change('user', user, known[2] or '')
change('tenant', tenant, known[3] or '')
change('finished', finished, known[4] or '0')
change('run', run, known[7])
if fresh then change('first', seqs[1]) end
if renew then change('expires', text(now + STAYS)) end
if index then change('indexed', moment) end
redis.call('HSET', state, unpack(changes))
for key, first in pairs(keyed) do remember(key, first.fingerprint, first.seq, first.timestamp) end
local any_key = next(keyed) ~= nil
if renew or any_key then
  local stays = math.max(STAYS, any_key and KEY_LIFETIME or 0)
  if stays > redis.call('PTTL', state) then redis.call('PEXPIRE', state, text(stays)) end
end
local length
for first = 1, #events, 1000 do
  length = redis.call('LPUSH', history, unpack(events, first, math.min(first + 999, #events)))
end
if length > MAX_EVENTS then redis.call('LTRIM', history, '0', text(MAX_EVENTS - 1)) end
redis.call('PEXPIRE', history, text(RETENTION))

if not its_rooms then
  for _, event in ipairs(events) do redis.call('SPUBLISH', state, 'j - - - ' .. event) end
  return answers
end

-- From when on ids go on: above what was seen before the server ran as what it is now. A room that this job has been in
-- since then has such an id already.
local from = at
if new_run or found_owner then
  local noted = redis.call('GET', KEYS[3])
  local noted_run, floor, expires = string.match(noted or '', '^(%S+) (%d+) (%d+)$')
  if noted_run and noted_run ~= run then floor = text(now + AHEAD) end
  floor = floor or '0'
  if noted_run ~= run or expires - now < RETENTION then
    local note = table.concat({run, floor, text(now + STAYS)}, ' ')
    redis.call('SET', KEYS[3], note, 'PX', text(STAYS + AHEAD))
  end
  from = math.max(at, tonumber(floor))
end

local all_jobs, user_log, tenant_log = KEYS[4], nil, nil
if user ~= '' then user_log = KEYS[6] end
if tenant ~= '' then tenant_log = KEYS[#KEYS - 1] end
for place, event in ipairs(events) do
  local in_users, in_tenants = users[place] ~= '', tenants[place] ~= ''
  local entry, in_user, in_tenant = seqs[place] .. ' ' .. job, '-', '-'
  if in_users then in_user = add(user_log, from, entry) end
  if in_tenants then in_tenant = add(tenant_log, from, entry) end
  local message = 'j ' .. in_user .. ' ' .. in_tenant .. ' ' .. add(all_jobs, from, entry) .. ' ' .. event
  redis.call('SPUBLISH', state, message)
  if in_users then redis.call('SPUBLISH', user_log, message) end
  if in_tenants then redis.call('SPUBLISH', tenant_log, message) end
  redis.call('SPUBLISH', all_jobs, message)
  if is_trimmed_at(place) then
    trim(all_jobs, ALL_JOBS_ENTRIES)
    if user_log then trim(user_log, ROOM_ENTRIES) end
    if tenant_log then trim(tenant_log, ROOM_ENTRIES) end
  end
end
if index then
  for room = 4, #KEYS, 2 do
    local log = KEYS[room]
    if log == all_jobs or log == user_log or log == tenant_log then
      touch(KEYS[room + 1], job, at)
      redis.call('PEXPIRE', KEYS[room + 1], text(STAYS + 2 * INDEX_PAUSE))
      redis.call('PEXPIRE', log, text(STAYS + 2 * INDEX_PAUSE))
    end
  end
end
return answers
