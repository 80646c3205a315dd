// The life of a connection that has a token: it is told of its end, renewed in place, ends in time, and can be revoked.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { startCuttable } from './support/cuttable.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { startRedis } from './support/redis.mjs';
import { connect } from './support/socketio.mjs';
import { openStream } from './support/sse.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';
import { apiKey, authSettings, bearer, token } from './support/tokens.mjs';
import { eventually, inTime, uniqueId } from './support/waiting.mjs';

const worker = apiKey('worker');
const env = authSettings({ keys: [worker] });
const publisher = bearer(worker.key);
const admin = () => bearer(token({ sub: 'root', scope: 'jobs:admin' }));

const inSeconds = (seconds) => Date.now() / 1000 + seconds;

/** Resolves with the time at which a socket was disconnected. */
const disconnected = (watcher) =>
  new Promise((resolve) => watcher.socket.once('disconnect', () => resolve(Date.now())));

const connectWith = (t, gateway, claims, options = {}) =>
  connect(t, gateway, { auth: { token: token(claims) }, ...options });

describeEachStoreAndCluster(
  'a connection with a token',
  (context) => {
    it('ends with it, between three and four seconds later, with a reason; others stay', async (t) => {
      const { gateway, api } = context;
      const other = await connectWith(t, gateway, { sub: 'bob' });
      const otherStream = await openStream(t, gateway, '/api/users/bob/events', bearer(token({ sub: 'bob' })));
      const begun = Date.now();
      const claims = { sub: 'ada', exp: inSeconds(3) };
      const watchers = [
        await connectWith(t, gateway, claims),
        await connectWith(t, gateway, claims, { transports: ['polling'] }),
        await connectWith(t, gateway, claims, { client: 3 }),
      ];
      for (const watcher of watchers) await watcher.subscribe({ userId: 'ada' });
      const stream = await openStream(t, gateway, '/api/users/ada/events', bearer(token(claims)));
      const streamEnd = stream.closed.then(() => Date.now());
      const ends = await inTime(Promise.all([...watchers.map(disconnected), streamEnd]), 'the ends');
      for (const end of ends) assert.ok(end - begun >= 3000 && end - begun <= 4000, `after ${end - begun} ms`);
      for (const watcher of watchers) {
        assert.equal((await watcher.next('exception')).code, 'token_expired');
        assert.equal((await watcher.next('auth:expiring')).expiresAt, new Date(claims.exp * 1000).toISOString());
      }
      const reason = stream.events.items.find(({ event }) => event === 'exception');
      assert.equal(JSON.parse(reason.data).code, 'token_expired');

      assert.equal(other.socket.connected, true);
      await other.subscribe({ userId: 'bob' });
      const published = await api.update(uniqueId('of-bob'), { status: 'queued', userId: 'bob' }, publisher);
      await other.through(published);
      await otherStream.through(published.jobId, published.seq);
    });

    it('is told 30 seconds before, or at once where less is left, and never where more is', async (t) => {
      const { gateway } = context;
      const exp = Math.floor(inSeconds(20));
      const soon = await connectWith(t, gateway, { sub: 'ada', exp });
      const late = await connectWith(t, gateway, { sub: 'ada' });
      assert.equal((await soon.next('auth:expiring')).expiresAt, new Date(exp * 1000).toISOString());
      await late.subscribe({ userId: 'ada' });
      assert.deepEqual(late.log.items.filter(({ name }) => name === 'auth:expiring'), []);
    });

    it('goes on with a new token, and leaves what that one may not see', async (t) => {
      const { gateway, api } = context;
      const named = uniqueId('named');
      await api.update(named, { status: 'queued', userId: 'bob' }, publisher);
      const own = uniqueId('own');
      await api.update(own, { status: 'queued', userId: 'ada' }, publisher);
      const watcher = await connectWith(t, gateway, { sub: 'ada', jobs: [named], exp: inSeconds(3) });
      for (const jobId of [named, own]) await watcher.subscribe({ jobId });
      const exp = Math.floor(inSeconds(600));
      const answer = await watcher.ask('auth:refresh', { token: token({ sub: 'ada', exp }) });
      assert.deepEqual(answer, { success: true, expiresAt: new Date(exp * 1000).toISOString() });
      const { code, message } = await watcher.next('exception');
      assert.equal(code, 'forbidden');
      assert.ok(message.includes(`job:${named}`), message);
      const clients = async () => (await api.get(`/api/rooms/job:${named}`, admin())).json.clients;
      await eventually(async () => (await clients()) === 0, 'the room to be left');
      await api.update(named, { status: 'hidden' }, publisher);
      await watcher.through(await api.update(own, { status: 'seen' }, publisher));
      assert.deepEqual(
        watcher.jobEvents(named).map(({ status }) => status),
        [],
      );
      // The first token's end is none of its business any more.
      await pause(3500);
      assert.equal(watcher.socket.connected, true);
    });

    it('takes no other user, tenant, bad or expired token in place of its own', async (t) => {
      const { gateway } = context;
      const watcher = await connectWith(t, gateway, { sub: 'ada', tenantId: 't' });
      for (const [claims, code] of [
        [{ sub: 'bob', tenantId: 't' }, 'forbidden'],
        [{ sub: 'ada', tenantId: 's' }, 'forbidden'],
        [{ sub: 'ada' }, 'forbidden'],
        [{ sub: 'ada', tenantId: 't', exp: inSeconds(-5) }, 'unauthorized'],
      ]) {
        const answer = await watcher.ask('auth:refresh', { token: token(claims) });
        assert.equal(answer.error?.code, code, JSON.stringify(answer));
      }
      for (const payload of [{}, { token: 7 }, { token: null }, { tokn: 'x' }]) {
        const answer = await watcher.ask('auth:refresh', payload);
        assert.equal(answer.error?.code, 'invalid_payload', JSON.stringify(answer));
      }
      assert.equal((await watcher.ask('auth:refresh', { token: 'x.y.z' })).error.code, 'unauthorized');
      assert.equal((await watcher.subscribe({ userId: 'ada' })).success, true);
    });

    it('is put out of a job that turns out to be another one’s, before anything is delivered', async (t) => {
      const { gateway, api } = context;
      const jobId = uniqueId('pending');
      const owner = await connectWith(t, gateway, { sub: 'ada' });
      const stranger = await connectWith(t, gateway, { sub: 'eve' });
      const polling = await connectWith(t, gateway, { sub: 'eve' }, { transports: ['polling'] });
      for (const watcher of [owner, stranger, polling]) {
        const { latest } = await watcher.subscribe({ jobId });
        assert.equal(latest, null);
      }
      const stream = await openStream(t, gateway, `/api/jobs/${jobId}/events`, bearer(token({ sub: 'eve' })));
      const first = await api.update(jobId, { status: 'queued', userId: 'ada' }, publisher);
      const second = await api.update(jobId, { status: 'working' }, publisher);
      assert.deepEqual((await owner.through(second)).map(({ seq }) => seq), [first.seq, second.seq]);
      for (const watcher of [stranger, polling]) {
        const { code, message } = await watcher.next('exception');
        assert.equal(code, 'forbidden');
        assert.ok(message.includes(`job:${jobId}`), message);
        assert.deepEqual(watcher.jobEvents(), []);
      }
      await inTime(stream.closed, 'the end of the stream');
      assert.deepEqual(stream.events.items.map(({ event }) => event), ['exception']);
      const clients = async () => (await api.get(`/api/rooms/job:${jobId}`, admin())).json.clients;
      await eventually(async () => (await clients()) === 1, 'one client in the room');
    });
  },
  { env },
);

it('a refresh that grants the same asks the store for none of the rooms', async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const way = await startCuttable(t, redis.port);
  const store = { redisUrl: `redis://127.0.0.1:${way.port}`, keyPrefix: uniqueId('refresh') };
  const gateway = await startGateway({ store, env });
  t.after(() => gateway.kill());
  const watcher = await connectWith(t, gateway, { sub: 'ada' });
  await watcher.subscribe({ jobId: uniqueId('pending') });
  way.cut();
  const refresh = (claims) => watcher.ask('auth:refresh', { token: token({ sub: 'ada', ...claims }) });
  assert.equal((await refresh({})).success, true);
  assert.equal((await refresh({ jobs: ['another'] })).error.code, 'unavailable');
});

describe('revocations', () => {
  let redis;

  before(async () => {
    redis = await startRedis();
  });
  after(async () => redis.stop());

  async function startThree(t) {
    const keyPrefix = uniqueId('revocations');
    const way = await startCuttable(t, redis.port);
    const urls = [redis.url, redis.url, `redis://127.0.0.1:${way.port}`];
    const gateways = [];
    for (const redisUrl of urls) {
      const gateway = await startGateway({ store: { redisUrl, keyPrefix }, env });
      t.after(() => gateway.kill());
      gateways.push(Object.assign(gateway, { api: httpClient(gateway.url) }));
    }
    return { gateways, way };
  }

  it('reach all of three nodes within a second, also one that was cut off, within a second of its return', async (t) => {
    const { gateways, way } = await startThree(t);
    const old = token({ sub: 'ada', jti: 'one', iat: inSeconds(-10) });
    const watchers = [];
    for (const gateway of gateways) watchers.push(await connect(t, gateway, { auth: { token: old } }));
    const others = [];
    for (const gateway of gateways) others.push(await connectWith(t, gateway, { sub: 'bob' }));
    const ends = watchers.map(disconnected);

    way.cut();
    const begun = Date.now();
    const answer = await gateways[0].api.post('/api/revocations', { sub: 'ada' }, admin());
    assert.equal(answer.status, 200, answer.text);
    for (const end of ends.slice(0, 2)) assert.ok((await inTime(end, 'the end')) - begun < 1000);
    assert.equal(watchers[2].socket.connected, true);
    const returned = Date.now();
    way.restore();
    assert.ok((await inTime(ends[2], 'the end on the node that was cut off')) - returned < 1000);

    for (const watcher of watchers) assert.equal((await watcher.next('exception')).code, 'unauthorized');
    for (const other of others) assert.equal(other.socket.connected, true);
    for (const gateway of gateways) {
      await assert.rejects(connect(t, gateway, { auth: { token: old } }), /unauthorized.*revoked/);
      const response = await gateway.api.get('/api/jobs?userId=ada', bearer(old));
      assert.equal(response.status, 401);
      // A newer one is good.
      await connectWith(t, gateway, { sub: 'ada', iat: inSeconds(0.001) });
    }
  });

  for (const store of ['embedded', 'redis']) {
    it(`are kept over a restart: ${store}`, async (t) => {
      const keyPrefix = uniqueId('kept');
      const options = { store: store === 'redis' ? { redisUrl: redis.url, keyPrefix } : store, env };
      const first = await startGateway(options);
      t.after(() => first.kill());
      const iat = inSeconds(-10);
      const subjects = { sub: 'ada', tenantId: 't', jti: 'seven' };
      for (const [name, value] of Object.entries(subjects)) {
        const good = token({ iat, [name]: value });
        const watcher = await connect(t, first, { auth: { token: good } });
        const end = disconnected(watcher);
        const answer = await httpClient(first.url).post('/api/revocations', { [name]: value }, admin());
        assert.equal(answer.status, 200, answer.text);
        await inTime(end, `the end by ${name}`);
      }
      assert.equal(await first.stop(), 0);
      const second = await startGateway({ ...options, path: first.path });
      t.after(() => second.kill());
      for (const [name, value] of Object.entries(subjects)) {
        await assert.rejects(connect(t, second, { auth: { token: token({ iat, [name]: value }) } }), /revoked/);
      }
      await connect(t, second, { auth: { token: token({ iat, sub: 'bob' }) } });
    });
  }

  it('refuse what is not clear', async (t) => {
    const gateway = await startGateway({ env });
    t.after(() => gateway.kill());
    const api = httpClient(gateway.url);
    for (const body of [{}, { sub: 'a', jti: 'b' }, { sub: 'a b' }, { sub: 'a', before: 'soon' }, { user: 'a' }]) {
      const answer = await api.post('/api/revocations', body, admin());
      assert.equal(answer.status, 422, answer.text);
    }
    const stranger = await api.post('/api/revocations', { sub: 'a' }, publisher);
    assert.equal(stranger.status, 403);
  });
});
