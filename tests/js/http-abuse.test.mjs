// Requests that are wrong on purpose, or that would cost more than they should.

import assert from 'node:assert/strict';
import net from 'node:net';
import { it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { assertProblem, inTime, NDJSON_TYPE, sequenceNumbers, uniqueId, updatesOf } from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

/** Sends lines as they are, and answers the status of the answer. */
function statusOf(gateway, lines) {
  const answer = new Promise((resolve, reject) => {
    const socket = net.connect(gateway.port, '127.0.0.1', () => socket.write(`${lines.join('\r\n')}\r\n\r\n`));
    socket.once('data', (data) => {
      resolve(Number(data.toString().split(' ')[1]));
      socket.destroy();
    });
    socket.on('error', reject);
  });
  return inTime(answer, `an answer to ${lines[0]}`);
}

const lines = (events) => events.map((event) => JSON.stringify(event)).join('\n');

describeEachStore(
  'abuse of HTTP',
  (context) => {
    const { api } = context;

    for (const accepted of ['br, identity;q=0', '*;q=0', 'identity;q=0', 'gzip;q=0, *;q=0, identity;q=0.0']) {
      it(`answers uncompressed whoever takes only ${accepted}`, async () => {
        const jobId = uniqueId('coding');
        const headers = { 'accept-encoding': accepted };
        await api.update(jobId, { status: 'queued' }, headers);
        const read = await api.get(`/api/jobs/${jobId}/history`, headers);
        assert.equal(read.status, 200);
        assert.equal(read.headers['content-encoding'], undefined);
        assert.equal(read.json.events.length, 1);
        assert.equal((await api.get('/socket.io/?EIO=4&transport=polling', headers)).status, 200);
      });
    }

    it('still compresses for whoever refuses all but gzip', async () => {
      const headers = { 'accept-encoding': 'gzip, *;q=0' };
      assert.equal((await api.get('/openapi.json', headers)).headers['content-encoding'], 'gzip');
    });

    it('compresses no large answers', async () => {
      const jobId = uniqueId('large');
      await api.publishAll(updatesOf(jobId, 10, { data: 'x'.repeat(100_000) }));
      const read = await api.get(`/api/jobs/${jobId}/history`, { 'accept-encoding': 'gzip' });
      assert.equal(read.headers['content-encoding'], undefined);
      assert.equal(read.json.events.length, 10);
    });

    for (const header of ['Host: localhost', 'Origin: http://localhost:5173']) {
      it(`refuses a request with a second ${header.split(':')[0]}`, async () => {
        const { gateway } = context;
        const request = ['GET /healthz HTTP/1.1', 'Host: localhost', 'Origin: http://localhost:5173'];
        assert.equal(await statusOf(gateway, request), 200);
        assert.equal(await statusOf(gateway, [...request, header]), 400);
        const socketIo = ['GET /socket.io/?EIO=4&transport=polling HTTP/1.1', ...request.slice(1)];
        assert.equal(await statusOf(gateway, [...socketIo, header]), 400);
      });
    }

    it('says what to do about a compressed body', async () => {
      const jobId = uniqueId('packed');
      const body = gzipSync(JSON.stringify({ status: 'queued' }));
      const packed = { 'content-encoding': 'gzip' };
      const refused = await api.post(`/api/jobs/${jobId}/update`, body, packed);
      assertProblem(refused, 415, { code: 'unsupported_media_type', mention: 'Content-Encoding' });
      assert.equal(refused.headers['accept-encoding'], 'identity');
      assertProblem(await api.post('/api/events', body, packed), 415, { mention: 'Content-Encoding' });
      await api.update(jobId, { status: 'queued' }, { 'content-encoding': 'identity' });
      assert.equal((await api.history(jobId)).length, 1);
    });

    it('says what a number or a position looks like', async () => {
      const jobId = uniqueId('number');
      for (const wrong of ['x', '', '-1', '1.5', '99999999999999999999']) {
        for (const path of [`/api/jobs/${jobId}/history`, `/api/jobs/${jobId}/events`]) {
          const refused = await api.get(`${path}?since=${wrong}`);
          assertProblem(refused, 422, { mention: `since: must be the seq of an event, or 0, got "${wrong}"` });
        }
      }
      const resumed = await api.get(`/api/jobs/${jobId}/events`, { 'last-event-id': 'x' });
      assertProblem(resumed, 422, { mention: 'Last-Event-ID: must be the seq of an event, or 0, got "x"' });
      assertProblem(await api.get('/api/events?since=x'), 422, { mention: 'since: must be a position such as' });
    });

    const forms = {
      'an array': (events) => api.post('/api/events', events),
      'lines of JSON': (events) => api.post('/api/events', lines(events), NDJSON_TYPE),
    };
    for (const [form, publish] of Object.entries(forms)) {
      it(`refuses an item of ${form} that alone would be too large, and says which`, async () => {
        const jobId = uniqueId('item');
        const item = (size) => updatesOf(jobId, 1, { data: 'x'.repeat(size) })[0];
        const { status, json } = await publish([item(1), item(129 * 1024), { jobId }, item(120 * 1024)]);
        assert.equal(status, 200);
        assert.equal(json.failed, 2);
        const [first, large, invalid, last] = json.results;
        assert.deepEqual([large.index, large.error.code], [1, 'payload_too_large']);
        assert.match(large.error.message, /131072 bytes/);
        assert.deepEqual([invalid.index, invalid.error.code], [2, 'invalid_payload']);
        assert.deepEqual(sequenceNumbers(await api.history(jobId)), sequenceNumbers([first, last]));
        assert.equal((await publish([item(1)])).json.failed, 0);
      });
    }

    it('reads no further than the first item too many', async () => {
      const tooMany = `[${'1,'.repeat(1001)}`;
      assertProblem(await api.post('/api/events', `${tooMany} and so on`), 413);
      assertProblem(await api.post('/api/events', `${tooMany}${'1,'.repeat(3_000_000)}1]`), 413);
      assertProblem(await api.post('/api/events', '1\n'.repeat(3_000_000), NDJSON_TYPE), 413);
    });
  },
  { stores: ['embedded'] },
);
