// By which names the gateway may be called: no page reaches it by a name that was made to lead here.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { startGateway } from './support/gateway.mjs';
import { JSON_TYPE, POLLING, SOCKET_IO_UPGRADE, UPGRADE, assertProblem, httpClient, send } from './support/http.mjs';
import { describeEachStore } from './support/stores.mjs';
import { connect, uniqueId } from './support/clients.mjs';

const FOREIGN = ['evil.example', 'localhost.evil.example', 'evil.localhost', 'user@localhost', 'localhost:port'];

/** What every edge answers to a request with these headers, and to another request target. */
async function onEveryEdge(url, headers, target = '') {
  const ask = (method, path, more = {}, body = undefined) =>
    send(url, method, target + path, { headers: { ...more, ...headers }, body, fresh: true });
  const jobId = uniqueId('host');
  return {
    publish: await ask('POST', `/api/jobs/${jobId}/update`, JSON_TYPE, '{"status": "queued"}'),
    read: await ask('GET', `/api/jobs/${jobId}/history`),
    page: await ask('GET', '/'),
    metrics: await ask('GET', '/metrics'),
    polling: await ask('GET', POLLING),
    upgrade: await ask('GET', SOCKET_IO_UPGRADE, UPGRADE),
    stream: await ask('GET', `/api/jobs/${jobId}/events?until=finished&since=never`),
  };
}

function assertRefused(answers) {
  for (const [what, answer] of Object.entries(answers)) {
    assert.equal(answer.status, 403, what);
    assertProblem(answer, 403, { code: 'forbidden', mention: 'host' });
  }
}

function assertLetIn(answers) {
  for (const [what, { status }] of Object.entries(answers)) assert.notEqual(status, 403, what);
  assert.equal(answers.publish.status, 200);
  assert.equal(answers.upgrade.status, 101);
}

describeEachStore(
  'hosts',
  (context) => {
    it('refuses a page whose name was made to lead here, on every edge', async () => {
      const host = 'evil.example';
      assertRefused(await onEveryEdge(context.gateway.url, { host, origin: `http://${host}` }));
      assertRefused(await onEveryEdge(context.gateway.url, { host: `${host}:${context.gateway.port}` }));
    });

    for (const host of FOREIGN) {
      it(`refuses the host "${host}"`, async () => {
        assertRefused(await onEveryEdge(context.gateway.url, { host }));
      });
    }

    it('refuses a request target of another host, whatever its header says', async () => {
      assertRefused(await onEveryEdge(context.gateway.url, { host: 'localhost' }, 'http://evil.example'));
      assertLetIn(await onEveryEdge(context.gateway.url, { host: 'localhost' }, 'http://localhost'));
    });

    for (const host of ['localhost', 'LOCALHOST.:3000', '127.0.0.1', '192.0.2.7:80', '[::1]:3000']) {
      it(`answers as ${host}`, async () => assertLetIn(await onEveryEdge(context.gateway.url, { host })));
    }

    it('tells any load balancer whether it lives', async () => {
      for (const path of ['/healthz', '/readyz']) {
        const { status } = await send(context.gateway.url, 'GET', path, { headers: { host: 'pod-7' } });
        assert.equal(status, 200, path);
      }
    });

    it('has no answer that a browser would take for something else', async () => {
      const { url } = context.gateway;
      const answers = { ...(await onEveryEdge(url, {})), ...(await onEveryEdge(url, { host: 'evil.example' })) };
      answers.health = await httpClient(url).get('/healthz');
      for (const [what, { headers }] of Object.entries(answers)) {
        assert.equal(headers['x-content-type-options'], 'nosniff', what);
      }
    });
  },
  { stores: ['memory'] },
);

it('answers by the names of server.hosts, and as these alone where a port is named', async (t) => {
  const env = { JOBCAST_SERVER__HOSTS: 'jobs.example.com,one-port.example:8443' };
  const gateway = await startGateway({ env });
  t.after(() => gateway.stop());
  for (const host of ['jobs.example.com', 'JOBS.example.com.:81', 'one-port.example:8443', 'localhost']) {
    assertLetIn(await onEveryEdge(gateway.url, { host, origin: `http://${host}` }));
  }
  assertRefused(await onEveryEdge(gateway.url, { host: 'one-port.example' }));
  assertRefused(await onEveryEdge(gateway.url, { host: 'evil.example' }));
  const watcher = await connect(t, gateway, { extraHeaders: { host: 'jobs.example.com' } });
  await watcher.subscribe({ jobId: 'j' });
});
