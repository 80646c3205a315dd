// The same tests against every store.

import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';
import { startCluster } from './cluster.mjs';
import { startGateway } from './gateway.mjs';
import { httpClient } from './http.mjs';
import { startRedis } from './redis.mjs';

const servers = { redis: startRedis, cluster: startCluster };

/**
 * Describes the tests once per store. `define(context)` gets `{kind, gateway, api, redis, another}`, which
 * are there once the tests run: one gateway for all of them, and its Redis server or cluster where it has one.
 *
 * `another(t, options)` starts a further gateway for one test, on a store of its own of the same kind. Its
 * `again(options)` starts one on the store that it leaves behind, and on the same port.
 */
export function describeEachStore(name, define, { env = {}, stores = ['embedded', 'redis'] } = {}) {
  for (const kind of stores) {
    describe(`${name}, ${kind} store`, () => {
      const context = { kind, api: httpClient(() => context.gateway.url) };
      let further = 0;

      before(async () => {
        context.redis = await servers[kind]?.();
        const store = context.redis ? { redisUrl: context.redis.url } : kind;
        context.gateway = await startGateway({ store, env });
      });

      context.another = async (t, options = {}) => {
        further += 1;
        const { redis } = context;
        const store = redis ? { redisUrl: redis.url, keyPrefix: `further-${further}:` } : kind;
        const start = async (changes) => {
          const gateway = await startGateway({ store, ...options, ...changes });
          t.after(() => gateway.kill());
          gateway.api = httpClient(gateway.url);
          gateway.again = (more) => start({ path: gateway.path, listen: `127.0.0.1:${gateway.port}`, ...more });
          return gateway;
        };
        return start();
      };

      after(async () => {
        // Whatever the tests sent, the gateway is alive and stops as it should.
        if (context.gateway) assert.equal(await context.gateway.stop(), 0, context.gateway.stderr());
        await context.redis?.stop();
      });

      define(context);
    });
  }
}

/** As `describeEachStore`, and on a Redis Cluster too. */
export function describeEachStoreAndCluster(name, define, options) {
  describeEachStore(name, define, { stores: ['embedded', 'redis', 'cluster'], ...options });
}
