// Who may do what: each cell of tests/access.table, on every edge.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { connect } from './support/socketio.mjs';
import { apiKey, authSettings, bearer, token } from './support/tokens.mjs';
import { uniqueId } from './support/waiting.mjs';

const table = readFileSync(new URL('../access.table', import.meta.url), 'utf8');

const keys = {
  key: apiKey('key'),
  'key-jobs': apiKey('key-jobs', { jobs: ['a-*'] }),
  'key-tenant': apiKey('key-tenant', { tenants: ['t'] }),
  'key-both': apiKey('key-both', { jobs: ['a-*'], tenants: ['t'] }),
};

const claims = {
  admin: { sub: 'root', scope: 'jobs:admin' },
  publisher: { sub: 'worker', scope: 'jobs:publish other' },
  ada: { sub: 'ada', tenantId: 't' },
  eve: { sub: 'eve' },
  member: { tenantId: 't' },
  named: { jobs: ['a-*'] },
  empty: {},
};

/** What an identity shows; `undefined` where nobody is asked. */
function credentialOf(identity) {
  if (identity === 'everybody') return undefined;
  return keys[identity]?.key ?? token(claims[identity]);
}

/** The rows of a section: `{identity, job, cells: {column: mark}}`. */
function rows(section, hasJobs) {
  const lines = table.split('\n').filter((line) => line && !line.startsWith('#'));
  const begin = lines.findIndex((line) => line.startsWith(`[${section}]`));
  const end = lines.findIndex((line, place) => place > begin && line.startsWith('['));
  const columns = lines[begin].split(/\s+/).slice(hasJobs ? 2 : 1);
  return lines.slice(begin + 1, end < 0 ? undefined : end).map((line) => {
    const [identity, ...rest] = line.split(/\s+/);
    const job = hasJobs ? rest.shift() : undefined;
    assert.equal(rest.length, columns.length, line);
    return { identity, job, cells: Object.fromEntries(columns.map((column, place) => [column, rest[place]])) };
  });
}

/** An owner as the table writes it: users have three letters, tenants one. */
function ownerOf(text) {
  const ids = text.split('+').map((id) => (id.length === 1 ? { tenantId: id } : { userId: id }));
  return Object.assign({}, ...ids);
}

const gateways = {};

before(async () => {
  const env = { JOBCAST_LIMITS__ROOMS_PER_CLIENT: '1000' };
  const asking = { ...env, ...authSettings({ keys: Object.values(keys) }) };
  gateways.everybody = await startGateway({ env });
  gateways.deny = await startGateway({ env: asking });
  gateways.allow = await startGateway({ env: { ...asking, JOBCAST_AUTH__OWNERLESS_JOBS: 'allow' } });
  for (const gateway of Object.values(gateways)) gateway.api = httpClient(gateway.url);
});

after(async () => {
  for (const gateway of Object.values(gateways)) assert.equal(await gateway.stop(), 0, gateway.stderr());
});

const gatewayFor = (identity, column) => {
  if (identity === 'everybody') return gateways.everybody;
  return column === 'allowed' ? gateways.allow : gateways.deny;
};

const adminHeaders = () => bearer(token(claims.admin));

/** A new job with the column's owner, on the gateway of the column. */
async function makeJob(gateway, job, column) {
  const jobId = uniqueId(job);
  if (column !== 'pending') {
    const owner = ['nobody', 'allowed'].includes(column) ? {} : ownerOf(column);
    await gateway.api.update(jobId, { status: 'queued', ...owner }, adminHeaders());
  }
  return jobId;
}

async function connectAs(t, gateway, identity) {
  const credential = credentialOf(identity);
  return connect(t, gateway, { auth: credential === undefined ? {} : { token: credential } });
}

const headersOf = (identity) => (identity === 'everybody' ? {} : bearer(credentialOf(identity)));

/** Opens a stream and closes it: its status. */
async function streamStatus(gateway, path, headers) {
  const request = http.get(gateway.url + path, { headers, agent: false });
  try {
    const [response] = await once(request, 'response');
    return response.statusCode;
  } finally {
    request.destroy();
  }
}

describe('a job', () => {
  for (const { identity, job, cells } of rows('jobs', true)) {
    it(`${job} for ${identity}`, async (t) => {
      const headers = headersOf(identity);
      for (const [column, mark] of Object.entries(cells)) {
        const gateway = gatewayFor(identity, column);
        const allowed = mark !== '.';
        const jobId = await makeJob(gateway, job, column);
        const context = `${identity} ${jobId} ${column}`;
        const watcher = await connectAs(t, gateway, identity);
        for (const [event, payload] of [
          ['subscribe:jobs', { jobId, since: 0 }],
          ['history:jobs', { jobId }],
        ]) {
          const answer = await watcher.ask(event, payload);
          assert.equal(answer.success, allowed, `${event} ${context}: ${JSON.stringify(answer)}`);
          if (!allowed) assert.equal(answer.error.code, 'forbidden', context);
          if (!allowed) assert.ok(answer.message.includes(`job:${jobId}`), answer.message);
        }
        watcher.close();

        const missing = column === 'pending' ? 404 : 200;
        for (const [path, good] of [
          [`/api/jobs/${jobId}`, missing],
          [`/api/jobs/${jobId}/history`, 200],
          [`/api/rooms/job:${jobId}`, 200],
        ]) {
          const answer = await gateway.api.get(path, headers);
          assert.equal(answer.status, allowed ? good : 403, `${path} ${context}: ${answer.text}`);
        }
        const path = `/api/jobs/${jobId}/events`;
        assert.equal(await streamStatus(gateway, path, headers), allowed ? 200 : 403, `${path} ${context}`);
      }
    });
  }
});

describe('a shared room', () => {
  const payloads = {
    'user:ada': { userId: 'ada' },
    'user:bob': { userId: 'bob' },
    'tenant:t': { tenantId: 't' },
    'tenant:s': { tenantId: 's' },
    'all-jobs': {},
  };
  const paths = {
    'user:ada': ['/api/users/ada/events', '/api/jobs?userId=ada'],
    'user:bob': ['/api/users/bob/events', '/api/jobs?userId=bob'],
    'tenant:t': ['/api/tenants/t/events', '/api/jobs?tenantId=t'],
    'tenant:s': ['/api/tenants/s/events', '/api/jobs?tenantId=s'],
    'all-jobs': ['/api/events', '/api/jobs'],
  };

  for (const { identity, cells } of rows('rooms', false)) {
    it(`and what is for few, for ${identity}`, async (t) => {
      const gateway = gatewayFor(identity);
      const headers = headersOf(identity);
      const watcher = await connectAs(t, gateway, identity);
      for (const [room, payload] of Object.entries(payloads)) {
        const allowed = cells[room] === '+';
        const answer = await watcher.ask('subscribe:jobs', payload);
        assert.equal(answer.success, allowed, `${room}: ${JSON.stringify(answer)}`);
        if (!allowed) assert.equal(answer.error.code, 'forbidden');
        if (!allowed) assert.ok(answer.message.includes(room), answer.message);
        const [stream, list] = paths[room];
        assert.equal(await streamStatus(gateway, stream, headers), allowed ? 200 : 403, stream);
        assert.equal((await gateway.api.get(list, headers)).status, allowed ? 200 : 403, list);
        const size = await gateway.api.get(`/api/rooms/${room}`, headers);
        assert.equal(size.status, allowed ? 200 : 403, size.text);
      }
      const status = (mark, good = 200) => (mark === '+' ? good : 403);
      assert.equal((await gateway.api.get('/api/clients', headers)).status, status(cells.clients));
      assert.equal((await gateway.api.get('/api/clients/nobody', headers)).status, status(cells.clients, 404));
      const revocation = { jti: uniqueId('token') };
      assert.equal((await gateway.api.post('/api/revocations', revocation, headers)).status, status(cells.revoke));
      const notice = { event: 'hello', data: 1 };
      assert.equal((await gateway.api.post('/api/broadcast', notice, headers)).status, status(cells.notify));
      assert.equal((await gateway.api.post('/api/users/ada/emit', notice, headers)).status, status(cells.notify));
    });
  }
});

describe('publishing', () => {
  for (const { identity, job, cells } of rows('publish', true)) {
    it(`to ${job} by ${identity}`, async () => {
      const gateway = gatewayFor(identity);
      const headers = headersOf(identity);
      for (const [column, mark] of Object.entries(cells)) {
        const [has, names] = column.split('/');
        const tenant = (text) => (text === '-' ? {} : { tenantId: text });
        for (const call of ['single', 'batch']) {
          const jobId = uniqueId(job);
          if (has !== 'new') await gateway.api.update(jobId, { status: 'queued', ...tenant(has) }, adminHeaders());
          const before = (await gateway.api.get(`/api/jobs/${jobId}/history`, adminHeaders())).json.events.length;
          const event = { status: 'working', ...tenant(names) };
          const context = `${identity} ${jobId} ${column} ${call}`;
          if (call === 'single') {
            const answer = await gateway.api.post(`/api/jobs/${jobId}/update`, event, headers);
            assert.equal(answer.status, mark === '+' ? 200 : 403, `${context}: ${answer.text}`);
          } else {
            const whole = { event: 'job:update', jobId, ...event };
            const answer = await gateway.api.post('/api/events', [whole], headers);
            const refused = answer.status === 403 || answer.json.results[0].error?.code === 'forbidden';
            assert.equal(refused, mark !== '+', `${context}: ${answer.text}`);
          }
          const after = (await gateway.api.get(`/api/jobs/${jobId}/history`, adminHeaders())).json.events.length;
          assert.equal(after - before, mark === '+' ? 1 : 0, context);
        }
      }
    });
  }
});

describe('handing out tokens', () => {
  for (const { identity, cells } of rows('mint', false)) {
    if (identity === 'everybody') continue;
    it(`by ${identity}`, async (t) => {
      const gateway = gatewayFor(identity);
      const headers = headersOf(identity);
      for (const [column, mark] of Object.entries(cells)) {
        const [name, value] = column.split('=');
        const members = { sub: { sub: 'ada' }, tenantId: { tenantId: value }, jobs: { jobs: [value] } };
        const answer = await gateway.api.post('/api/tokens', members[name] ?? {}, headers);
        assert.equal(answer.status, mark === '+' ? 200 : 403, `${column}: ${answer.text}`);
        if (mark !== '+') continue;
        // It is good, and no administrator's.
        const watcher = await connect(t, gateway, { auth: { token: answer.json.token } });
        assert.equal((await watcher.ask('subscribe:jobs', {})).error.code, 'forbidden');
        watcher.close();
      }
    });
  }
});

describe('a credential', () => {
  const ways = {
    'auth.token': (credential) => ({ auth: { token: credential } }),
    'the query': (credential) => ({ query: { token: credential } }),
    Authorization: (credential) => ({ extraHeaders: bearer(credential) }),
    'X-API-Key': (credential) => ({ extraHeaders: { 'x-api-key': credential } }),
  };

  for (const [way, options] of Object.entries(ways)) {
    it(`comes by ${way}, over whatever transport`, async (t) => {
      for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
        if (way !== 'X-API-Key') {
          const watcher = await connect(t, gateways.deny, { transports, ...options(credentialOf('ada')) });
          assert.equal((await watcher.subscribe({ userId: 'ada' })).success, true);
          assert.equal((await watcher.ask('subscribe:jobs', { userId: 'bob' })).success, false);
        }
        const worker = await connect(t, gateways.deny, { transports, ...options(keys.key.key) });
        assert.equal((await worker.subscribe({ userId: 'bob' })).success, true);
      }
    });

    it(`that is bad or missing is unauthorized: ${way}`, async (t) => {
      const expired = token({ sub: 'ada', exp: Date.now() / 1000 - 5 });
      for (const credential of [expired, token({ sub: 'ada' }, 'x'.repeat(32)), 'nonsense', 'a.b.c', 'jc_nothing']) {
        await assert.rejects(connect(t, gateways.deny, options(credential)), /^Error: unauthorized: /, credential);
      }
      await assert.rejects(connect(t, gateways.deny), /^Error: unauthorized: .*auth: \{ token \}/);
    });
  }

  it('of another form is refused with what would be right', async (t) => {
    for (const auth of [{ token: 7 }, { token: ['x'] }]) {
      await assert.rejects(connect(t, gateways.deny, { auth }), /^Error: invalid_payload: token/);
    }
    for (const headers of [{}, { authorization: 'Basic YTpi' }, bearer('nonsense'), bearer('')]) {
      const answer = await gateways.deny.api.get('/api/jobs?userId=ada', headers);
      assert.equal(answer.status, 401, answer.text);
      assert.match(answer.headers['www-authenticate'], /^Bearer/);
      assert.equal(answer.json.code, 'unauthorized');
      assert.equal(answer.headers['content-type'], 'application/problem+json');
    }
    for (const path of ['/', '/healthz', '/readyz', '/metrics', '/openapi.json']) {
      assert.equal((await gateways.deny.api.get(path)).status, 200, path);
    }
  });

  it('names who is connected, and another user’s record is not taken over', async (t) => {
    const gateway = gateways.deny;
    const clientId = uniqueId('laptop');
    const record = async () => (await gateway.api.get(`/api/clients/${clientId}`, adminHeaders())).json;
    const first = await connect(t, gateway, { auth: { token: credentialOf('ada'), clientId } });
    assert.equal((await record()).userId, 'ada');
    await assert.rejects(
      connect(t, gateway, { auth: { token: credentialOf('eve'), clientId } }),
      /^Error: forbidden: clientId/,
    );
    // The newest connection of the same one takes it over.
    const second = await connect(t, gateway, { auth: { token: credentialOf('ada'), clientId } });
    first.close();
    await second.subscribe({ userId: 'ada' });
    assert.deepEqual((await record()).subscriptions, ['user:ada']);
  });
});

it('every call asks who calls, but for those that tell nothing of jobs', async (t) => {
  const gateway = gateways.deny;
  const { paths } = (await gateway.api.get('/openapi.json')).json;
  const free = new Set(['/', '/healthz', '/readyz', '/metrics', '/openapi.json']);
  let asked = 0;
  for (const [template, methods] of Object.entries(paths)) {
    if (free.has(template)) continue;
    const path = template.replaceAll(/\{\w+\}/g, 'a-1');
    for (const method of Object.keys(methods)) {
      const body = method === 'post' ? '{}' : undefined;
      const headers = { 'content-type': 'application/json' };
      const answer = await gateway.api.request(method.toUpperCase(), path, { headers, body });
      assert.equal(answer.status, 401, `${method} ${path}: ${answer.text}`);
      assert.match(answer.headers['www-authenticate'], /^Bearer/);
      asked += 1;
    }
  }
  assert.ok(asked > 15, `${asked}`);
  for (const transports of [['websocket'], ['polling']]) {
    await assert.rejects(connect(t, gateway, { transports }), /unauthorized: /);
  }
});
