// Streams of shared rooms, whose ids are positions, and streams that end with their job: Server-Sent Events with a
// browser's client, by hand and with curl.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { EventSource } from 'eventsource';
import {
  assertPosition,
  assertProblem,
  assertRising,
  Collector,
  connect,
  entriesOf,
  eventually,
  inTime,
  openStream,
  sequenceNumbers,
  sharedRooms,
  timeAfter,
  uniqueId,
} from './support/clients.mjs';
import { run } from './support/processes.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';

const named = ({ jobId, seq }) => [jobId, seq];

/** What a stream brought of some jobs: `{event, id, jobId, seq}` or with `from` and `to` in place of `seq`. */
const broughtOf = (stream, jobs) =>
  stream.events.items
    .map(({ event, id, data }) => ({ event, id, ...JSON.parse(data) }))
    .filter(({ jobId }) => jobs.includes(jobId));

/** Runs curl on a stream to its end. */
const curl = (url, ...args) => run('curl', ['--silent', '--show-error', '--no-buffer', '--max-time', '20', ...args, url]);
const dataOf = (text) => [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data));

describeEachStoreAndCluster('streams of shared rooms', (context) => {
  const { api } = context;
  const open = (t, path, headers) => openStream(t, context.gateway, path, headers);
  const jobsOf = (name) => [uniqueId(name), uniqueId(name)];

  async function publishByTurns(jobs, owner, count) {
    const published = [];
    for (let step = 0; step < count; step += 1) {
      published.push(await api.update(jobs[step % 2], { status: `step-${step}`, ...owner }));
    }
    return published;
  }

  it('bear the positions of the room as ids, the same as over Socket.IO', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('ids');
    for (const { room, payload, path } of rooms) {
      const [stream, watcher] = [await open(t, path), await connect(t, context.gateway)];
      await watcher.subscribe(payload);
      const published = await publishByTurns(jobs, owner, 4);
      await stream.through(...named(published.at(-1)));
      await watcher.through(published.at(-1));
      const brought = broughtOf(stream, jobs);
      assert.deepEqual(brought.map(named), published.map(named));
      assert.deepEqual(
        brought.map(({ id }) => id),
        entriesOf(watcher, room, jobs).map(({ position }) => position),
      );
      brought.forEach(({ id }) => assertPosition(id));
    }
  });

  for (const [how, request] of Object.entries({
    'Last-Event-ID': (path, id) => [path, { 'last-event-id': id }],
    since: (path, id) => [`${path}?since=${id}`],
    'Last-Event-ID, before since': (path, id) => [`${path}?since=0`, { 'last-event-id': id }],
  })) {
    it(`are resumed by ${how}, and go on live`, async (t) => {
      const { owner, rooms } = sharedRooms();
      const jobs = jobsOf('resume');
      for (const { path } of rooms) {
        const stayed = await open(t, path);
        const published = await publishByTurns(jobs, owner, 6);
        await stayed.through(...named(published.at(-1)));
        const back = await open(t, ...request(path, broughtOf(stayed, jobs)[1].id));
        const live = await api.progress(jobs[0], 50);
        for (const stream of [back, stayed]) await stream.through(...named(live));
        assert.deepEqual(broughtOf(back, jobs), broughtOf(stayed, jobs).slice(2));
      }
    });
  }

  it('take digits alone for a time', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('digits');
    const [early] = await publishByTurns(jobs, owner, 1);
    const time = String(await timeAfter(early.timestamp));
    const published = await publishByTurns(jobs, owner, 4);
    for (const { path } of rooms) {
      for (const request of [[path, { 'last-event-id': time }], [`${path}?since=${time}`]]) {
        const stream = await open(t, ...request);
        await stream.through(...named(published.at(-1)));
        const brought = broughtOf(stream, jobs);
        assert.deepEqual(brought.map(named).slice(-4), published.map(named));
        // Servers of a cluster have clocks of their own: there it may be more, and never less.
        if (context.kind !== 'cluster') assert.equal(brought.length, 4);
        assertRising(brought.map(({ id }) => id));
      }
    }
  });

  it('of a tenant send that tenant’s events only', async (t) => {
    const [mine, theirs] = [sharedRooms(), sharedRooms()];
    const [job, other] = jobsOf('tenant');
    const [stream, witness] = [await open(t, mine.rooms[1].path), await open(t, theirs.rooms[1].path)];
    const foreign = await api.update(other, { status: 'queued', ...theirs.owner });
    await witness.through(...named(foreign));
    const published = await api.update(job, { status: 'queued', ...mine.owner });
    await stream.through(...named(published));
    assert.equal(stream.events.items.length, 1);
    assertProblem(await api.get('/api/tenants/a%20b/events'), 422);
  });

  it('bring an EventSource what it missed while the gateway was away', async (t) => {
    const { owner, rooms } = sharedRooms();
    const [job] = jobsOf('restart');
    const first = await context.another(t);
    for (const { path } of rooms) {
      const source = new EventSource(`${first.url}${path}`);
      t.after(() => source.close());
      source.seen = new Collector();
      source.addEventListener('job:update', ({ data, lastEventId }) =>
        source.seen.push({ id: lastEventId, seq: JSON.parse(data).seq }),
      );
      rooms.find((room) => room.path === path).source = source;
      await eventually(() => source.readyState === EventSource.OPEN, 'the stream');
    }
    const published = [await first.api.update(job, { status: 'before', ...owner })];
    for (const { source } of rooms) await source.seen.until((items) => items.length === 1, 'the first event');

    assert.equal(await first.stop(), 0, first.stderr());
    const second = await first.again();
    for (const status of ['one', 'two', 'three']) published.push(await second.api.update(job, { status }));
    for (const { source, room } of rooms) {
      await source.seen.until((items) => items.length >= 4, `what was missed in ${room}`, 20_000);
      assert.deepEqual(sequenceNumbers(source.seen.items), sequenceNumbers(published), room);
      assertRising(source.seen.items.map(({ id }) => id));
    }
  });

  it('come to curl, which goes on by the last id', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('curl');
    const stayed = await open(t, rooms[0].path);
    const published = await publishByTurns(jobs, owner, 5);
    await stayed.through(...named(published.at(-1)));
    const { id } = broughtOf(stayed, jobs)[1];
    const url = `${context.gateway.url}${rooms[0].path}`;
    const { stdout } = await curl(url, '--max-time', '2', '--header', `Last-Event-ID: ${id}`);
    assert.deepEqual(dataOf(stdout).map(named), published.slice(2).map(named));
    assert.deepEqual([...stdout.matchAll(/^id: (\S+)$/gm)].map(([, found]) => found), broughtOf(stayed, jobs).slice(2).map((one) => one.id));
  });

  it('refuse a since of the wrong form, and say what would be right', async () => {
    for (const path of ['/api/users/anna/events', '/api/tenants/acme/events', '/api/events']) {
      for (const since of ['x', '-1', '1-', '1-2-3', 'yesterday', '1.5']) {
        const answer = await api.get(`${path}?since=${since}`);
        assertProblem(answer, 422, { mention: 'since' });
        assert.match(answer.json.detail, /position|RFC 3339|milliseconds/, answer.text);
      }
    }
  });
});

describeEachStoreAndCluster(
  'streams of shared rooms over short histories',
  (context) => {
    const { api } = context;

    it('name what is gone in its place, with an id', async (t) => {
      const { owner, rooms } = sharedRooms();
      const [busy, calm] = [uniqueId('busy'), uniqueId('calm')];
      const published = [];
      for (const jobId of [calm, busy, calm, busy, busy, busy]) {
        published.push(await api.update(jobId, { status: 'step', ...owner }));
      }
      const expected = published.map(({ jobId, seq }, at) => (at === 1 ? { jobId, from: seq, to: seq } : { jobId, seq }));
      for (const { path } of rooms) {
        const late = await openStream(t, context.gateway, `${path}?since=${Date.parse(published[0].timestamp)}`);
        await late.through(...named(published.at(-1)));
        const brought = broughtOf(late, [busy, calm]);
        assert.deepEqual(
          brought.map(({ event, jobId, from, to, seq }) => (event === 'job:gap' ? { jobId, from, to } : { jobId, seq })),
          expected,
        );
        assertRising(brought.map(({ id }) => id));
        const after = await openStream(t, context.gateway, path, { 'last-event-id': brought[1].id });
        await after.through(...named(published.at(-1)));
        assert.deepEqual(broughtOf(after, [busy, calm]), brought.slice(2));
        for (const stream of [late, after]) stream.close();
      }
    });
  },
  { env: { JOBCAST_HISTORY__MAX_EVENTS: '3' } },
);

describeEachStoreAndCluster('streams of a job until it is finished', (context) => {
  const { api } = context;
  const streamOf = (jobId, query = '') => `/api/jobs/${jobId}/events?until=finished${query}`;
  const open = (t, path, headers) => openStream(t, context.gateway, path, headers);
  const ended = (stream) => inTime(stream.closed, 'the end of the stream');

  for (const [ending, end] of Object.entries({
    completion: (jobId) => api.completed(jobId, { result: 42 }),
    error: (jobId) => api.error(jobId, 'disk full'),
  })) {
    it(`end with its ${ending}`, async (t) => {
      const jobId = uniqueId('ends');
      const stream = await open(t, streamOf(jobId));
      const published = [await api.update(jobId), await api.progress(jobId, 50), await end(jobId)];
      await ended(stream);
      const events = stream.events.items.map(({ data }) => JSON.parse(data));
      assert.deepEqual(sequenceNumbers(events), sequenceNumbers(published));
    });
  }

  it('end after the replay where it is finished already', async (t) => {
    const jobId = uniqueId('already');
    const published = [await api.update(jobId), await api.progress(jobId, 50), await api.completed(jobId)];
    const plain = await open(t, streamOf(jobId));
    await ended(plain);
    assert.deepEqual(plain.events.items, []);
    for (const [query, headers, from] of [
      ['&since=0', {}, 0],
      [`&since=${published[0].seq}`, {}, 1],
      ['', { 'last-event-id': String(published[1].seq) }, 2],
      ['', { 'last-event-id': String(published[2].seq) }, 3],
    ]) {
      const stream = await open(t, streamOf(jobId, query), headers);
      await ended(stream);
      const events = stream.events.items.map(({ data }) => JSON.parse(data));
      assert.deepEqual(sequenceNumbers(events), sequenceNumbers(published.slice(from)), query);
    }
  });

  it('go on where it was finished and is open again', async (t) => {
    const jobId = uniqueId('reopened');
    const published = [await api.update(jobId), await api.completed(jobId), await api.update(jobId, { status: 'again' })];
    const stream = await open(t, streamOf(jobId, `&since=${published[1].seq}`));
    await stream.through(jobId, published[2].seq);
    published.push(await api.progress(jobId, 10), await api.error(jobId, 'disk full'));
    await ended(stream);
    const events = stream.events.items.map(({ data }) => JSON.parse(data));
    assert.deepEqual(sequenceNumbers(events), sequenceNumbers(published.slice(2)));
  });

  it('let a script wait with curl', async () => {
    const jobId = uniqueId('script');
    await api.update(jobId);
    const waiting = curl(`${context.gateway.url}${streamOf(jobId, '&since=0')}`);
    await eventually(async () => (await api.roomSize(`job:${jobId}`)) === 1, 'curl to be there');
    await api.progress(jobId, 50);
    await api.completed(jobId, { result: 'done' });
    const { code, stdout } = await waiting;
    assert.equal(code, 0, 'the stream ended in good order');
    assert.equal(dataOf(stdout).length, 3);
    assert.equal(dataOf(stdout).at(-1).result, 'done');
  });

  it('and nothing else', async () => {
    for (const until of ['', 'completed', 'FINISHED', '5']) {
      assertProblem(await api.get(`/api/jobs/x/events?until=${until}`), 422, { mention: 'until' });
    }
  });
});
