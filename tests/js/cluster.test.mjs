// A Redis Cluster under two gateways: what spans several servers, and what it leaves on them.
//
// One gateway knows all servers, the other a single one. Suites of single jobs run on a cluster elsewhere
// (`describeEachStoreAndCluster`).

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  assertProblem,
  connect,
  eventually,
  httpClient,
  NDJSON_TYPE,
  openStream,
  sequenceNumbers,
  timeAfter,
  uniqueId,
} from './support/clients.mjs';
import { startCluster } from './support/cluster.mjs';
import { startGateway } from './support/gateway.mjs';

/** So many jobs that no server is without one. */
const JOBS = 30;

const key = (value) => ({ 'idempotency-key': value });
const latestOf = (events) => events.map(({ jobId, seq }) => [jobId, seq]);
const byId = (one, other) => one[0].localeCompare(other[0]);

describe('a Redis Cluster', () => {
  let cluster;
  let gateways;
  let near;
  let far;

  before(async () => {
    cluster = await startCluster();
    const one = { JOBCAST_STORE__BACKEND: 'redis', JOBCAST_REDIS__URL: cluster.urls[1] };
    gateways = await Promise.all([startGateway({ store: { redisUrl: cluster.url } }), startGateway({ env: one })]);
    [near, far] = gateways.map(({ url }) => httpClient(url));
  });
  after(async () => {
    for (const gateway of gateways ?? []) assert.equal(await gateway.stop(), 0, gateway.stderr());
    await cluster?.stop();
  });

  const jobs = (name) => Array.from({ length: JOBS }, () => uniqueId(name));
  const both = (index) => (index % 2 ? near : far);

  /** Every kind of event for each job, through both gateways by turns: what was answered, by job. */
  async function publishEveryKind(jobIds, owner = {}) {
    const publish = async (jobId, index) => [
      await both(index).update(jobId, { status: 'queued', data: { index }, ...owner }),
      await both(index + 1).progress(jobId, 50),
      index % 3 ? await both(index).completed(jobId, { result: index }) : await both(index).error(jobId, 'disk full'),
      await both(index + 1).update(jobId, { status: 'retrying' }),
    ];
    const answers = await Promise.all(jobIds.map(publish));
    return new Map(jobIds.map((jobId, index) => [jobId, answers[index]]));
  }

  const assertConsecutive = (events) => {
    const numbers = sequenceNumbers(events);
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => numbers[0] + index),
    );
  };

  describe('holds jobs on all its servers', () => {
    const [userId, tenantId] = [uniqueId('anna'), uniqueId('acme')];
    let published;

    before(async () => {
      published = await publishEveryKind(jobs('kind'), { userId, tenantId });
    });

    it('each of them some', async () => {
      const held = await cluster.onEach('KEYS', 'job-history:kind-*');
      assert.equal(held.flat().length, JOBS);
      for (const keys of held) assert.ok(keys.length > 0, JSON.stringify(held));
    });

    it('with their histories, as either gateway tells them', async () => {
      for (const [index, [jobId, answers]] of [...published].entries()) {
        const events = await near.history(jobId);
        assertConsecutive(answers);
        assert.deepEqual(sequenceNumbers(events), sequenceNumbers(answers));
        assert.deepEqual(
          events.map(({ event, status }) => [event, status]),
          [
            ['job:update', 'queued'],
            ['job:progress', 'in_progress'],
            index % 3 ? ['job:completed', 'completed'] : ['job:error', 'failed'],
            ['job:update', 'retrying'],
          ],
        );
        for (const event of events) assert.deepEqual([event.userId, event.tenantId], [userId, tenantId]);
        assert.deepEqual(await far.history(jobId), events);
        assert.deepEqual(await far.history(jobId, `?since=${answers[1].seq}`), events.slice(2));
        assert.deepEqual(await far.history(jobId, `?since=${answers[0].seq}&limit=2`), events.slice(1, 3));
        assert.deepEqual(await far.history(jobId, '?limit=1'), events.slice(-1));
        assert.deepEqual((await far.get(`/api/jobs/${jobId}`)).json, events.at(-1));
      }
    });

    for (const [room, query] of Object.entries({
      'of a user': `userId=${userId}&`,
      'of a tenant': `tenantId=${tenantId}&`,
      'of all': '',
    })) {
      it(`and lists the newest of each, ${room}`, async () => {
        for (const api of [near, far]) {
          const { json } = await api.get(`/api/jobs?${query}limit=100`);
          const newest = json.jobs.filter(({ jobId }) => published.has(jobId));
          assert.deepEqual(
            latestOf(newest).sort(byId),
            [...published].map(([jobId, answers]) => [jobId, answers.at(-1).seq]).sort(byId),
          );
          const times = json.jobs.map(({ timestamp }) => timestamp);
          assert.deepEqual(times, times.toSorted().reverse());
          assert.deepEqual((await api.get(`/api/jobs?${query}limit=3`)).json.jobs, json.jobs.slice(0, 3));
        }
      });
    }

    it('and acknowledges the newest of each to who subscribes', async (t) => {
      const watcher = await connect(t, gateways[1]);
      const { latest } = await watcher.subscribe({ userId });
      assert.equal(latest.length, JOBS);
      for (const { jobId, seq } of latest) assert.equal(seq, published.get(jobId).at(-1).seq);
      const [jobId, answers] = [...published][0];
      assert.equal((await watcher.subscribe({ jobId })).latest.seq, answers.at(-1).seq);
      const asked = await watcher.ask('history:jobs', { jobId, limit: 2 });
      assert.deepEqual(sequenceNumbers(asked.events), sequenceNumbers(answers.slice(-2)));
    });
  });

  describe('takes a batch over many servers', () => {
    for (const [form, post] of Object.entries({
      'as an array': (events) => near.post('/api/events', events),
      'as lines': (events) =>
        far.post('/api/events', events.map((event) => JSON.stringify(event)).join('\n'), NDJSON_TYPE),
    })) {
      it(`${form}, each event on its own`, async () => {
        const jobIds = jobs('batch');
        const rounds = [1, 2, 3].flatMap((round) =>
          jobIds.map((jobId) => ({ event: 'job:progress', jobId, progress: round, id: `${round}`, userId: 'anna' })),
        );
        const bad = [
          { event: 'job:progress', jobId: jobIds[0], progress: 101 },
          { event: 'job:update', jobId: jobIds[1], status: 'x', userId: 'mallory' },
          { event: 'job:progress', jobId: jobIds[2], progress: 9, id: '1' },
        ];
        const again = { event: 'job:progress', jobId: jobIds[3], progress: 2, id: '2', userId: 'anna' };
        const response = await post([...rounds, ...bad, again]);
        assert.equal(response.status, 200, response.text);
        const { results } = response.json;
        assert.deepEqual(
          results.slice(0, -4).map(({ jobId, error }) => [jobId, error]),
          rounds.map(({ jobId }) => [jobId, undefined]),
        );
        assert.deepEqual(
          results.slice(-4, -1).map(({ error }) => error?.code),
          ['invalid_payload', 'owner_mismatch', 'idempotency_conflict'],
        );
        assert.deepEqual(results.at(-1), results[JOBS + 3]);
        for (const [index, jobId] of jobIds.entries()) {
          const answers = [0, 1, 2].map((round) => results[round * JOBS + index]);
          assertConsecutive(answers);
          assert.deepEqual(sequenceNumbers(await both(index).history(jobId)), sequenceNumbers(answers));
        }
        // The same batch again is answered as before, and changes nothing.
        assert.deepEqual((await post(rounds)).json.results, results.slice(0, rounds.length));
        for (const jobId of jobIds) assert.equal((await near.history(jobId)).length, 3);
      });
    }
  });

  it('remembers keys, owners and ends for either gateway', async () => {
    for (const jobId of jobs('state')) {
      const first = await near.update(jobId, { status: 'queued', userId: 'anna' }, key('k'));
      assert.deepEqual(await far.update(jobId, { status: 'queued', userId: 'anna' }, key('k')), first);
      const post = (kind, body, headers) => far.post(`/api/jobs/${jobId}/${kind}`, body, headers);
      assertProblem(await post('update', { status: 'other' }, key('k')), 422, { code: 'idempotency_conflict' });
      const theft = await post('update', { status: 'stolen', userId: 'mallory' });
      assertProblem(theft, 409, { code: 'owner_mismatch' });
      const end = await far.completed(jobId);
      const late = await near.post(`/api/jobs/${jobId}/progress`, { progress: 1 });
      assertProblem(late, 409, { code: 'job_finished' });
      assert.deepEqual(sequenceNumbers(await near.history(jobId)), [first.seq, end.seq]);
    }
  });

  describe('delivers what one gateway accepts to those of the other', () => {
    const [userId, tenantId] = [uniqueId('bert'), uniqueId('umbrella')];
    const rooms = { 'a user': { userId }, 'a tenant': { tenantId }, 'all jobs': {} };
    const assertAll = async (watcher, published, from = 0) => {
      for (const [jobId, answers] of published) {
        const events = await watcher.through(answers.at(-1));
        const ours = events.filter((event) => event.jobId === jobId);
        assert.deepEqual(sequenceNumbers(ours), sequenceNumbers(answers.slice(from)), jobId);
      }
    };

    it('live, in order, once', async (t) => {
      const jobIds = jobs('live');
      const watchers = [];
      for (const gateway of gateways) {
        for (const room of Object.values(rooms)) {
          const watcher = await connect(t, gateway);
          await watcher.subscribe(room);
          watchers.push(watcher);
        }
        const ofJobs = await connect(t, gateway);
        for (const jobId of jobIds) await ofJobs.subscribe({ jobId });
        // In several rooms of each job.
        await ofJobs.subscribe({ userId });
        watchers.push(ofJobs);
      }
      const published = await publishEveryKind(jobIds, { userId, tenantId });
      for (const watcher of watchers) await assertAll(watcher, published);
    });

    it('replayed since a number, the newest so many, and live after that', async (t) => {
      const published = await publishEveryKind(jobs('since'));
      const [since, replay] = [await connect(t, gateways[0]), await connect(t, gateways[1])];
      for (const [jobId, answers] of published) {
        const { recovered, replaying } = await since.subscribe({ jobId, since: answers[0].seq });
        assert.deepEqual({ recovered, replaying }, { recovered: true, replaying: 3 });
        assert.equal((await replay.subscribe({ jobId, replay: 2 })).replaying, 2);
      }
      for (const [jobId, answers] of published) answers.push(await near.progress(jobId, 99));
      await assertAll(since, published, 1);
      await assertAll(replay, published, 2);
    });

    for (const [room, subscription] of Object.entries(rooms)) {
      it(`replayed since a time, ${room}`, async (t) => {
        const jobIds = jobs('time');
        const early = await near.update(jobIds[0], { status: 'early', userId, tenantId });
        const since = await timeAfter(early.timestamp);
        const published = await publishEveryKind(jobIds, { userId, tenantId });
        const watcher = await connect(t, gateways[1]);
        const { recovered, replaying } = await watcher.subscribe({ ...subscription, since });
        assert.deepEqual({ recovered, replaying }, { recovered: true, replaying: 4 * JOBS });
        for (const [jobId, answers] of published) answers.push(await near.progress(jobId, 99));
        await assertAll(watcher, published);
      });
    }

    it('over Server-Sent Events, resumed by Last-Event-ID', async (t) => {
      const jobIds = jobs('sse');
      const published = await publishEveryKind(jobIds, { userId });
      const [first] = [...published.values()].map((answers) => answers[0]);
      const open = (path, id) => openStream(t, gateways[1], path, id ? { 'last-event-id': String(id) } : {});
      const ofUser = await open(`/api/users/${userId}/events`, Date.parse(first.timestamp) - 1);
      const ofAll = await open('/api/events', Date.parse(first.timestamp) - 1);
      for (const [jobId, answers] of [...published].slice(0, 6)) {
        const stream = await open(`/api/jobs/${jobId}/events`, answers[1].seq);
        answers.push(await near.progress(jobId, 99));
        const events = await stream.through(jobId, answers.at(-1).seq);
        assert.deepEqual(sequenceNumbers(events), sequenceNumbers(answers.slice(2)));
        stream.close();
      }
      const from = first.timestamp;
      for (const stream of [ofUser, ofAll]) {
        for (const [jobId, answers] of published) {
          const events = await stream.through(jobId, answers.at(-1).seq);
          const ours = sequenceNumbers(events.filter((event) => event.jobId === jobId));
          const due = answers.filter(({ timestamp }) => timestamp >= from);
          assert.deepEqual(ours.slice(-due.length), sequenceNumbers(due), jobId);
        }
      }
    });

    it('and broadcasts, and what is emitted to a user', async (t) => {
      const watchers = [];
      for (const gateway of gateways) {
        const watcher = await connect(t, gateway);
        await watcher.subscribe({ userId });
        watchers.push(watcher);
      }
      const stranger = await connect(t, gateways[0]);
      for (const [from, api] of [near, far].entries()) {
        const [broadcast, emit] = [uniqueId('broadcast'), uniqueId('emit')];
        assert.equal((await api.post(`/api/users/${userId}/emit`, { event: emit, data: from })).status, 200);
        assert.equal((await api.post('/api/broadcast', { event: broadcast, data: from })).status, 200);
        for (const watcher of watchers) {
          assert.equal(await watcher.next(broadcast), from);
          assert.equal(await watcher.next(emit), from);
        }
        await stranger.next(broadcast);
        assert.equal(stranger.log.items.filter(({ name }) => name === emit).length, 0);
      }
      for (const watcher of watchers) assert.equal(watcher.log.items.length, 1 + 4);
    });
  });

  it('knows the clients and rooms of both gateways', async (t) => {
    const [ids, room] = [Array.from({ length: 7 }, () => uniqueId('client')), uniqueId('room')];
    const watchers = [];
    for (const [index, clientId] of ids.entries()) {
      const watcher = await connect(t, gateways[index % 2], { auth: { clientId } });
      await watcher.subscribe({ jobId: room });
      watchers.push(watcher);
    }
    await openStream(t, gateways[1], `/api/jobs/${room}/events`);
    for (const api of [near, far]) {
      await eventually(async () => (await api.roomSize(`job:${room}`)) === 8, 'all sessions to be counted');
      assert.equal(await api.roomSize(`job:${uniqueId('nobody')}`), 0);
      const read = [];
      for (let query = ''; ; ) {
        const { json } = await api.get(`/api/clients?limit=2${query}`);
        read.push(...json.clients);
        if (!json.cursor) break;
        query = `&cursor=${encodeURIComponent(json.cursor)}`;
      }
      const found = read.filter(({ clientId }) => ids.includes(clientId));
      assert.deepEqual(found.map(({ clientId }) => clientId).sort(), ids.toSorted());
      assert.equal(new Set(found.map(({ node }) => node)).size, 2);
      const { json } = await api.get(`/api/clients/${ids[0]}`);
      assert.deepEqual([json.clientId, json.subscriptions], [ids[0], [`job:${room}`]]);
    }
    for (const clientId of ids) {
      assert.ok((await cluster.client.hget(`client:${clientId}`, 'node')).length > 0);
      assert.deepEqual(await cluster.client.smembers(`subscriptions:${clientId}`), [`job:${room}`]);
    }
    for (const watcher of watchers) watcher.close();
    const traces = () => Promise.all(['client:client-*', 'subscriptions:client-*'].map(cluster.keys));
    await eventually(async () => (await traces()).flat().length === 0, 'no trace of the clients');
    await eventually(async () => (await far.roomSize(`job:${room}`)) === 1, 'the stream alone in the room');
    assert.equal((await near.get(`/api/clients/${ids[0]}`)).status, 404);
  });

  it('makes both gateways ready', async () => {
    for (const api of [near, far]) assert.equal((await api.get('/readyz')).status, 200);
  });

  it('is left nothing that lasts for ever, and nothing of unknown names', async (t) => {
    const watcher = await connect(t, gateways[0], { auth: { clientId: uniqueId('lasting') } });
    for (const room of [{}, { userId: 'anna' }, { jobId: 'j' }, { tenantId: 'acme' }]) await watcher.subscribe(room);
    await near.update(uniqueId('lasting'), { status: 'queued', userId: 'anna', tenantId: 'acme' }, key('k'));
    const left = [];
    for (const { client } of cluster.servers) {
      for (const name of await client.keys('*')) {
        if ((await client.ttl(name)) === -1 || !/^(client:|subscriptions:|job-history:|jobcast:)/.test(name)) {
          left.push(name);
        }
      }
    }
    assert.deepEqual(left, []);
  });

  it('keeps gateways with another prefix apart', async (t) => {
    const other = await startGateway({ store: { redisUrl: cluster.urls[2], keyPrefix: 'other:' } });
    t.after(() => other.kill());
    const its = httpClient(other.url);
    const [mine, theirs] = [await connect(t, gateways[0]), await connect(t, other)];
    for (const watcher of [mine, theirs]) await watcher.subscribe({});
    for (const jobId of jobs('prefix')) {
      await near.update(jobId, { status: 'mine' });
      assert.deepEqual(await its.history(jobId), []);
      const published = await its.update(jobId, { status: 'theirs' });
      assert.deepEqual(sequenceNumbers(await theirs.through(published)).slice(-1), [published.seq]);
      assert.equal(await cluster.client.llen(`other:job-history:${jobId}`), 1);
      assert.equal(await cluster.client.llen(`job-history:${jobId}`), 1);
    }
    await its.post('/api/broadcast', { event: 'theirs-only', data: 1 });
    await theirs.next('theirs-only');
    await near.post('/api/broadcast', { event: 'mine-only', data: 1 });
    await mine.next('mine-only');
    for (const [watcher, status] of [
      [mine, 'mine'],
      [theirs, 'theirs'],
    ]) {
      const seen = watcher.jobEvents().filter(({ jobId }) => jobId.startsWith('prefix-'));
      assert.deepEqual([...new Set(seen.map((event) => event.status))], [status]);
      assert.equal(seen.length, JOBS);
      assert.deepEqual(
        watcher.log.items.map(({ name }) => name).filter((name) => name.endsWith('-only')),
        [`${status}-only`],
      );
    }
  });
});
