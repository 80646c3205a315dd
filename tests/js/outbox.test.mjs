// What waits for a watcher that does not read is bounded in bytes, whatever carries it: contract, section 6.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { openPolling } from './support/by-hand.mjs';
import { connect, eventually, httpClient, numbersBetween, openStream, sequenceNumbers, uniqueId } from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { metricsOf } from './support/metrics.mjs';

const BOUND = 256 * 1024;
const PAYLOAD = 100 * 1024;
// An event is its payload and what stands around it.
const LARGEST = PAYLOAD + 1024;
const EVENTS = 200;
const EACH = 6;

const socketOf = (watcher) => watcher.socket.io.engine.transport.ws._socket;

/** A watcher by WebSocket that stops reading when told to. */
async function byWebSocket(t, gateway, jobId) {
  const watcher = await connect(t, gateway);
  await watcher.subscribe({ jobId });
  return {
    stall: () => socketOf(watcher).pause(),
    resume: () => socketOf(watcher).resume(),
    through: (last) => watcher.through(last),
    items: () => watcher.log.items.filter(({ name }) => name.startsWith('job:')),
  };
}

async function byStream(t, gateway, jobId) {
  const stream = await openStream(t, gateway, `/api/jobs/${jobId}/events`);
  return {
    ...stream,
    through: ({ seq }) => stream.events.until((seen) => seen.at(-1)?.id === String(seq), `event ${seq}`, 60_000),
    items: () => stream.events.items.map(({ event, data }) => ({ name: event, payload: JSON.parse(data) })),
  };
}

/** A watcher by long-polling, which is stalled whenever it does not poll. */
async function byPolling(t, gateway, jobId) {
  const client = await openPolling(gateway);
  await client.post('40/jobs,');
  await client.frame('40/jobs,');
  await client.post(`42/jobs,1${JSON.stringify(['subscribe:jobs', { jobId }])}`);
  await client.frame('43/jobs,1[');
  const items = [];
  return {
    poll: client.poll,
    stall: () => {},
    resume: () => {},
    items: () => items,
    async through(last) {
      while (items.at(-1)?.payload.seq !== last.seq) {
        for (const packet of await client.poll()) {
          if (packet === '2') await client.post('3');
          const [name, payload] = packet.startsWith('42/jobs,') ? JSON.parse(packet.slice(8)) : [];
          if (name) items.push({ name, payload });
        }
      }
    },
  };
}

const WAYS = { WebSocket: byWebSocket, 'long-polling': byPolling, 'Server-Sent Events': byStream };

/** Publishes one large event after another and calls `each` between them; answers all of them. */
async function publishMuch(api, jobId, each = () => {}) {
  const published = [];
  for (let number = 0; number < EVENTS; number += 1) {
    published.push(await api.update(jobId, { status: 's', data: 'x'.repeat(PAYLOAD) }));
    if (number % 20 === 19) await each();
  }
  return published;
}

/** Expects that every number after `known` was seen or announced as missing, each once and in order, up to `last`. */
function assertNothingSilentlyMissing(items, known, last) {
  let at = known;
  for (const { name, payload } of items) {
    assert.equal(name === 'job:gap' ? payload.from : payload.seq, at + 1);
    at = name === 'job:gap' ? payload.to : payload.seq;
  }
  assert.equal(at, last);
}

const residentBytes = ({ pid }) => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

describe('what waits for watchers that do not read', () => {
  for (const [way, watch] of Object.entries(WAYS)) {
    for (const retained of [EVENTS + 10, 20]) {
      it(`is bounded in bytes: ${way}, with ${retained} events retained`, async (t) => {
        const gateway = await startGateway({
          env: { JOBCAST_LIMITS__OUTBOX_BYTES: String(BOUND), JOBCAST_HISTORY__MAX_EVENTS: String(retained) },
        });
        t.after(() => gateway.kill());
        const api = httpClient(gateway.url);
        const jobId = uniqueId('large');
        const first = await api.update(jobId);
        const slow = await Promise.all(Array.from({ length: EACH }, () => watch(t, gateway, jobId)));
        const quick = await connect(t, gateway);
        await quick.subscribe({ jobId });
        for (const watcher of slow) watcher.stall();
        const before = residentBytes(gateway);

        const published = await publishMuch(api, jobId, async () => {
          const metrics = await metricsOf(gateway);
          assert.ok(metrics.jobcast_outbox_largest_bytes <= BOUND + LARGEST, JSON.stringify(metrics));
          assert.ok(metrics.jobcast_outbox_bytes <= (EACH + 1) * (BOUND + LARGEST), JSON.stringify(metrics));
        });
        const last = published.at(-1);
        // Nobody waits for them.
        assert.deepEqual(sequenceNumbers(await quick.through(last)), numbersBetween(published[0].seq, last.seq));
        const metrics = await metricsOf(gateway);
        assert.equal(metrics.jobcast_sessions_behind, EACH, 'not all are behind: this tests too little');
        assert.ok(metrics.jobcast_outbox_bytes >= EACH * BOUND, 'the bound was not reached: this tests nothing');
        assert.ok(metrics.jobcast_behind_longest_seconds > 0);
        const grown = residentBytes(gateway) - before;
        // History in memory, twice; what the bound allows, twice; and what the allocator keeps.
        const allowed = 2 * EVENTS * PAYLOAD + 2 * EACH * (BOUND + LARGEST) + 32 * 1024 * 1024;
        assert.ok(grown < allowed, `grew by ${grown} bytes, which is more than ${allowed}`);

        await Promise.all(
          slow.map(async (watcher) => {
            watcher.resume();
            await watcher.through(last);
            assertNothingSilentlyMissing(watcher.items(), first.seq, last.seq);
            const gaps = watcher.items().filter(({ name }) => name === 'job:gap');
            assert.equal(gaps.length > 0, retained < EVENTS, `${gaps.length} gaps`);
          }),
        );
        await eventually(async () => {
          const { jobcast_sessions_behind: behind, jobcast_outbox_bytes: bytes } = await metricsOf(gateway);
          return behind === 0 && bytes === 0;
        }, 'all to be in step, and nothing to wait');
      });
    }

    it(`does not keep a session that stays behind: ${way}`, async (t) => {
      // Neither a heartbeat nor the system's patience ends it before its time.
      const gateway = await startGateway({
        env: {
          JOBCAST_LIMITS__OUTBOX_BYTES: String(BOUND),
          JOBCAST_LIMITS__BEHIND: '2s',
          JOBCAST_SERVER__PING_INTERVAL: '5m',
        },
      });
      t.after(() => gateway.kill());
      const api = httpClient(gateway.url);
      const jobId = uniqueId('given-up');
      const slow = await watch(t, gateway, jobId);
      slow.stall();
      await publishMuch(api, jobId);
      await eventually(async () => {
        const metrics = await metricsOf(gateway);
        const closed = metrics['jobcast_sessions_closed_total{reason="too_slow"}'];
        return closed === 1 && metrics.jobcast_sessions === 0 && metrics.jobcast_sessions_behind === 0;
      }, 'the session to be closed and gone');
      await gateway.logged(/too_slow.*\n/);
      const [line, ...more] = gateway.stderr().split('\n').filter((text) => text.includes('too_slow'));
      assert.deepEqual(more, [], 'one line tells it');
      assert.ok(line.includes(`job:${jobId}`), line);
      assert.match(line, /behind for \S+ in 1 rooms, [1-9]\d+ bytes/);
      // A client that polls again learns that it has to come back, and not that it was sent away for good.
      if (slow.poll) await assert.rejects(slow.poll(), /503/);
    });
  }
});
