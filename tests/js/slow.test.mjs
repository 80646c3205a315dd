// Watchers that do not read: contract, section 6.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { metricsOf } from './support/metrics.mjs';
import { connect } from './support/socketio.mjs';
import { eventually, uniqueId } from './support/waiting.mjs';

const PADDING = 'x'.repeat(4000);
// More than the system's buffers and the gateway's outbox hold together.
const BATCHES = 24;

describe('a watcher that does not read', () => {
  let gateway;
  let api;

  before(async () => {
    gateway = await startGateway({
      env: { JOBCAST_LIMITS__OUTBOX: '128', JOBCAST_LIMITS__BEHIND: '10s', JOBCAST_HISTORY__MAX_EVENTS: '500' },
    });
    api = httpClient(gateway.url);
  });

  after(async () => {
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  });

  async function publishMuch(jobId) {
    let last;
    for (let batch = 0; batch < BATCHES; batch += 1) {
      const events = Array.from({ length: 250 }, () => ({ event: 'job:update', jobId, status: 's', data: PADDING }));
      last = (await api.publishAll(events)).at(-1);
    }
    return last;
  }

  const behind = async () => (await metricsOf(gateway)).jobcast_sessions_behind;
  const closed = async () =>
    (await metricsOf(gateway))['jobcast_sessions_closed_total{reason="too_slow"}'] ?? 0;

  /** Stops reading on the connection below a socket. */
  function stall(watcher) {
    const stream = watcher.socket.io.engine.transport.ws._socket;
    stream.pause();
    return stream;
  }

  it('is caught up when it reads again, with a gap announced where history has rotated; others miss nothing', async (t) => {
    const jobId = uniqueId('slow');
    const [slow, quick] = await Promise.all([connect(t, gateway), connect(t, gateway)]);
    await Promise.all([slow.subscribe({ jobId }), quick.subscribe({ jobId })]);
    const stream = stall(slow);
    const last = await publishMuch(jobId);
    await quick.through(last);
    assert.equal(quick.jobEvents(jobId).length, BATCHES * 250);
    assert.equal(await behind(), 1);

    stream.resume();
    await slow.through(last);
    const gaps = slow.log.items.filter(({ name }) => name === 'job:gap').map(({ payload }) => payload);
    assert.ok(gaps.length > 0, 'nothing was too much for the buffers: this tests nothing');
    let known = quick.jobEvents(jobId)[0].seq - 1;
    for (const { name, payload } of slow.log.items.filter(({ name }) => name.startsWith('job:'))) {
      assert.equal(name === 'job:gap' ? payload.from : payload.seq, known + 1);
      known = name === 'job:gap' ? payload.to : payload.seq;
    }
    assert.equal(known, last.seq);
    await eventually(async () => (await behind()) === 0, 'nobody to be behind');
  });

  for (const transports of [['websocket'], ['polling', 'websocket']]) {
    it(`is closed when it stays behind for too long, connected by ${transports.join(' and ')}`, async (t) => {
      const jobId = uniqueId('stalled');
      const slow = await connect(t, gateway, { transports });
      if (slow.socket.io.engine.transport.name !== 'websocket') {
        await new Promise((resolve) => slow.socket.io.engine.once('upgrade', resolve));
      }
      await slow.subscribe({ jobId });
      const before = await closed();
      stall(slow);
      await publishMuch(jobId);
      await eventually(async () => (await closed()) === before + 1, 'the session to be closed', 20_000);
      await eventually(async () => (await metricsOf(gateway)).jobcast_sessions === 0, 'the session to be gone');
      await gateway.logged(/too_slow/);
    });
  }
});
