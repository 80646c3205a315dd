-- Notes in a room's index that a job is active, and publishes its new events on the room's channel.
--
-- The index and the channel share a slot. `events` are in the order of the job's history.

local function reach(index, channel, job, at, retention, cap, events)
  redis.call('ZADD', index, 'GT', at, job)
  redis.call('ZREMRANGEBYRANK', index, 0, -cap - 1)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', at - retention)
  redis.call('PEXPIRE', index, retention)
  for _, event in ipairs(events) do redis.call('SPUBLISH', channel, event) end
end
