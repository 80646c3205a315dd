// SIGTERM: what was accepted is kept, everybody is told, and the process ends in time.

import assert from 'node:assert/strict';
import { get as httpGet } from 'node:http';
import { connect as openConnection } from 'node:net';
import { it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { openPolling, openSocket } from './support/by-hand.mjs';
import {
  CLOSED,
  connect,
  connectByHand,
  eventually,
  inTime,
  numbersBetween,
  openStream,
  send,
  sequenceNumbers,
  uniqueId,
} from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

const GRACE_MS = 3_000;
const env = { JOBCAST_SERVER__SHUTDOWN_GRACE: '3s' };

async function assertStopsInTime(gateway) {
  const start = Date.now();
  assert.equal(await gateway.stop(), 0, gateway.stderr());
  const took = Date.now() - start;
  assert.ok(took < GRACE_MS, `took ${took} ms of ${GRACE_MS}\n${gateway.stderr()}`);
}

const LAST_WORDS = '42/jobs,["server:draining",';

/** How long a client was told to wait before it comes back, in milliseconds. */
const reconnectAfter = (frame) => JSON.parse(frame.slice(frame.indexOf('[')))[1].reconnectAfter;

/** A client of a job, with the numbers that it gets and how it is told its end: `{seqs, lastWords, left}`. */
async function departing(gateway, jobId) {
  const client = await openSocket(gateway);
  await client.enter('/jobs');
  const lastWords = client.frame(LAST_WORDS);
  // Looked at later.
  lastWords.catch(() => {});
  const seqs = [];
  client.socket.on('message', (data) => {
    const text = data.toString();
    if (text.startsWith('42/jobs,["job:')) seqs.push(JSON.parse(text.slice(text.indexOf('[')))[1].seq);
  });
  const left = new Promise((resolve) => client.socket.once('close', (code) => resolve({ at: Date.now(), code })));
  assert.equal((await client.ask('subscribe:jobs', { jobId })).success, true);
  return { seqs, lastWords, left };
}

/** Publishes every few milliseconds until the gateway takes nothing more, and answers the numbers it answered for. */
async function publishToTheEnd(gateway, jobId) {
  const answered = [];
  try {
    for (;;) {
      answered.push((await gateway.api.progress(jobId, 50)).seq);
      await pause(20);
    }
  } catch {
    return answered;
  }
}

describeEachStore('stopping', (context) => {
  it('says so first, and goes on meanwhile', async (t) => {
    const gateway = await context.another(t, {
      env: { JOBCAST_SERVER__SHUTDOWN_GRACE: '80s', JOBCAST_SERVER__DRAIN_NOTICE: '20s' },
    });
    const jobId = uniqueId('noticed');
    const before = await connect(t, gateway);
    await before.subscribe({ jobId });
    gateway.process.kill('SIGTERM');
    await eventually(async () => (await send(gateway.url, 'GET', '/readyz', { fresh: true })).status === 503, 'the 503');

    assert.equal((await send(gateway.url, 'GET', '/healthz', { fresh: true })).status, 200);
    const meanwhile = await connect(t, gateway);
    await meanwhile.subscribe({ jobId });
    const event = await gateway.api.update(jobId);
    for (const watcher of [before, meanwhile]) await watcher.through(event);
    assert.equal(before.socket.connected, true);
  });

  it('lets many clients go one after the other, with all that was accepted until then', async (t) => {
    const notice = 1_000;
    const gateway = await context.another(t, {
      env: {
        JOBCAST_SERVER__SHUTDOWN_GRACE: '12s',
        JOBCAST_SERVER__DRAIN_NOTICE: `${notice}ms`,
        JOBCAST_SERVER__DRAIN_WINDOW: '2s',
        JOBCAST_HISTORY__MAX_EVENTS: '1000',
      },
    });
    const jobId = uniqueId('departing');
    const first = await gateway.api.update(jobId);
    const clients = [];
    for (let count = 0; count < 300; count += 1) clients.push(await departing(gateway, jobId));
    const before = await gateway.api.progress(jobId, 1);
    const publishing = publishToTheEnd(gateway, jobId);
    const signalled = Date.now();
    gateway.process.kill('SIGTERM');

    const left = await inTime(Promise.all(clients.map((client) => client.left)), 'the departures', 20_000);
    const times = left.map(({ at }) => at).sort((one, other) => one - other);
    assert.ok(times[0] - signalled >= notice, `the first was gone after ${times[0] - signalled} ms`);
    assert.ok(times.at(-1) - times[0] >= 300, `all were gone within ${times.at(-1) - times[0]} ms`);
    for (const { code } of left) assert.equal(code, 1005, 'a close that was said');
    const waits = (await Promise.all(clients.map((client) => client.lastWords))).map(reconnectAfter);
    assert.ok(new Set(waits).size > 50, `told to come back after ${waits}`);
    assert.ok(Math.min(...waits) >= 500 && Math.max(...waits) <= 2_000, `told to come back after ${waits}`);

    assert.equal(await inTime(gateway.exited, 'the end of the process', 20_000), 0, gateway.stderr());
    const answered = await publishing;
    const lasts = clients.map(({ seqs }) => seqs.at(-1));
    for (const { seqs } of clients) assert.deepEqual(seqs, numbersBetween(before.seq, seqs.at(-1)));
    assert.ok(Math.max(...lasts) > Math.min(...lasts), 'who was still there got what was accepted meanwhile');
    const again = await gateway.again({ env: { JOBCAST_HISTORY__MAX_EVENTS: '1000' } });
    const stored = sequenceNumbers(await again.api.history(jobId));
    assert.deepEqual(stored, numbersBetween(first.seq, stored.at(-1)));
    assert.ok(stored.at(-1) >= answered.at(-1), `${stored.at(-1)} of ${answered.at(-1)}`);
  });

  it('tells long-polling and streams when to come back', async (t) => {
    const gateway = await context.another(t, { env });
    const jobId = uniqueId('told');
    const polling = await openPolling(gateway);
    await polling.post('40/jobs,');
    await polling.frame('40/jobs,');
    const polled = (async () => {
      for (const answers = []; ; ) {
        const answer = await send(gateway.url, 'GET', `/socket.io/?EIO=4&transport=polling&sid=${polling.sid}`);
        assert.equal(answer.status, 200, answer.text);
        answers.push(answer.text);
        if (answer.text.split('\x1e').includes('1')) return answers;
      }
    })();
    const stock = await connect(t, gateway, { transports: ['polling'] });
    const stream = await openStream(t, gateway, `/api/jobs/${jobId}/events`);
    await stream.through(jobId, (await gateway.api.update(jobId)).seq);

    await assertStopsInTime(gateway);
    // A stock client drops what comes together with the end.
    const answers = await inTime(polled, 'the end of long-polling');
    assert.ok(answers.some((answer) => answer.includes(LAST_WORDS)), answers.join());
    assert.equal(answers.at(-1), '1');
    assert.ok((await stock.next('server:draining')).reconnectAfter > 0);
    await inTime(stream.closed, 'the end of the stream');
    assert.equal(stream.retries.length, 2, `${stream.retries}`);
    assert.ok(stream.retries[1] >= 500 && stream.retries[1] <= 1_000, `${stream.retries}`);
  });

  it('is not held up by clients that neither read nor finish what they say', async (t) => {
    const grace = 8_000;
    const gateway = await context.another(t, { env: { JOBCAST_SERVER__SHUTDOWN_GRACE: `${grace}ms` } });
    const jobId = uniqueId('stalled');
    const stalled = await openSocket(gateway);
    t.after(() => stalled.socket.terminate());
    await stalled.enter('/jobs');
    await stalled.ask('subscribe:jobs', { jobId });
    stalled.socket.pause();
    const stream = httpGet(`${gateway.url}/api/jobs/${jobId}/events`, { agent: false });
    t.after(() => stream.destroy());
    stream.on('error', () => {});
    const [response] = await inTime(new Promise((resolve) => stream.once('response', (...all) => resolve(all))), 'it');
    response.on('error', () => {});
    response.pause();
    // An upgrade that goes no further than its first answer.
    const { sid } = await openPolling(gateway);
    const upgrading = await openSocket(gateway, { sid });
    t.after(() => upgrading.socket.terminate());
    const half = 'POST /api/jobs/half/update HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"status"';
    for (const words of ['', 'GET /healthz HTT', half]) {
      const speaker = openConnection(gateway.port, '127.0.0.1');
      t.after(() => speaker.destroy());
      speaker.on('error', () => {});
      await inTime(new Promise((resolve) => speaker.once('connect', resolve)), 'the connection');
      speaker.write(words);
    }
    // More than the system takes for a client that does not read.
    const data = 'x'.repeat(120_000);
    for (let count = 0; count < 150; count += 1) await gateway.api.update(jobId, { status: 'big', data });

    const start = Date.now();
    assert.equal(await gateway.stop(), 0, gateway.stderr());
    const took = Date.now() - start;
    assert.ok(took < grace, `took ${took} ms of ${grace}\n${gateway.stderr()}`);
  });

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
