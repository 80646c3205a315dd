// Clients that come by a proxy: whose address counts.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { connect, uniqueId } from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient, send } from './support/http.mjs';

const POLLING = '/socket.io/?EIO=4&transport=polling';

async function start(t, trusted, env = {}) {
  const gateway = await startGateway({ env: { JOBCAST_SERVER__TRUSTED_PROXIES: trusted, ...env } });
  t.after(() => gateway.stop());
  return gateway;
}

/** The address in the record of a client that comes with these headers. */
async function addressOf(t, gateway, transport, forwarded) {
  const clientId = uniqueId('client');
  const extraHeaders = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
  await connect(t, gateway, { transports: [transport], auth: { clientId }, extraHeaders });
  const { json } = await httpClient(gateway.url).get(`/api/clients/${clientId}`);
  return json.address;
}

describe('behind a trusted proxy', () => {
  for (const transport of ['polling', 'websocket']) {
    it(`a client by ${transport} has the right-most address that is no proxy's`, async (t) => {
      const gateway = await start(t, '127.0.0.0/8,10.0.0.1');
      for (const [forwarded, address] of [
        ['203.0.113.7', '203.0.113.7'],
        ['6.6.6.6, 203.0.113.7, 10.0.0.1', '203.0.113.7'],
        ['::ffff:203.0.113.7', '203.0.113.7'],
        ['2001:db8::7', '2001:db8::7'],
        ['203.0.113.7, unknown', '127.0.0.1'],
        [undefined, '127.0.0.1'],
      ]) {
        assert.equal(await addressOf(t, gateway, transport, forwarded), address, forwarded);
      }
    });
  }

  it('a polling session serves only the client that began it', async (t) => {
    const gateway = await start(t, '127.0.0.1');
    const poll = (query, forwarded) =>
      send(gateway.url, 'GET', POLLING + query, { headers: { 'x-forwarded-for': forwarded }, fresh: true });
    const begun = await poll('', '203.0.113.7');
    const { sid } = JSON.parse(begun.text.slice(1));
    const post = (forwarded) =>
      send(gateway.url, 'POST', `${POLLING}&sid=${sid}`, { headers: { 'x-forwarded-for': forwarded }, body: '40/jobs,' });
    assert.equal((await post('203.0.113.8')).status, 400);
    assert.equal((await post('203.0.113.7')).status, 200);
    assert.equal((await poll(`&sid=${sid}`, '203.0.113.7')).status, 200);
  });

  it('the proxy may open more connections than a client', async (t) => {
    const gateway = await start(t, '127.0.0.1', { JOBCAST_LIMITS__CONNECTIONS_PER_ADDRESS: '2' });
    const clients = ['203.0.113.1', '203.0.113.2', '203.0.113.3', '203.0.113.4'];
    for (const address of clients) assert.equal(await addressOf(t, gateway, 'websocket', address), address);
  });
});

it('nobody else says who they are', async (t) => {
  const gateway = await start(t, '127.0.0.2');
  assert.equal(await addressOf(t, gateway, 'websocket', '203.0.113.7'), '127.0.0.1');
});
