// Browsers of other origins: let in where they are named, refused everywhere else.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { connect, connectByHand, send, uniqueId } from './support/clients.mjs';
import { POLLING, SOCKET_IO_UPGRADE, UPGRADE } from './support/http.mjs';
import { describeEachStore } from './support/stores.mjs';

const FRIEND = 'http://localhost:5173';
const FOREIGN = [
  'https://evil.example',
  'http://localhost:5174',
  'https://localhost:5173',
  'http://localhost:5173.evil.example',
  'null',
];

describeEachStore(
  'origins',
  (context) => {
    const { api } = context;
    const get = (path, headers) => send(context.gateway.url, 'GET', path, { headers, fresh: true });

    it('lets a named origin preflight its calls', async () => {
      const response = await api.request('OPTIONS', '/api/jobs/x/update', {
        headers: {
          origin: FRIEND,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'content-type,authorization,idempotency-key,x-api-key',
        },
      });
      assert.ok([200, 204].includes(response.status), `${response.status}`);
      assert.equal(response.headers['access-control-allow-origin'], FRIEND);
      assert.equal(response.headers['access-control-allow-credentials'], 'true');
      assert.match(response.headers['access-control-allow-methods'], /POST/);
      const allowed = response.headers['access-control-allow-headers'].toLowerCase();
      for (const header of ['content-type', 'authorization', 'idempotency-key', 'x-api-key']) {
        assert.ok(allowed.includes(header), `${header} in ${allowed}`);
      }
    });

    it('lets a named origin read answers, errors too', async () => {
      const jobId = uniqueId('friend');
      const accepted = await api.post(`/api/jobs/${jobId}/update`, { status: 'queued' }, { origin: FRIEND });
      assert.equal(accepted.status, 200);
      const refused = await api.post(`/api/jobs/${jobId}/update`, {}, { origin: FRIEND });
      assert.equal(refused.status, 422);
      const missing = await get(`/api/jobs/${uniqueId('nothing')}`, { origin: FRIEND });
      assert.equal(missing.status, 404);
      const polling = await get(POLLING, { origin: FRIEND });
      assert.equal(polling.status, 200);
      for (const { headers } of [accepted, refused, missing, polling]) {
        assert.equal(headers['access-control-allow-origin'], FRIEND);
        assert.equal(headers['access-control-allow-credentials'], 'true');
        assert.match(headers.vary ?? '', /origin/i);
      }
    });

    it('lets a named origin, its own and none connect', async (t) => {
      assert.equal((await get(SOCKET_IO_UPGRADE, { ...UPGRADE, origin: FRIEND })).status, 101);
      assert.equal((await get(SOCKET_IO_UPGRADE, { ...UPGRADE, origin: context.gateway.url })).status, 101);
      assert.equal((await get(SOCKET_IO_UPGRADE, UPGRADE)).status, 101);
      for (const transport of ['polling', 'websocket']) {
        const watcher = await connect(t, context.gateway, {
          transports: [transport],
          extraHeaders: { origin: FRIEND },
        });
        await watcher.subscribe({ jobId: 'j' });
      }
      await connectByHand(t, context.gateway, { headers: { origin: context.gateway.url } });
    });

    for (const origin of FOREIGN) {
      it(`refuses ${origin}`, async (t) => {
        const jobId = uniqueId('foreign');
        const preflight = await api.request('OPTIONS', `/api/jobs/${jobId}/update`, {
          headers: { origin, 'access-control-request-method': 'POST' },
        });
        const answers = {
          publish: await api.post(`/api/jobs/${jobId}/update`, { status: 'queued' }, { origin }),
          read: await get(`/api/jobs/${jobId}`, { origin }),
          stream: await get(`/api/jobs/${jobId}/events`, { origin }),
          metrics: await get('/metrics', { origin }),
          'of another scheme': await get('/api/jobs', { origin: `ftp://127.0.0.1:${context.gateway.port}` }),
          polling: await get(POLLING, { origin }),
          upgrade: await get(SOCKET_IO_UPGRADE, { ...UPGRADE, origin }),
          'plain upgrade': await get('/ws', { ...UPGRADE, origin }),
        };
        for (const [what, response] of Object.entries(answers)) {
          assert.equal(response.status, 403, what);
        }
        for (const [what, { headers }] of Object.entries({ preflight, ...answers })) {
          assert.equal(headers['access-control-allow-origin'], undefined, what);
        }
        assert.deepEqual(await api.history(jobId), []);
        await assert.rejects(connect(t, context.gateway, { extraHeaders: { origin } }));
        await assert.rejects(connect(t, context.gateway, { transports: ['polling'], extraHeaders: { origin } }));
      });
    }
  },
  { stores: ['embedded'] },
);
