-- Notes in a room's index that a job is active, and publishes its new events on the room's channel.
--
-- The index and the channel share a slot. `events` are in the order of the job's history. The index is tidied when it
-- grows, and stays for another `stays` ms then; also where `renew` says so.

local function reach(index, channel, job, at, retention, stays, cap, renew, events)
  local grown = redis.call('ZADD', index, 'GT', at, job) > 0
  if grown then
    redis.call('ZREMRANGEBYRANK', index, '0', string.format('%d', -cap - 1))
    redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%d', at - retention))
  end
  if grown or renew then redis.call('PEXPIRE', index, string.format('%d', stays)) end
  for _, event in ipairs(events) do redis.call('SPUBLISH', channel, event) end
end
