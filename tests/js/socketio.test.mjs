// Subscribing over Socket.IO and what is delivered, with the stock clients.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ask,
  clockPast,
  connect,
  connectByHand,
  eventually,
  sequenceNumbers,
  uniqueId,
  updatesOf,
} from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

const clients = [
  { client: 4, transports: ['websocket'] },
  { client: 4, transports: ['polling'] },
  { client: 4, transports: ['polling', 'websocket'] },
  { client: 3, transports: ['websocket'] },
  { client: 3, transports: ['polling'] },
];

describeEachStore('socket.io', (context) => {
  const { api } = context;
  const join = (t, options) => connect(t, context.gateway, options);

  for (const options of clients) {
    it(`serves version ${options.client} over ${options.transports.join(', then ')}`, async (t) => {
      const jobId = uniqueId('stock');
      const watcher = await join(t, options);
      const answer = await watcher.subscribe({ jobId });
      assert.deepEqual(Object.keys(answer).sort(), ['latest', 'message', 'room', 'success']);
      assert.equal(answer.room, `job:${jobId}`);
      assert.equal(answer.latest, null);
      assert.equal(typeof answer.message, 'string');

      const [update] = [await api.update(jobId, { status: 'queued', data: { list: [1, 'ü\u{1F600}', null] } })];
      await api.progress(jobId, 12.5);
      await api.completed(jobId, { result: { ok: true } });
      await api.update(jobId, { status: 'again' });
      const last = await api.error(jobId, 'disk full');
      await watcher.through(last);
      const stored = await api.history(jobId);
      assert.equal(stored[0].seq, update.seq);
      const seen = watcher.log.items.filter(({ name }) => name.startsWith('job:'));
      assert.deepEqual(
        seen.map(({ name, args }) => [name, ...args]),
        stored.map((event) => [event.event, event]),
      );

      const history = await watcher.ask('history:jobs', { jobId });
      assert.deepEqual(history, { success: true, jobId, events: stored });
      const left = await watcher.ask('unsubscribe:jobs', { jobId });
      assert.equal(left.success, true);
      assert.equal(left.room, `job:${jobId}`);
      assert.equal(typeof left.message, 'string');
    });
  }

  it('upgrades from polling to WebSocket without losing anything', async (t) => {
    const jobId = uniqueId('upgrade');
    const watcher = await join(t, { transports: ['polling', 'websocket'] });
    const { engine } = watcher.socket.io;
    const upgraded = engine.transport.name === 'websocket' || new Promise((resolve) => engine.once('upgrade', resolve));
    await watcher.subscribe({ jobId });
    const published = [];
    for (let progress = 0; progress < 30; progress += 1) published.push(await api.progress(jobId, progress));
    await upgraded;
    published.push(await api.progress(jobId, 100));
    const events = await watcher.through(published.at(-1));
    assert.equal(engine.transport.name, 'websocket');
    assert.deepEqual(sequenceNumbers(events), sequenceNumbers(published));
  });

  it('sends the very text that history has', async (t) => {
    const jobId = uniqueId('text');
    const { socket, frames } = await connectByHand(t, context.gateway);
    socket.send(`42/jobs,1["subscribe:jobs",{"jobId":"${jobId}"}]`);
    await frames.find((frame) => frame.startsWith('43/jobs,1['), 'the acknowledgement');
    const data = '{"n":9007199254740993,"m":1.000,"__proto__":{"x":1}}';
    await api.update(jobId, `{"status":"queued","data":${data}}`);
    const frame = await frames.find((text) => text.includes('"job:update"'), 'the event');
    const newest = await api.get(`/api/jobs/${jobId}`);
    assert.ok(newest.text.includes(data));
    assert.equal(frame, `42/jobs,["job:update",${newest.text}]`);
  });

  it('picks the room by the first present of jobId, userId and tenantId', async (t) => {
    const watcher = await join(t);
    for (const [payload, room] of [
      [{ jobId: 'j', userId: 'u', tenantId: 't' }, 'job:j'],
      [{ userId: 'u', tenantId: 't' }, 'user:u'],
      [{ tenantId: 't' }, 'tenant:t'],
      [{ jobId: null, userId: 'u' }, 'user:u'],
      [{ since: null, replay: null }, 'all-jobs'],
      [{ jobId: 42 }, 'job:42'],
      [{}, 'all-jobs'],
      [null, 'all-jobs'],
    ]) {
      assert.equal((await watcher.subscribe(payload)).room, room, JSON.stringify(payload));
      assert.equal((await watcher.ask('unsubscribe:jobs', payload)).room, room, JSON.stringify(payload));
    }
    assert.equal((await watcher.subscribe()).room, 'all-jobs');
    assert.equal((await watcher.ask('unsubscribe:jobs')).room, 'all-jobs');
  });

  it('reaches the rooms of the job, its user, its tenant and all jobs', async (t) => {
    const [jobId, userId, tenantId] = [uniqueId('job'), uniqueId('anna'), uniqueId('acme')];
    const watchers = [];
    for (const payload of [{ jobId }, { userId }, { tenantId }, {}]) {
      const watcher = await join(t);
      await watcher.subscribe(payload);
      watchers.push(watcher);
    }
    const stranger = await join(t);
    for (const name of ['jobId', 'userId', 'tenantId']) await stranger.subscribe({ [name]: uniqueId('other') });
    const sentinel = uniqueId('sentinel');
    await stranger.subscribe({ jobId: sentinel });

    const first = await api.update(jobId, { status: 'queued', userId, tenantId });
    const second = await api.progress(jobId, 50);
    for (const watcher of watchers) {
      await watcher.through(second);
      assert.deepEqual(sequenceNumbers(watcher.jobEvents(jobId)), sequenceNumbers([first, second]));
    }
    await stranger.through(await api.update(sentinel));
    assert.deepEqual(stranger.jobEvents(jobId), []);
  });

  it('delivers once to a client in several rooms of an event', async (t) => {
    const [jobId, userId, tenantId] = [uniqueId('job'), uniqueId('anna'), uniqueId('acme')];
    const watcher = await join(t);
    for (const payload of [{ jobId }, { userId }, { tenantId }, {}, { jobId }]) await watcher.subscribe(payload);
    const published = [await api.update(jobId, { status: 'queued', userId, tenantId })];
    for (let progress = 0; progress < 20; progress += 1) published.push(await api.progress(jobId, progress));
    await watcher.through(published.at(-1));
    // One more of each way in: whatever copy were still under way comes before these.
    const last = await api.completed(jobId);
    await watcher.through(last);
    await watcher.ask('history:jobs', { jobId });
    assert.deepEqual(sequenceNumbers(watcher.jobEvents(jobId)), sequenceNumbers([...published, last]));
  });

  it('keeps delivering to one room after another that had the same events was left', async (t) => {
    const [jobId, userId] = [uniqueId('job'), uniqueId('anna')];
    const watcher = await join(t);
    await watcher.subscribe({ jobId });
    await watcher.subscribe({ userId });
    const first = await api.update(jobId, { status: 'queued', userId });
    await watcher.through(first);
    await watcher.ask('unsubscribe:jobs', { jobId });
    const second = await api.progress(jobId, 1);
    await watcher.through(second);
    await watcher.ask('unsubscribe:jobs', { userId });

    const witness = await join(t);
    await witness.subscribe({ jobId });
    const third = await api.progress(jobId, 2);
    await witness.through(third);
    const sentinel = uniqueId('sentinel');
    await watcher.subscribe({ jobId: sentinel });
    await watcher.through(await api.update(sentinel));
    assert.deepEqual(sequenceNumbers(watcher.jobEvents(jobId)), sequenceNumbers([first, second]));
  });

  it('takes subscribing twice and leaving what was not joined as successes', async (t) => {
    const jobId = uniqueId('twice');
    const watcher = await join(t);
    const left = await watcher.ask('unsubscribe:jobs', { jobId });
    assert.equal(left.success, true, JSON.stringify(left));
    await watcher.subscribe({ jobId });
    const first = await api.update(jobId);
    const again = await watcher.subscribe({ jobId });
    assert.equal(again.latest.seq, first.seq);
    const last = await api.completed(jobId);
    assert.deepEqual(sequenceNumbers(await watcher.through(last)), sequenceNumbers([first, last]));
    await watcher.ask('unsubscribe:jobs', { jobId });
    await watcher.ask('unsubscribe:jobs', { jobId });
  });

  it('keeps order and loses nothing under many concurrent publishers', async (t) => {
    const jobs = Array.from({ length: 5 }, () => uniqueId('busy'));
    const userId = uniqueId('anna');
    const watchers = [await join(t), await join(t, { transports: ['polling'] }), await join(t)];
    await watchers[0].subscribe({ userId });
    await watchers[1].subscribe({ userId });
    for (const jobId of jobs) await watchers[2].subscribe({ jobId });
    for (const jobId of jobs) await api.update(jobId, { status: 'queued', userId });
    const publishers = jobs.flatMap((jobId) =>
      Array.from({ length: 4 }, async () => {
        for (let progress = 0; progress < 20; progress += 1) await api.progress(jobId, progress);
      }),
    );
    await Promise.all(publishers);
    for (const jobId of jobs) {
      const last = await api.completed(jobId);
      const expected = Array.from({ length: 82 }, (_, index) => last.seq - 81 + index);
      for (const watcher of watchers) {
        assert.deepEqual(sequenceNumbers(await watcher.through(last)), expected);
      }
    }
  });

  describe('latest', () => {
    it('is the newest event of a job, published before anybody watched', async (t) => {
      const jobId = uniqueId('latest');
      await api.update(jobId);
      await api.progress(jobId, 50);
      const watcher = await join(t);
      const { latest } = await watcher.subscribe({ jobId });
      assert.deepEqual(latest, (await api.history(jobId)).at(-1));
      const live = await api.progress(jobId, 51);
      assert.deepEqual(sequenceNumbers(await watcher.through(live)), [live.seq]);
    });

    for (const owner of ['userId', 'tenantId']) {
      it(`is the newest event of each job of the ${owner}, newest first`, async (t) => {
        const who = uniqueId('anna');
        const [one, two, three] = ['one', 'two', 'three'].map(uniqueId);
        for (const jobId of [one, two, three]) {
          const { timestamp } = await api.update(jobId, { status: 'queued', [owner]: who });
          await clockPast(timestamp);
        }
        await api.update(uniqueId('foreign'), { status: 'queued', [owner]: uniqueId('bert') });
        await api.progress(one, 50);
        const { latest } = await (await join(t)).subscribe({ [owner]: who });
        const newest = await Promise.all([one, three, two].map(async (jobId) => (await api.history(jobId)).at(-1)));
        assert.deepEqual(latest, newest);
      });
    }

    it('is an empty list where no job is', async (t) => {
      const { latest } = await (await join(t)).subscribe({ userId: uniqueId('nobody') });
      assert.deepEqual(latest, []);
    });

    it('has at most 100 jobs, the newest', async (t) => {
      const userId = uniqueId('busy');
      const old = Array.from({ length: 5 }, () => uniqueId('old'));
      const young = Array.from({ length: 100 }, () => uniqueId('young'));
      const eventsOf = (jobs) => jobs.flatMap((jobId) => updatesOf(jobId, 1, { userId }));
      const [{ timestamp }] = (await api.publishAll(eventsOf(old))).slice(-1);
      await clockPast(timestamp);
      await api.publishAll(eventsOf(young));
      const watcher = await join(t);
      for (const payload of [{ userId }, {}]) {
        const { latest } = await watcher.subscribe(payload);
        assert.deepEqual(latest.map((event) => event.jobId).sort(), young.toSorted());
        const times = latest.map((event) => event.timestamp);
        assert.deepEqual(times, times.toSorted().reverse());
      }
    });
  });

  describe('history:jobs', () => {
    it('gives the newest events, or the oldest after a number', async (t) => {
      const jobId = uniqueId('history');
      const watcher = await join(t);
      const numbers = async (payload) =>
        sequenceNumbers((await watcher.ask('history:jobs', { jobId, ...payload })).events);
      assert.deepEqual(await numbers({}), []);
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 105)));
      assert.deepEqual(await numbers({}), all.slice(5));
      assert.deepEqual(await numbers({ limit: 3 }), all.slice(-3));
      assert.deepEqual(await numbers({ limit: 1000 }), all.slice(5));
      assert.deepEqual(await numbers({ since: all[50] }), all.slice(51));
      assert.deepEqual(await numbers({ since: all[50], limit: 3 }), all.slice(51, 54));
      assert.deepEqual(await numbers({ since: 0, limit: 3 }), all.slice(5, 8));
      assert.deepEqual(await numbers({ limit: null, since: null }), all.slice(5));
    });
  });

  it('needs no acknowledgement callback', async (t) => {
    const [jobId, other] = [uniqueId('silent'), uniqueId('silent')];
    const watcher = await join(t);
    watcher.socket.emit('subscribe:jobs', { jobId });
    watcher.socket.emit('subscribe:jobs', { jobId: other });
    watcher.socket.emit('unsubscribe:jobs', { jobId: other });
    // Requests of one client are answered in order: this one comes after those above.
    await ask(watcher.socket, 'history:jobs', { jobId });
    await eventually(async () => (await api.roomSize(`job:${other}`)) === 0, 'the other room to be left');
    const event = await api.update(jobId);
    await watcher.through(event);
    assert.deepEqual(
      watcher.log.items.map(({ name }) => name),
      ['job:update'],
    );
  });

  it('never misses a subscription that is sent at once on connecting', async (t) => {
    const jobId = uniqueId('eager');
    const watchers = await Promise.all(
      Array.from({ length: 30 }, async () => {
        const watcher = await join(t);
        await watcher.subscribe({ jobId });
        return watcher;
      }),
    );
    const event = await api.update(jobId);
    for (const watcher of watchers) await watcher.through(event);
  });
});
