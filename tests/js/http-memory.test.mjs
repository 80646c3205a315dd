// What waits in memory for somebody is bounded by `limits.memory`, whatever it waits for.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertProblem, eventually, send, uniqueId } from './support/clients.mjs';
import { metricsOf } from './support/metrics.mjs';
import { describeEachStore } from './support/stores.mjs';

const env = { JOBCAST_LIMITS__MEMORY: '16MiB' };

/** How many bytes a gateway holds for a purpose. */
const held = async (gateway, purpose) => (await metricsOf(gateway))[`jobcast_memory_held_bytes{purpose="${purpose}"}`];

describeEachStore(
  'memory',
  (context) => {
    it('refuses what would wait beyond the bound, and takes it again later', async () => {
      const { gateway, redis } = context;
      const jobId = uniqueId('waiting');
      const body = JSON.stringify({ status: 'queued', data: 'x'.repeat(120 * 1024) });
      const headers = { 'content-type': 'application/json' };
      const publish = () => send(gateway.url, 'POST', `/api/jobs/${jobId}/update`, { body, headers });

      // The pause is shorter than the patience of a publish.
      await redis.client.client('PAUSE', 4000, 'WRITE');
      const answers = Array.from({ length: 200 }, publish);
      const refused = await Promise.race(answers);
      assertProblem(refused, 503, { code: 'limit_reached', mention: 'limits.memory' });
      assert.equal(refused.headers['retry-after'], '1');
      const inBatch = await send(gateway.url, 'POST', '/api/events', {
        body: JSON.stringify([1, 2, 3].map(() => ({ event: 'job:update', jobId, ...JSON.parse(body) }))),
        headers,
      });
      assertProblem(inBatch, 503, { code: 'limit_reached' });
      assert.ok((await held(gateway, 'publish')) > 12 * 1024 * 1024);
      await redis.client.client('UNPAUSE');

      const statuses = (await Promise.all(answers)).map(({ status }) => status);
      const accepted = statuses.filter((status) => status === 200);
      assert.ok(accepted.length >= 100 && accepted.length <= 140, `${accepted.length} accepted`);
      assert.equal(statuses.filter((status) => status === 503).length, 200 - accepted.length);
      await eventually(async () => (await held(gateway, 'publish')) === 0, 'nothing to wait');
      assert.equal((await publish()).status, 200);
    });
  },
  { env, stores: ['redis'] },
);
