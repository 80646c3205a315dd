-- Accepts one event: checks, numbers, keeps and publishes it in one step, so that the order on the job's channel
-- is the order of its history.
--
-- KEYS: 1 history list, 2 state hash, 3 idempotency key (absent without one); all in the job's slot.
-- ARGV: 1 the event's JSON up to its owner, 2 userId, 3 tenantId (empty where the draft names none),
--       4 timestamp as text, 5 the same in Unix milliseconds, 6 history.max_events, 7 history.retention in ms,
--       8 'needs_open' if a finished job refuses it, 9 '1' if the job is finished after it,
--       10 the job's channel, 11 the prefix of all keys, 12 the job's id, 13 how many active jobs an index keeps,
--       14 a number that watchers have seen (0 for none), 15 fingerprint and 16 lifetime in ms of the idempotency key.
-- Answers {word, seq, timestamp}, where word is ok, repeated, finished, owner or conflict.

local history, state, key = KEYS[1], KEYS[2], KEYS[3]
local retention = ARGV[7]

if key then
  local first = redis.call('HMGET', key, 'fingerprint', 'seq', 'timestamp')
  if first[1] then
    if first[1] ~= ARGV[15] then return {'conflict'} end
    return {'repeated', first[2], first[3]}
  end
end

local known = redis.call('HMGET', state, 'seq', 'user', 'tenant', 'finished', 'timestamp', 'at')
local last, user, tenant = tonumber(known[1] or nil), known[2] or '', known[3] or ''
local timestamp, at = ARGV[4], ARGV[5]

if known[4] == '1' and ARGV[8] == 'needs_open' then return {'finished'} end
if (user ~= '' and ARGV[2] ~= '' and user ~= ARGV[2])
  or (tenant ~= '' and ARGV[3] ~= '' and tenant ~= ARGV[3]) then
  return {'owner'}
end
if user == '' then user = ARGV[2] end
if tenant == '' then tenant = ARGV[3] end
-- Gateways' clocks differ: within a job time does not run backwards.
if known[5] and known[5] > timestamp then timestamp, at = known[5], known[6] end

local function text(number) return string.format('%.0f', number) end

local fresh = not last
if fresh then
  -- The state may have been evicted while the history lives: go on from there.
  local newest = redis.call('LINDEX', history, 0)
  last = newest and tonumber(string.match(newest, '"seq":(%d+)}$') or nil)
end
local seq = last and last + 1 or tonumber(ARGV[5])
-- A number that somebody has seen is never given again, whatever became of the end of the history.
seq = math.max(seq, tonumber(ARGV[14]) + 1)
if fresh then redis.call('HSET', state, 'first', text(seq)) end
if last and seq ~= last + 1 then redis.call('HSET', state, 'broken', text(seq)) end
seq = text(seq)

local event = {ARGV[1]}
if user ~= '' then event[#event + 1] = ',"userId":"' .. user .. '"' end
if tenant ~= '' then event[#event + 1] = ',"tenantId":"' .. tenant .. '"' end
event[#event + 1] = ',"timestamp":"' .. timestamp .. '","seq":' .. seq .. '}'
event = table.concat(event)

redis.call('HSET', state, 'seq', seq, 'user', user, 'tenant', tenant, 'finished', ARGV[9],
  'timestamp', timestamp, 'at', at)
redis.call('PEXPIRE', state, retention)
redis.call('LPUSH', history, event)
redis.call('LTRIM', history, 0, ARGV[6] - 1)
redis.call('PEXPIRE', history, retention)
if key then
  redis.call('HSET', key, 'fingerprint', ARGV[15], 'seq', seq, 'timestamp', timestamp)
  redis.call('PEXPIRE', key, ARGV[16])
end

local function reach(room)
  local index = ARGV[11] .. 'jobcast:active:' .. room
  redis.call('ZADD', index, at, ARGV[12])
  redis.call('ZREMRANGEBYRANK', index, 0, -ARGV[13] - 1)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', at - retention)
  redis.call('PEXPIRE', index, retention)
  redis.call('SPUBLISH', ARGV[11] .. 'jobcast:feed:' .. room, event)
end

redis.call('SPUBLISH', ARGV[10], event)
reach('all-jobs')
if user ~= '' then reach('user:' .. user) end
if tenant ~= '' then reach('tenant:' .. tenant) end
return {'ok', seq, timestamp}
