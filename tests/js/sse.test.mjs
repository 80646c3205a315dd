// Server-Sent Events: one job, one user, all jobs; live, and resumed.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EventSource } from 'eventsource';
import {
  assertProblem,
  Collector,
  eventually,
  numbersBetween,
  openStream,
  publishUntilStopped,
  sequenceNumbers,
  timeAfter,
  uniqueId,
  updatesOf,
} from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

const HEARTBEAT_PATIENCE_MS = 25_000;

describeEachStore('streams', (context) => {
  const { api } = context;
  const open = (t, path, headers) => openStream(t, context.gateway, path, headers);
  const jobStream = (jobId, query = '') => `/api/jobs/${jobId}/events${query}`;
  const userStream = (userId, query = '') => `/api/users/${userId}/events${query}`;

  describe('of a job', () => {
    it('send every event with its number, name and JSON', async (t) => {
      const jobId = uniqueId('stream');
      const stream = await open(t, jobStream(jobId));
      assert.match(stream.headers['content-type'], /^text\/event-stream/);
      assert.match(stream.headers['cache-control'], /no-cache|no-store/);

      await api.update(jobId, '{"status":"queued","data":{"n":9007199254740993,"m":1.000}}');
      await api.progress(jobId, 50);
      const last = await api.completed(jobId, { result: 'line\nline' });
      await stream.through(jobId, last.seq);

      const stored = await api.history(jobId);
      assert.deepEqual(
        stream.events.items.map(({ id, event, data }) => ({ id, event, data: JSON.parse(data) })),
        stored.map((event) => ({ id: String(event.seq), event: event.event, data: event })),
      );
      assert.ok(stream.events.items[0].data.includes('"data":{"n":9007199254740993,"m":1.000}'));
    });

    it('send nothing of other jobs', async (t) => {
      const [jobId, other] = [uniqueId('mine'), uniqueId('other')];
      const [stream, witness] = [await open(t, jobStream(jobId)), await open(t, jobStream(other))];
      const foreign = await api.update(other);
      await witness.through(other, foreign.seq);
      const { seq } = await api.update(jobId);
      assert.deepEqual(sequenceNumbers(await stream.through(jobId, seq)), [seq]);
    });

    for (const [how, request] of Object.entries({
      'Last-Event-ID': (jobId, seq) => [jobStream(jobId), { 'last-event-id': String(seq) }],
      since: (jobId, seq) => [jobStream(jobId, `?since=${seq}`)],
    })) {
      it(`resume after a number by ${how}, and go on live`, async (t) => {
        const jobId = uniqueId('resume');
        const before = sequenceNumbers(await api.publishAll(updatesOf(jobId, 5)));
        const stream = await open(t, ...request(jobId, before[1]));
        const live = await api.progress(jobId, 1);
        const events = await stream.through(jobId, live.seq);
        assert.deepEqual(sequenceNumbers(events), [...before.slice(2), live.seq]);
      });
    }

    it('send all there is since 0', async (t) => {
      const jobId = uniqueId('since-0');
      const before = sequenceNumbers(await api.publishAll(updatesOf(jobId, 5)));
      const stream = await open(t, jobStream(jobId, '?since=0'));
      assert.deepEqual(sequenceNumbers(await stream.through(jobId, before.at(-1))), before);
    });

    it('prefer what the browser has seen to what its address says', async (t) => {
      const jobId = uniqueId('both');
      const before = sequenceNumbers(await api.publishAll(updatesOf(jobId, 5)));
      const stream = await open(t, jobStream(jobId, '?since=0'), { 'last-event-id': String(before[3]) });
      assert.deepEqual(sequenceNumbers(await stream.through(jobId, before[4])), [before[4]]);
    });

    it('lose nothing that is published while they open', async (t) => {
      const jobId = uniqueId('race');
      const gateway = await context.another(t, { env: { JOBCAST_HISTORY__MAX_EVENTS: '100000' } });
      const first = await gateway.api.update(jobId);
      const stopPublishing = publishUntilStopped(t, gateway.api, jobId);
      const streams = [];
      for (let index = 0; index < 10; index += 1) {
        streams.push(await openStream(t, gateway, jobStream(jobId, `?since=${first.seq}`)));
      }
      const last = await stopPublishing();
      for (const stream of streams) {
        const numbers = sequenceNumbers(await stream.through(jobId, last.seq));
        assert.deepEqual(numbers, numbersBetween(first.seq + 1, last.seq));
      }
    });

    it('refuse a since of the wrong form', async () => {
      const jobId = uniqueId('wrong');
      assertProblem(await api.get(jobStream(jobId, '?since=abc')), 422, { mention: 'since' });
      assertProblem(await api.get(userStream('anna', '?since=yesterday')), 422, { mention: 'since' });
      assertProblem(await api.get('/api/events?since=yesterday'), 422, { mention: 'since' });
    });
  });

  describe('of a user and of all jobs', () => {
    it('bear the position of each event as id, which begins with its time', async (t) => {
      const [userId, one, other] = [uniqueId('anna'), uniqueId('one'), uniqueId('other')];
      const streams = [await open(t, userStream(userId)), await open(t, '/api/events')];
      await api.update(one, { status: 'queued', userId });
      await api.update(other, { status: 'queued', userId });
      const last = await api.progress(one, 50);
      for (const stream of streams) {
        await stream.through(one, last.seq);
        const events = stream.events.items.filter(({ data }) => [one, other].includes(JSON.parse(data).jobId));
        assert.equal(events.length, 3);
        for (const { id, event, data } of events) {
          const [, time] = /^(\d+)-\d+$/.exec(id);
          assert.ok(Number(time) >= Date.parse(JSON.parse(data).timestamp), id);
          assert.equal(event, JSON.parse(data).event);
        }
      }
    });

    it('send the events of that user only', async (t) => {
      const [anna, bert] = [uniqueId('anna'), uniqueId('bert')];
      const [mine, foreign] = [uniqueId('mine'), uniqueId('foreign')];
      const [stream, witness] = [await open(t, userStream(anna)), await open(t, userStream(bert))];
      const other = await api.update(foreign, { status: 'queued', userId: bert });
      await witness.through(foreign, other.seq);
      const { seq } = await api.update(mine, { status: 'queued', userId: anna });
      assert.deepEqual(await stream.through(mine, seq), [(await api.history(mine))[0]]);
    });

    for (const [how, request] of Object.entries({
      'Last-Event-ID': (path, time) => [path, { 'last-event-id': String(time) }],
      'since in milliseconds': (path, time) => [`${path}?since=${time}`],
      'since as a date': (path, time) => [`${path}?since=${new Date(time).toISOString()}`],
    })) {
      it(`resume from a time by ${how}, and go on live`, async (t) => {
        const [userId, one, other, idle] = [uniqueId('anna'), uniqueId('one'), uniqueId('other'), uniqueId('idle')];
        const owned = { status: 'queued', userId };
        await api.update(idle, owned);
        const early = await api.update(one, owned);
        const time = await timeAfter(early.timestamp);
        const missed = [await api.progress(one, 10), await api.update(other, owned), await api.progress(one, 20)];

        for (const path of [userStream(userId), '/api/events']) {
          const stream = await open(t, ...request(path, time));
          const live = await api.progress(other, 30);
          const events = await stream.through(other, live.seq);
          const ours = events.filter(({ jobId }) => [one, other, idle].includes(jobId));
          missed.push(live);
          assert.deepEqual(
            ours.map(({ jobId, seq }) => [jobId, seq]),
            missed.map(({ jobId, seq }) => [jobId, seq]),
            path,
          );
        }
      });
    }
  });

  it('reach an EventSource under the name of each event', async (t) => {
    const jobId = uniqueId('event-source');
    const source = new EventSource(`${context.gateway.url}${jobStream(jobId)}`);
    t.after(() => source.close());
    const seen = new Collector();
    for (const name of ['job:update', 'job:progress', 'job:error']) {
      source.addEventListener(name, ({ type, data, lastEventId }) => seen.push({ type, data, lastEventId }));
    }
    await eventually(() => source.readyState === EventSource.OPEN, 'the stream');
    await api.update(jobId);
    await api.progress(jobId, 50);
    const last = await api.error(jobId, 'disk full');
    await seen.until((items) => items.length === 3, 'three events');
    assert.deepEqual(
      seen.items.map(({ type }) => type),
      ['job:update', 'job:progress', 'job:error'],
    );
    assert.equal(seen.items[2].lastEventId, String(last.seq));
    assert.equal(JSON.parse(seen.items[2].data).error, 'disk full');
  });

  it('bring an EventSource what it missed while the gateway was away', async (t) => {
    const jobId = uniqueId('restart');
    const first = await context.another(t);
    const source = new EventSource(`${first.url}${jobStream(jobId)}`);
    t.after(() => source.close());
    const seen = new Collector();
    source.addEventListener('job:progress', ({ data }) => seen.push(JSON.parse(data).seq));
    await eventually(() => source.readyState === EventSource.OPEN, 'the stream');
    const before = await first.api.progress(jobId, 1);
    await seen.until((items) => items.includes(before.seq), 'the first event');

    assert.equal(await first.stop(), 0, 'an open stream does not keep the gateway from stopping');
    const second = await first.again();
    const published = [await second.api.progress(jobId, 2), await second.api.progress(jobId, 3)];
    await seen.until((items) => items.includes(published[1].seq), 'the events after the restart');
    assert.deepEqual(seen.items, sequenceNumbers([before, ...published]));
  });

  it('say a comment now and then', async (t) => {
    const stream = await open(t, jobStream(uniqueId('quiet')));
    await stream.comments.until((items) => items.length > 0, 'a comment', HEARTBEAT_PATIENCE_MS);
    assert.deepEqual(stream.events.items, []);
  });
});

describeEachStore(
  'streams over a short history',
  (context) => {
    const { api } = context;

    for (const how of ['Last-Event-ID', 'since']) {
      it(`tell which numbers are gone: ${how}`, async (t) => {
        const jobId = uniqueId('gap');
        const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 10)));
        const path = `/api/jobs/${jobId}/events`;
        const stream =
          how === 'since'
            ? await openStream(t, context.gateway, `${path}?since=${all[1]}`)
            : await openStream(t, context.gateway, path, { 'last-event-id': String(all[1]) });
        // The live event rotates the oldest one out.
        await stream.through(jobId, all.at(-1));
        const live = await api.progress(jobId, 50);
        const replayed = await stream.through(jobId, live.seq);
        assert.deepEqual(sequenceNumbers(replayed), [...all.slice(5), live.seq]);
        const [gap] = stream.events.items;
        assert.equal(gap.event, 'job:gap');
        assert.deepEqual(JSON.parse(gap.data), { jobId, from: all[2], to: all[4] });
        assert.equal(stream.events.items.filter(({ event }) => event === 'job:gap').length, 1);
      });
    }

    it('tell of none where nothing is missing', async (t) => {
      const jobId = uniqueId('no-gap');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 10)));
      const stream = await openStream(t, context.gateway, `/api/jobs/${jobId}/events?since=${all[4]}`);
      assert.deepEqual(sequenceNumbers(await stream.through(jobId, all.at(-1))), all.slice(5));
      assert.deepEqual(
        stream.events.items.filter(({ event }) => event === 'job:gap'),
        [],
      );
    });
  },
  { env: { JOBCAST_HISTORY__MAX_EVENTS: '5' } },
);
