// What other programs find in Redis, and what the gateway makes of what they left there.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  assertProblem,
  clockPast,
  connect,
  eventually,
  httpClient,
  NDJSON_TYPE,
  openStream,
  sequenceNumbers,
  uniqueId,
  updatesOf,
} from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { metricsOf } from './support/metrics.mjs';
import { startRedis } from './support/redis.mjs';

const DAY_SECONDS = 24 * 60 * 60;

/** Uses every part of the gateway that writes to Redis. */
async function useEverything(t, gateway, name) {
  const api = httpClient(gateway.url);
  const [jobId, userId, tenantId] = ['job', 'user', 'tenant'].map((kind) => uniqueId(`${name}-${kind}`));
  const watcher = await connect(t, gateway, { auth: { clientId: uniqueId(name) } });
  for (const payload of [{ jobId }, { userId }, { tenantId }, {}]) await watcher.subscribe(payload);
  await openStream(t, gateway, `/api/users/${userId}/events`);
  await api.update(jobId, { status: 'queued', userId, tenantId }, { 'idempotency-key': 'k' });
  await api.post('/api/events', JSON.stringify({ event: 'job:progress', jobId, progress: 5, id: 'b' }), NDJSON_TYPE);
  await api.post('/api/broadcast', { event: 'greeting', data: 1 });
  await api.post(`/api/users/${userId}/emit`, { event: 'greeting', data: 1 });
  const last = await api.completed(jobId);
  await watcher.through(last);
  return { watcher, jobId, userId, last };
}

describe('Redis', () => {
  let redis;
  let gateway;
  let api;

  before(async () => {
    redis = await startRedis();
    gateway = await startGateway({ store: { redisUrl: redis.url } });
    api = httpClient(gateway.url);
  });
  after(async () => {
    assert.equal(await gateway.stop(), 0, gateway.stderr());
    await redis.stop();
  });

  const list = (jobId) => redis.client.lrange(`job-history:${jobId}`, 0, -1);

  it('has the events of a job newest first, as clients get them', async () => {
    const jobId = uniqueId('list');
    await api.update(jobId, '{"status":"queued","data":{"n":9007199254740993,"m":1.000}}');
    await api.progress(jobId, 50);
    assert.equal(await redis.client.type(`job-history:${jobId}`), 'list');
    const stored = await list(jobId);
    const history = await api.get(`/api/jobs/${jobId}/history`);
    assert.deepEqual(
      stored.map((text) => JSON.parse(text)),
      history.json.events.toReversed(),
    );
    for (const text of stored) assert.ok(history.text.includes(text), text);
    assert.equal((await api.get(`/api/jobs/${jobId}`)).text, stored[0]);
  });

  it('has the newest 100 of them, for 24 hours after the last', async () => {
    const jobId = uniqueId('trimmed');
    const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 105)));
    const stored = (await list(jobId)).map((text) => JSON.parse(text).seq);
    assert.deepEqual(stored, all.slice(5).toReversed());
    await redis.client.expire(`job-history:${jobId}`, 1000);
    await api.progress(jobId, 1);
    const seconds = await redis.client.ttl(`job-history:${jobId}`);
    assert.ok(seconds > DAY_SECONDS - 60 && seconds <= DAY_SECONDS, `${seconds} s`);
  });

  it('has a client while it is connected, and its rooms', async (t) => {
    const clientId = uniqueId('client');
    const [hash, set] = [`client:${clientId}`, `subscriptions:${clientId}`];
    const watcher = await connect(t, gateway, { auth: { clientId }, extraHeaders: { 'user-agent': 'watcher/1.0' } });
    await watcher.subscribe({ jobId: 'j' });
    await watcher.subscribe({ userId: 'anna' });
    await eventually(async () => (await redis.client.scard(set)) === 2, 'both rooms');
    assert.equal(await redis.client.type(hash), 'hash');
    assert.equal(await redis.client.type(set), 'set');
    const record = await redis.client.hgetall(hash);
    for (const field of ['connectedAt', 'address', 'userAgent', 'transport', 'node']) {
      assert.ok(record[field], `${field} of ${JSON.stringify(record)}`);
    }
    assert.equal(record.userAgent, 'watcher/1.0');
    assert.equal(record.transport, 'websocket');
    assert.deepEqual((await redis.client.smembers(set)).sort(), ['job:j', 'user:anna']);
    for (const key of [hash, set]) {
      const seconds = await redis.client.ttl(key);
      assert.ok(seconds > 0 && seconds <= 120, `${key} outlives a crash by ${seconds} s`);
    }

    await watcher.ask('unsubscribe:jobs', { jobId: 'j' });
    await eventually(async () => (await redis.client.smembers(set)).join() === 'user:anna', 'one room');
    watcher.close();
    await eventually(async () => (await redis.client.exists(hash, set)) === 0, 'no trace of the client');
  });

  it('has the record of the newest connection under a name', async (t) => {
    const clientId = uniqueId('taken-over');
    const older = await connect(t, gateway, { auth: { clientId } });
    const room = uniqueId('older');
    await older.subscribe({ jobId: room });
    const newer = await connect(t, gateway, { auth: { clientId }, transports: ['polling'] });
    await newer.subscribe({ jobId: 'newer' });
    const transport = () => redis.client.hget(`client:${clientId}`, 'transport');
    const rooms = async () => (await redis.client.smembers(`subscriptions:${clientId}`)).join();
    await eventually(async () => (await transport()) === 'polling', 'the newer connection');
    older.close();
    await eventually(async () => (await api.roomSize(`job:${room}`)) === 0, 'the older one to be gone');
    await eventually(async () => (await rooms()) === 'job:newer', 'the rooms of the newer one');
    assert.equal(await transport(), 'polling');
    newer.close();
    await eventually(
      async () => (await redis.client.exists(`client:${clientId}`, `subscriptions:${clientId}`)) === 0,
      'no trace of the client',
    );
  });

  it('keeps nothing else but under jobcast:, and nothing for ever', async (t) => {
    await useEverything(t, gateway, 'expiry');
    const keys = await redis.client.keys('*');
    const ofOthers = /^(client:|subscriptions:|job-history:|jobcast:)/;
    assert.deepEqual(
      keys.filter((key) => !ofOthers.test(key)),
      [],
    );
    const lasting = [];
    for (const key of keys) if ((await redis.client.ttl(key)) === -1) lasting.push(key);
    assert.deepEqual(lasting, []);
  });

  describe('a list that another program wrote', () => {
    const foreign = [
      '{"event":"job:update","jobId":"f","status":"queued","n":9007199254740993}',
      '{"event":"job:progress","jobId":"f","progress":10,"own":true}',
    ];

    it('is served as it is, and does not stop publishing', async (t) => {
      const jobId = uniqueId('foreign');
      await redis.client.lpush(`job-history:${jobId}`, ...foreign);
      const served = await api.get(`/api/jobs/${jobId}/history`);
      assert.equal(served.status, 200, served.text);
      assert.deepEqual(
        served.json.events,
        foreign.map((text) => JSON.parse(text)),
      );
      for (const text of foreign) assert.ok(served.text.includes(text), served.text);

      const watcher = await connect(t, gateway);
      const { latest } = await watcher.subscribe({ jobId });
      assert.deepEqual(latest, JSON.parse(foreign[1]));
      const update = await api.update(jobId, { status: 'taken on' });
      const progress = await api.progress(jobId, 20);
      assert.equal(progress.seq, update.seq + 1);
      assert.deepEqual(sequenceNumbers(await watcher.through(progress)), [update.seq, progress.seq]);
      const events = await api.history(jobId);
      assert.deepEqual(
        events.map((event) => event.status ?? event.progress),
        ['queued', 10, 'taken on', 'in_progress'],
      );
    });

    it('may have grown between our own events', async () => {
      const jobId = uniqueId('mixed');
      const first = await api.update(jobId);
      await redis.client.lpush(`job-history:${jobId}`, foreign[1]);
      const second = await api.progress(jobId, 20);
      assert.equal(second.seq, first.seq + 1);
      assert.deepEqual(sequenceNumbers(await api.history(jobId)), [first.seq, undefined, second.seq]);
    });
  });

  it('keeps two gateways with different prefixes apart, keys and channels alike', async (t) => {
    const server = await startRedis();
    const prefixes = ['staging:', 'production:'];
    const gateways = [];
    for (const keyPrefix of prefixes) {
      gateways.push(await startGateway({ store: { redisUrl: server.url, keyPrefix } }));
    }
    t.after(async () => {
      for (const each of gateways) await each.kill();
      await server.stop();
    });
    const [staging, production] = gateways;
    const { jobId, userId } = await useEverything(t, staging, 'prefix');

    const bystander = await connect(t, production);
    for (const payload of [{ jobId }, { userId }, {}]) {
      const { latest } = await bystander.subscribe(payload);
      assert.deepEqual(latest ?? [], []);
    }
    const names = [
      ...(await server.client.keys('*')),
      ...(await server.client.pubsub('CHANNELS', '*')),
      ...(await server.client.call('PUBSUB', 'SHARDCHANNELS', '*')),
    ];
    assert.ok(names.includes(`staging:job-history:${jobId}`), names.join(' '));
    assert.deepEqual(
      names.filter((name) => !prefixes.some((prefix) => name.startsWith(prefix))),
      [],
    );

    assert.deepEqual(await httpClient(production.url).history(jobId), []);
    const theirs = await httpClient(staging.url).update(jobId, { status: 'again' });
    const witness = await connect(t, staging);
    await witness.subscribe({ jobId, since: theirs.seq - 1 });
    await witness.through(theirs);
    await httpClient(staging.url).post('/api/broadcast', { event: 'staging-only', data: 1 });
    await witness.next('staging-only');
    await httpClient(production.url).post('/api/broadcast', { event: 'production-only', data: 1 });
    await bystander.next('production-only');
    assert.deepEqual(
      bystander.log.items.map(({ name }) => name),
      ['ack', 'ack', 'ack', 'production-only'],
    );
  });

  it('joins two gateways on one server', async (t) => {
    const other = await startGateway({ store: { redisUrl: redis.url } });
    t.after(() => other.kill());
    const [jobId, userId] = [uniqueId('shared'), uniqueId('anna')];
    const clientId = uniqueId('far');
    const far = await connect(t, other, { auth: { clientId } });
    await far.subscribe({ jobId });
    await far.subscribe({ userId });
    const near = await connect(t, gateway);
    await near.subscribe({ jobId });

    const published = [await api.update(jobId, { status: 'queued', userId })];
    const otherApi = httpClient(other.url);
    for (let progress = 0; progress < 20; progress += 1) {
      published.push(await (progress % 2 ? api : otherApi).progress(jobId, progress));
    }
    for (const watcher of [near, far]) {
      assert.deepEqual(sequenceNumbers(await watcher.through(published.at(-1))), sequenceNumbers(published));
    }
    await eventually(async () => (await api.roomSize(`job:${jobId}`)) === 2, 'both sessions to be counted');
    assert.equal((await api.get(`/api/clients/${clientId}`)).json.clientId, clientId);
    const nodes = new Map((await api.get('/api/clients')).json.clients.map((record) => [record.clientId, record.node]));
    assert.ok(nodes.has(clientId) && nodes.has(near.socket.id), [...nodes.keys()].join(' '));
    assert.notEqual(nodes.get(clientId), nodes.get(near.socket.id));
    const greeting = uniqueId('greeting');
    await api.post('/api/broadcast', { event: greeting, data: 1 });
    await far.next(greeting);
    await near.next(greeting);
    const hello = uniqueId('hello');
    await api.post(`/api/users/${userId}/emit`, { event: hello, data: 2 });
    assert.equal(await far.next(hello), 2);
  });

  describe('numbers that a subscriber has seen are never given again', () => {
    const watched = async (t) => {
      const server = await startRedis();
      const gateways = [];
      for (let count = 0; count < 2; count += 1) {
        gateways.push(await startGateway({ store: { redisUrl: server.url } }));
      }
      t.after(async () => {
        for (const each of gateways) await each.kill();
        await server.stop();
      });
      const jobId = uniqueId('seen');
      const watcher = await connect(t, gateways[0]);
      await watcher.subscribe({ jobId });
      return { server, jobId, watcher, apis: gateways.map(({ url }) => httpClient(url)) };
    };

    it('and a job that begins anew below them, after a flush, is followed', async (t) => {
      const { server, jobId, watcher, apis } = await watched(t);
      // Numbers run ahead of the clock.
      const last = (await apis[0].publishAll(updatesOf(jobId, 1000))).at(-1);
      await watcher.through(last);
      await server.client.flushall();
      await apis[0].update(jobId, { status: 'after' });
      await watcher.log.find(({ payload }) => payload?.status === 'after', 'the first event of the new life');
    });

    for (const [where, publisher] of Object.entries({ 'the same gateway': 0, 'another gateway': 1 })) {
      it(`by ${where}, after a flush`, async (t) => {
        const { server, jobId, watcher, apis } = await watched(t);
        // Both have published to this job before.
        await apis[1].update(jobId);
        const last = await apis[0].update(jobId);
        await watcher.through(last);
        await clockPast(last.seq);
        await server.client.flushall();
        const next = await apis[publisher].update(jobId, { status: 'after' });
        assert.ok(next.seq > last.seq, `${next.seq} after ${last.seq}`);
        await watcher.through(next);
      });

      it(`by ${where}, after a crash that lost the end of history`, async (t) => {
        const { server, jobId, watcher, apis } = await watched(t);
        await apis[1].update(jobId);
        await server.client.save();
        const lost = await apis[0].publishAll(updatesOf(jobId, 3));
        await watcher.through(lost[2]);
        await server.kill();
        await server.restart();
        // The first publish after the server answers is accepted.
        const next = await apis[publisher].update(jobId, { status: 'after' });
        assert.ok(next.seq > lost[2].seq, `${next.seq} after ${lost[2].seq}`);
        await watcher.through(next);
      });
    }
  });

  it('is missed with a 503, and found again', async (t) => {
    const server = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
    const dependent = await startGateway({ store: { redisUrl: server.url } });
    t.after(async () => {
      await dependent.kill();
      await server.stop();
    });
    const its = httpClient(dependent.url);
    const jobId = uniqueId('outage');
    const watcher = await connect(t, dependent);
    await watcher.subscribe({ jobId });
    const before = await its.update(jobId);
    await watcher.through(before);

    await server.kill();
    const refused = await its.post(`/api/jobs/${jobId}/progress`, { progress: 1 }, { 'idempotency-key': 'k' });
    assertProblem(refused, 503, { code: 'unavailable' });
    assert.match(refused.headers['retry-after'], /^\d+$/);
    assertProblem(await its.get(`/api/jobs/${jobId}/history`), 503, { code: 'unavailable' });
    await eventually(async () => (await its.get('/readyz')).status === 503, 'the gateway to be unready');
    assert.equal((await its.get('/healthz')).status, 200);

    await server.restart();
    await eventually(async () => (await its.get('/readyz')).status === 200, 'the gateway to be ready', 30_000);
    const after = await its.progress(jobId, 1, { 'idempotency-key': 'k' });
    assert.ok(after.seq > before.seq, `${after.seq} after ${before.seq}`);
    assert.deepEqual(sequenceNumbers(await watcher.through(after)), [before.seq, after.seq]);
    // Numbers jump, and that is no loss.
    assert.deepEqual(
      watcher.log.items.filter(({ name }) => name === 'job:gap'),
      [],
    );
  });

  it('may pause for longer than any call waits: watchers of a busy job miss nothing', async (t) => {
    const server = await startRedis();
    const dependent = await startGateway({
      store: { redisUrl: server.url },
      env: { JOBCAST_HISTORY__MAX_EVENTS: '10000' },
    });
    t.after(async () => {
      await dependent.kill();
      await server.stop();
    });
    const its = httpClient(dependent.url);
    const jobId = uniqueId('pause');
    const watcher = await connect(t, dependent);
    await watcher.subscribe({ jobId });
    let stopped = false;
    /** Publishes one event until it is accepted. */
    const publish = async (key) => {
      for (;;) {
        const answer = await its.post(`/api/jobs/${jobId}/progress`, { progress: 1 }, { 'idempotency-key': key });
        if (answer.status === 200) return answer.json.seq;
        assertProblem(answer, 503, { code: 'unavailable' });
      }
    };
    const publishing = [1, 2, 3, 4].map(async (publisher) => {
      const accepted = [];
      while (!stopped) accepted.push(await publish(`${publisher}-${accepted.length}`));
      return accepted;
    });
    await watcher.log.find(({ name }) => name === 'job:progress', 'a first event');
    // It pauses everybody, this connection included: the next command is answered once it is over.
    await server.client.call('CLIENT', 'PAUSE', '8000', 'ALL');
    await server.client.ping();
    const next = await publish('after');
    stopped = true;
    const accepted = [next, ...(await Promise.all(publishing)).flat()].sort((one, other) => one - other);
    await watcher.through({ jobId, seq: accepted.at(-1) });
    assert.deepEqual(sequenceNumbers(watcher.jobEvents(jobId)), accepted);
    assert.deepEqual(
      watcher.log.items.filter(({ name }) => name === 'job:gap'),
      [],
    );
  });

  it('may take its time to load its data: that is one interruption', async (t) => {
    const slowly = ['--key-load-delay', '2000', '--loading-process-events-interval-bytes', '1024'];
    const server = await startRedis({ args: slowly });
    const dependent = await startGateway({ store: { redisUrl: server.url } });
    t.after(async () => {
      await dependent.kill();
      await server.stop();
    });
    const its = httpClient(dependent.url);
    const watcher = await connect(t, dependent);
    const jobs = Array.from({ length: 20 }, () => uniqueId('loading'));
    for (const jobId of jobs) await watcher.subscribe({ jobId });
    const filling = server.client.pipeline();
    for (let number = 0; number < 1500; number += 1) filling.set(`other:${number}`, 'x'.repeat(100));
    await filling.exec();
    await server.client.save();

    await server.kill();
    await server.restart();
    await eventually(async () => (await its.get('/readyz')).status === 200, 'the gateway to be ready', 30_000);
    for (const jobId of jobs) await watcher.through(await its.update(jobId));
    const { jobcast_feed_interruptions_total: interruptions } = await metricsOf(dependent);
    // One connection brings all channels, and the server is loading for three seconds.
    assert.ok(interruptions <= 2, `${interruptions} interruptions`);
  });
});
