// What one user, one publisher, one address and all jobs together may have: each bound refuses what is beyond it, says which
// key of the configuration it is, counts it, and lets others be.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startGateway } from './support/gateway.mjs';
import { assertProblem, httpClient, NDJSON_TYPE, send, updatesOf } from './support/http.mjs';
import { metricsOf } from './support/metrics.mjs';
import { assertRefused, connect } from './support/socketio.mjs';
import { openStream } from './support/sse.mjs';
import { apiKey, authSettings, bearer, token } from './support/tokens.mjs';
import { eventually, uniqueId } from './support/waiting.mjs';

const worker = apiKey('worker');
const other = apiKey('other');

/** A gateway that asks for tokens, with bounds: `{ROOMS_PER_USER: 2}`. */
async function start(t, bounds, settings = {}) {
  const limits = Object.entries(bounds).map(([key, value]) => [`JOBCAST_LIMITS__${key}`, String(value)]);
  const env = { ...authSettings({ keys: [worker, other] }), ...Object.fromEntries(limits), ...settings };
  const gateway = await startGateway({ env });
  t.after(() => gateway.stop());
  return { gateway, api: httpClient(gateway.url) };
}

const as = (claims) => bearer(token(claims));
const ada = { sub: 'ada' };

const connectAs = (t, gateway, claims, transports = ['websocket']) =>
  connect(t, gateway, { auth: { token: token(claims) }, transports });

async function limited(gateway, limit) {
  return (await metricsOf(gateway))[`jobcast_limited_total{limit="${limit}"}`] ?? 0;
}

function assertLimited(answer, key) {
  assertProblem(answer, 503, { code: 'limit_reached', mention: key });
  assert.equal(answer.headers['retry-after'], '1');
}

/** Opens a stream as soon as there is a place for it. */
async function streamOpens(t, gateway, path, headers) {
  await eventually(async () => {
    try {
      await openStream(t, gateway, path, headers);
      return true;
    } catch {
      return false;
    }
  }, `a stream of ${path}`);
}

describe('connections of a user', () => {
  it('are counted over all edges, and given back', async (t) => {
    const { gateway, api } = await start(t, { CONNECTIONS_PER_USER: 3 });
    const stream = '/api/users/ada/events';
    const socket = await connectAs(t, gateway, ada);
    await connectAs(t, gateway, ada, ['polling']);
    const open = await openStream(t, gateway, stream, as(ada));
    for (const transport of ['websocket', 'polling']) {
      await assert.rejects(
        connectAs(t, gateway, ada, [transport]),
        /^Error: limit_reached: the user ada .*limits\.connections_per_user/,
      );
    }
    assertLimited(await api.get(stream, as(ada)), 'limits.connections_per_user');
    assert.equal(await limited(gateway, 'connections_per_user'), 3);

    // Others are not concerned, and neither is what is no connection that stays.
    await connectAs(t, gateway, { sub: 'eve' });
    assert.equal((await api.get('/api/jobs/none/history', as(ada))).status, 200);
    socket.close();
    await streamOpens(t, gateway, stream, as(ada));
    open.close();
    await eventually(() => connectAs(t, gateway, ada).then(() => true, () => false), 'a place for a socket');
  });

  it('have no bound without a user', async (t) => {
    const { gateway } = await start(t, { CONNECTIONS_PER_USER: 1 });
    for (let count = 0; count < 3; count += 1) {
      await connectAs(t, gateway, { tenantId: 't' });
      await openStream(t, gateway, '/api/events', bearer(worker.key));
    }
  });
});

describe('rooms of a user', () => {
  it('are counted over all of the clients', async (t) => {
    const { gateway, api } = await start(t, { ROOMS_PER_USER: 3 });
    const first = await connectAs(t, gateway, ada);
    const second = await connectAs(t, gateway, ada);
    await first.subscribe({ userId: 'ada' });
    await first.subscribe({ jobId: 'a' });
    await second.subscribe({ jobId: 'a' });
    const refused = await second.ask('subscribe:jobs', { jobId: 'b' });
    assertRefused(refused, 'limit_reached');
    assert.match(refused.error.message, /limits\.rooms_per_user/);
    assertLimited(await api.get('/api/jobs/b/events', as(ada)), 'limits.rooms_per_user');
    assert.equal(await limited(gateway, 'rooms_per_user'), 2);

    // Again where it is already, and others.
    await second.subscribe({ jobId: 'a' });
    await (await connectAs(t, gateway, { sub: 'eve' })).subscribe({ jobId: 'b' });

    await first.ask('unsubscribe:jobs', { jobId: 'a' });
    await second.subscribe({ jobId: 'b' });
    assertRefused(await first.ask('subscribe:jobs', { jobId: 'a' }), 'limit_reached');
    second.close();
    await eventually(
      async () => (await first.ask('subscribe:jobs', { jobId: 'a' })).success,
      'the rooms of the other client',
    );
  });

  it('are given back by a client that is put out of one', async (t) => {
    const { gateway, api } = await start(t, { ROOMS_PER_USER: 1 });
    const watcher = await connectAs(t, gateway, ada);
    await watcher.subscribe({ jobId: 'a' });
    assertRefused(await watcher.ask('subscribe:jobs', { jobId: 'b' }), 'limit_reached');
    await api.update('a', { status: 's', userId: 'eve' }, bearer(worker.key));
    assert.equal((await watcher.next('exception')).code, 'forbidden');
    await watcher.subscribe({ jobId: 'b' });
  });
});

describe('publishes a second', () => {
  const rate = 20;

  it('count events, whatever the call, for each key and user by itself', async (t) => {
    const { gateway, api } = await start(t, { PUBLISHES_PER_SECOND: rate });
    const key = bearer(worker.key);
    const batch = (job, count, headers = key) => api.post('/api/events', updatesOf(job, count), headers);
    assert.equal((await batch('a', rate)).status, 200);
    const refused = [
      await batch('b', rate),
      await api.post(
        '/api/events',
        updatesOf('b', rate).map((event) => JSON.stringify(event)).join('\n'),
        { ...key, ...NDJSON_TYPE },
      ),
    ];
    for (const answer of refused) {
      assertProblem(answer, 429, { code: 'rate_limited', mention: 'the key "worker"' });
      assert.match(answer.json.detail, /limits\.publishes_per_second/);
      assert.equal(answer.headers['retry-after'], '1');
    }
    assert.equal(await limited(gateway, 'publishes_per_second'), 2);
    assert.deepEqual((await api.get('/api/jobs/b/history', key)).json.events, []);

    // All others have theirs.
    const publisher = (sub) => as({ sub, scope: 'jobs:publish' });
    for (const headers of [bearer(other.key), publisher('ada'), publisher('eve')]) {
      assert.equal((await batch(uniqueId('job'), rate, headers)).status, 200);
    }
    await eventually(async () => (await batch('b', rate)).status === 200, 'the next second');
  });

  it('a batch that never fits is refused for good, and says so', async (t) => {
    const { api } = await start(t, { PUBLISHES_PER_SECOND: rate });
    const answer = await api.post('/api/events', updatesOf('a', rate + 1), bearer(worker.key));
    assertProblem(answer, 413, { code: 'payload_too_large', mention: `send at most ${rate} at once` });
    assert.equal((await api.post('/api/events', updatesOf('a', rate), bearer(worker.key))).status, 200);
  });

  it('single events and notices count as one', async (t) => {
    const { api } = await start(t, { PUBLISHES_PER_SECOND: 1 });
    const calls = {
      '/api/jobs/a/update': { status: 's' },
      '/api/broadcast': { event: 'news' },
      '/api/users/ada/emit': { event: 'news' },
    };
    for (const [path, body] of Object.entries(calls)) {
      const call = () => api.post(path, body, bearer(worker.key));
      await eventually(async () => (await call()).status === 200, `${path} is accepted`);
      const statuses = await Promise.all([call(), call(), call()].map(async (answer) => (await answer).status));
      assert.ok(statuses.includes(429), `${path}: ${statuses}`);
    }
  });

  it('have no bound where nobody is asked', async (t) => {
    const gateway = await startGateway({ env: { JOBCAST_LIMITS__PUBLISHES_PER_SECOND: '1' } });
    t.after(() => gateway.stop());
    await httpClient(gateway.url).publishAll(updatesOf('a', 100));
  });
});

describe('streams of an address', () => {
  const all = '/api/events';
  const key = bearer(worker.key);

  it('are bounded without a user, by address or IPv6 network', async (t) => {
    const { gateway, api } = await start(
      t,
      { STREAMS_PER_ADDRESS: 2 },
      { JOBCAST_SERVER__TRUSTED_PROXIES: '127.0.0.1' },
    );
    const from = (address, headers = key) => ({ ...headers, 'x-forwarded-for': address });
    for (const [one, two, three, next] of [
      ['203.0.113.1', '203.0.113.1', '::ffff:203.0.113.1', '203.0.113.2'],
      ['2001:db8:0:1::1', '2001:db8:0:1:ffff::2', '2001:db8:0:1::3', '2001:db8:0:2::3'],
    ]) {
      const first = await openStream(t, gateway, all, from(one));
      await openStream(t, gateway, all, from(two));
      assertLimited(await api.get(all, from(three)), 'limits.streams_per_address');
      await openStream(t, gateway, all, from(next));
      // A user's are counted by the user.
      await openStream(t, gateway, '/api/users/ada/events', from(three, as(ada)));
      first.close();
      await streamOpens(t, gateway, all, from(three));
    }
    assert.equal(await limited(gateway, 'streams_per_address') >= 2, true);
    // A proxy that names nobody has many clients.
    for (let count = 0; count < 4; count += 1) await openStream(t, gateway, all, key);
  });

  it('of this machine have a bound only where one is set', async (t) => {
    const free = await start(t, {});
    for (let count = 0; count < 101; count += 1) await openStream(t, free.gateway, all, key);
    const bound = await start(t, { STREAMS_PER_ADDRESS: 1 });
    await openStream(t, bound.gateway, all, key);
    assertLimited(await bound.api.get(all, key), 'limits.streams_per_address');
  });

  it('are a hundred where nothing is set', async (t) => {
    const { gateway, api } = await start(t, {}, { JOBCAST_SERVER__TRUSTED_PROXIES: '127.0.0.1' });
    const headers = { ...key, 'x-forwarded-for': '203.0.113.1' };
    for (let count = 0; count < 100; count += 1) await openStream(t, gateway, all, headers);
    assertLimited(await api.get(all, headers), 'limits.streams_per_address');
  });
});

describe('jobs kept', () => {
  for (const store of ['memory', 'embedded']) {
    it(`are bounded in the store ${store}; those that are kept go on`, async (t) => {
      let gateway = await startGateway({ store, env: { JOBCAST_LIMITS__JOBS: '2' } });
      t.after(() => gateway.stop());
      const api = httpClient(() => gateway.url);
      await api.update('a');
      const { json } = await api.post('/api/events', ['b', 'c', 'a'].flatMap((job) => updatesOf(job, 1)));
      assert.equal(json.failed, 1);
      assert.deepEqual([json.results[1].index, json.results[1].error.code], [1, 'limit_reached']);
      if (store === 'embedded') {
        assert.equal(await gateway.stop(), 0);
        gateway = await startGateway({ store, path: gateway.path, env: { JOBCAST_LIMITS__JOBS: '2' } });
      }
      assertLimited(await api.post('/api/jobs/c/update', { status: 's' }), 'limits.jobs');
      assertLimited(await api.post('/api/events', updatesOf('c', 3)), 'limits.jobs');
      assert.equal(await limited(gateway, 'jobs') >= 4, true);
      await api.completed('b');
      await api.update('b');
      assert.deepEqual(await api.history('c'), []);
    });
  }

  it('are Redis\' own business', async () => {
    const starting = startGateway({ store: { redisUrl: 'redis://127.0.0.1:1' }, env: { JOBCAST_LIMITS__JOBS: '2' } });
    await assert.rejects(starting, /JOBCAST_LIMITS__JOBS: limits\.jobs: bounds the embedded store alone.*maxmemory/s);
  });
});
