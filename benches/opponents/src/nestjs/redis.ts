import type { Provider } from '@nestjs/common';
import { Redis, type Result } from 'ioredis';

declare module 'ioredis' {
  interface RedisCommander<Context> {
    /** Numbers and keeps events of one job, given as JSON; answers with the last number. */
    keepEvents(history: string, numbers: string, now: number, ...events: string[]): Result<number, Context>;
  }
}

// One script, so that the order of the numbers is the order of the list.
const KEEP_EVENTS = `
local count = #ARGV - 1
redis.call('SET', KEYS[2], ARGV[1] - 1, 'NX')
local last = redis.call('INCRBY', KEYS[2], count)
local events = {}
for i = 1, count do
  events[i] = string.sub(ARGV[i + 1], 1, -2) .. string.format(',"seq":%d}', last - count + i)
end
redis.call('LPUSH', KEYS[1], unpack(events))
redis.call('LTRIM', KEYS[1], 0, 99)
redis.call('EXPIRE', KEYS[1], 86400)
redis.call('EXPIRE', KEYS[2], 86400)
return last
`;

/** The node's connection. Commands of one turn of the event loop, such as a batch's, go out as one pipeline. */
export const redisProvider: Provider = {
  provide: Redis,
  useFactory: () => {
    const redis = new Redis(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379', { enableAutoPipelining: true });
    redis.defineCommand('keepEvents', { numberOfKeys: 2, lua: KEEP_EVENTS });
    return redis;
  },
};
