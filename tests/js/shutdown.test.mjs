// SIGTERM: what was accepted is kept, everybody is told, and the process ends in time.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { CLOSED, connect, connectByHand, inTime, openStream, sequenceNumbers, uniqueId } from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

const GRACE_MS = 3_000;
const env = { JOBCAST_SERVER__SHUTDOWN_GRACE: '3s' };

async function assertStopsInTime(gateway) {
  const start = Date.now();
  assert.equal(await gateway.stop(), 0, gateway.stderr());
  const took = Date.now() - start;
  assert.ok(took < GRACE_MS, `took ${took} ms of ${GRACE_MS}\n${gateway.stderr()}`);
}

describeEachStore('stopping', (context) => {
  it('ends every kind of connection, such that stock clients come back', async (t) => {
    const gateway = await context.another(t, { env });
    const jobId = uniqueId('connected');
    const reasons = [];
    for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
      const watcher = await connect(t, gateway, { transports });
      await watcher.subscribe({ jobId });
      reasons.push(new Promise((resolve) => watcher.socket.once('disconnect', resolve)));
    }
    const stream = await openStream(t, gateway, `/api/jobs/${jobId}/events`);
    const { frames } = await connectByHand(t, gateway);
    await gateway.api.update(jobId);

    await assertStopsInTime(gateway);
    // Of this one a stock client would not come back.
    for (const reason of await inTime(Promise.all(reasons), 'the disconnections')) {
      assert.notEqual(reason, 'io server disconnect');
    }
    await inTime(stream.closed, 'the end of the stream');
    await frames.find((frame) => frame === CLOSED, 'the end of the WebSocket');
  });

  it('is not held up by clients that are just leaving', async (t) => {
    // What matters is how far a client's farewell has come when the signal does.
    for (const milliseconds of [0, 1, 1, 1, 1, 2, 2, 3, 4]) {
      const gateway = await context.another(t, { env });
      const watchers = [];
      for (const transports of [['websocket'], ['polling']]) {
        const watcher = await connect(t, gateway, { transports });
        await watcher.subscribe({ jobId: uniqueId('leaving') });
        watchers.push(watcher);
      }
      for (const watcher of watchers) watcher.close();
      await pause(milliseconds);
      await assertStopsInTime(gateway);
    }
  });

  it('keeps every event that it has answered for', async (t) => {
    const gateway = await context.another(t, { env: { ...env, JOBCAST_HISTORY__MAX_EVENTS: '100000' } });
    const jobs = Array.from({ length: 8 }, () => uniqueId('accepted'));
    let halfway;
    const begun = new Promise((resolve) => {
      halfway = resolve;
    });
    const publishers = jobs.map(async (jobId) => {
      const answered = [];
      try {
        for (;;) {
          answered.push((await gateway.api.progress(jobId, 50)).seq);
          if (answered.length === 20) halfway();
        }
      } catch {
        // The gateway is gone: what happened to this one is unknown.
        return answered;
      }
    });
    await begun;
    await assertStopsInTime(gateway);
    const answered = await Promise.all(publishers);

    const again = await gateway.again({ env: { JOBCAST_HISTORY__MAX_EVENTS: '100000' } });
    for (const [index, jobId] of jobs.entries()) {
      const stored = sequenceNumbers(await again.api.history(jobId, '?limit=100000'));
      assert.deepEqual(stored.slice(0, answered[index].length), answered[index]);
      assert.ok(stored.length <= answered[index].length + 1, `${stored.length} of ${answered[index].length}`);
    }
  });
});
