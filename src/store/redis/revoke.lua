-- Keeps a revocation, and removes those that have ended.
-- KEYS: the hash. ARGV: subject, its time, the time before which they have ended, how many there may be, the lifetime of all.
local key, subject, before = KEYS[1], ARGV[1], tonumber(ARGV[2])
local ended, most, lifetime = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local kept = redis.call('HGETALL', key)
local count = 0
for place = 1, #kept, 2 do
  local other, time = kept[place], tonumber(kept[place + 1])
  if other == subject then
    before = math.max(before, time)
  elseif other ~= 'version' then
    if time < ended then
      redis.call('HDEL', key, other)
    else
      count = count + 1
    end
  end
end
if count >= most then
  return 0
end
redis.call('HSET', key, subject, string.format('%.0f', before))
redis.call('HINCRBY', key, 'version', 1)
redis.call('PEXPIRE', key, lifetime)
return 1
