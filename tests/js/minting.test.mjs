// Tokens that backends get for their browsers: POST /api/tokens.

import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { startGateway } from './support/gateway.mjs';
import { assertProblem, httpClient } from './support/http.mjs';
import { connect } from './support/socketio.mjs';
import { apiKey, authSettings, bearer, token } from './support/tokens.mjs';
import { uniqueId } from './support/waiting.mjs';

const worker = apiKey('worker');
const headers = bearer(worker.key);
const HOUR = 3600;

let gateway;
let api;

before(async () => {
  gateway = await startGateway({ env: authSettings({ keys: [worker] }) });
  api = httpClient(gateway.url);
});
after(async () => assert.equal(await gateway.stop(), 0, gateway.stderr()));

const claimsOf = (text) => JSON.parse(Buffer.from(text.split('.')[1], 'base64url'));

it('a token is good for what it was asked for, and says when it ends', async (t) => {
  const jobId = uniqueId('named');
  await api.update(jobId, { status: 'queued', userId: 'bob' }, headers);
  const before = Date.now();
  const body = { sub: 'ada', tenantId: 't', jobs: [jobId, 'more-*'], ttl: '10m' };
  const { status, json, text } = await api.post('/api/tokens', body, headers);
  assert.equal(status, 200, text);
  assert.deepEqual(Object.keys(json), ['token', 'expiresAt']);
  const lifetime = Date.parse(json.expiresAt) - before;
  assert.ok(lifetime >= 600_000 && lifetime < 610_000, `${lifetime}`);
  const claims = claimsOf(json.token);
  assert.deepEqual(
    { sub: claims.sub, tenantId: claims.tenantId, jobs: claims.jobs, scope: claims.scope },
    { sub: 'ada', tenantId: 't', jobs: [jobId, 'more-*'], scope: undefined },
  );
  const watcher = await connect(t, gateway, { auth: { token: json.token } });
  for (const payload of [{ userId: 'ada' }, { tenantId: 't' }, { jobId }, { jobId: 'more-1' }]) {
    await watcher.subscribe(payload);
  }
  assert.equal((await watcher.ask('subscribe:jobs', { userId: 'bob' })).error.code, 'forbidden');
  assert.equal((await api.post('/api/tokens', { sub: 'ada' }, bearer(json.token))).status, 403);
});

it('lives for 15 minutes, or for 1 s to 24 h, in words or in seconds', async () => {
  for (const [ttl, seconds] of [
    [undefined, 900],
    [1, 1],
    ['1s', 1],
    ['24h', 24 * HOUR],
    [24 * HOUR, 24 * HOUR],
    ['90', 90],
    ['1h 30m', 1.5 * HOUR],
  ]) {
    const { status, json, text } = await api.post('/api/tokens', { sub: 'ada', ttl }, headers);
    assert.equal(status, 200, text);
    const { iat, exp } = claimsOf(json.token);
    assert.ok(Math.abs(exp - iat - seconds) < 0.01, `${ttl}: ${exp - iat}`);
    assert.equal(json.expiresAt, new Date(Math.round(exp * 1000)).toISOString());
  }
  for (const ttl of [0, 0.5, '999ms', 24 * HOUR + 1, '25h', -1, 'soon', '', true, {}]) {
    const answer = await api.post('/api/tokens', { sub: 'ada', ttl }, headers);
    assertProblem(answer, 422, { code: 'invalid_payload', mention: 'ttl' });
  }
});

it('is refused with the member that is wrong', async () => {
  for (const [body, mention] of [
    [{ sub: 'a b' }, 'sub'],
    [{ tenantId: '' }, 'tenantId'],
    [{ jobs: 'x' }, 'jobs'],
    [{ jobs: ['a*b'] }, 'jobs'],
    [{ jobs: [7] }, 'jobs'],
    [{ sub: 'ada', scope: 'jobs:admin' }, 'scope'],
    [{ sub: 'ada', jobs: Array.from({ length: 1000 }, (_, index) => `a-long-name-of-a-job-${index}`) }, 'jobs'],
  ]) {
    assertProblem(await api.post('/api/tokens', body, headers), 422, { code: 'invalid_payload', mention });
  }
  assertProblem(await api.post('/api/tokens', '', headers), 400);
  assertProblem(await api.post('/api/tokens', { sub: 'ada' }), 401, { code: 'unauthorized' });
  assertProblem(await api.post('/api/tokens', { sub: 'ada' }, bearer(token({ sub: 'eve' }))), 403, { code: 'forbidden' });
});

it('needs auth.secret', async (t) => {
  const env = { JOBCAST_AUTH__MODE: 'jwt', JOBCAST_AUTH__API_KEYS: JSON.stringify([worker.entry]) };
  const keysAlone = await startGateway({ env });
  t.after(() => keysAlone.kill());
  const answer = await httpClient(keysAlone.url).post('/api/tokens', { sub: 'ada' }, headers);
  assertProblem(answer, 403, { code: 'forbidden', mention: 'auth.secret' });
});

it('an API key ends when it says so', async (t) => {
  const short = apiKey('short', { expires: new Date(Date.now() + 2500).toISOString() });
  const over = apiKey('over', { expires: '2020-01-01T00:00:00Z' });
  const other = await startGateway({ env: authSettings({ keys: [short, over] }) });
  t.after(() => other.kill());
  const calls = httpClient(other.url);
  assertProblem(await calls.post('/api/jobs/x/update', { status: 's' }, bearer(over.key)), 401);
  await calls.update('x', { status: 's' }, bearer(short.key));
  const watcher = await connect(t, other, { auth: { token: short.key } });
  await watcher.subscribe({ jobId: 'x' });
  assert.equal((await watcher.next('exception')).code, 'token_expired');
  assertProblem(await calls.post('/api/jobs/x/update', { status: 's' }, bearer(short.key)), 401);
});
