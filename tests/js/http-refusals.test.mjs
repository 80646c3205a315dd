// What publishing refuses: each with a clear error, and without a trace in the job.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertProblem, send, uniqueId } from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

const raw = (text) => ({ raw: text });
const asText = (body) => body.raw ?? JSON.stringify(body);

const invalidEvents = [
  // kind, what is wrong, the body, the field that the answer names
  ['update', 'no status', {}, 'status'],
  ['update', 'an empty status', { status: '' }, 'status'],
  ['update', 'a status of 65 characters', { status: 'x'.repeat(65) }, 'status'],
  ['update', 'a number as status', { status: 5 }, 'status'],
  ['update', 'an array as status', { status: ['queued'] }, 'status'],
  ['update', 'null as status', { status: null }, 'status'],
  ['update', 'an object as userId', { status: 'queued', userId: {} }, 'userId'],
  ['update', 'an empty userId', { status: 'queued', userId: '' }, 'userId'],
  ['update', 'a userId with a space', { status: 'queued', userId: 'a b' }, 'userId'],
  ['update', 'a userId of 129 characters', { status: 'queued', userId: 'u'.repeat(129) }, 'userId'],
  ['update', 'a tenantId with a slash', { status: 'queued', tenantId: 'a/b' }, 'tenantId'],
  ['update', 'true as tenantId', { status: 'queued', tenantId: true }, 'tenantId'],
  ['update', 'a tenantId that is not ASCII', { status: 'queued', tenantId: 'mündel' }, 'tenantId'],
  ['progress', 'no progress', {}, 'progress'],
  ['progress', 'a progress of -1', { progress: -1 }, 'progress'],
  ['progress', 'a progress of 100.5', { progress: 100.5 }, 'progress'],
  ['progress', 'a progress just over 100', raw('{"progress":100.00000000000001}'), 'progress'],
  ['progress', 'a progress of 1e400', raw('{"progress":1e400}'), 'progress'],
  ['progress', 'a progress of -1e400', raw('{"progress":-1e400}'), 'progress'],
  ['progress', 'a string as progress', { progress: '50' }, 'progress'],
  ['progress', 'true as progress', { progress: true }, 'progress'],
  ['progress', 'null as progress', { progress: null }, 'progress'],
  ['progress', 'an array as progress', { progress: [50] }, 'progress'],
  ['progress', 'a number as message', { progress: 50, message: 5 }, 'message'],
  ['progress', 'an object as message', { progress: 50, message: { text: 'x' } }, 'message'],
  ['completed', 'a bad userId', { userId: 'a b' }, 'userId'],
  ['error', 'no error', {}, 'error'],
  ['error', 'a number as error', { error: 5 }, 'error'],
  ['error', 'null as error', { error: null }, 'error'],
  ['error', 'an array as error', { error: ['disk full'] }, 'error'],
  ['error', 'an object without a message as error', { error: { code: 28 } }, 'error'],
  ['error', 'an object with a number as message', { error: { message: 28 } }, 'error'],
];

const malformedBodies = {
  'half an object': '{"status":"queued"',
  'a trailing comma': '{"status":"queued",}',
  'single quotes': "{'status':'queued'}",
  'NaN as a value': '{"status":"queued","data":NaN}',
  'text after the end': '{"status":"queued"} and more',
  'nothing but white space': ' \n ',
  'bytes that are not UTF-8': Buffer.from('7b22737461747573223a22ff227d', 'hex'),
  '100,000 brackets': '['.repeat(100_000),
};

describeEachStore('refusing events', (gateway) => {
  const { api } = gateway;

  const assertNothingStored = async (jobId) => assert.deepEqual(await api.history(jobId), []);

  for (const [kind, what, body, field] of invalidEvents) {
    it(`${kind}: ${what}`, async () => {
      const jobId = uniqueId('invalid');
      const response = await api.post(`/api/jobs/${jobId}/${kind}`, asText(body));
      assertProblem(response, 422, { code: 'invalid_payload', mention: field });
      await assertNothingStored(jobId);
    });
  }

  for (const [what, body] of Object.entries(malformedBodies)) {
    it(`malformed: ${what}`, async () => {
      const jobId = uniqueId('malformed');
      assertProblem(await api.post(`/api/jobs/${jobId}/update`, body), 400, { code: 'invalid_payload' });
      await assertNothingStored(jobId);
    });
  }

  it('NaN as progress', async () => {
    const jobId = uniqueId('nan');
    assertProblem(await api.post(`/api/jobs/${jobId}/progress`, '{"progress":NaN}'), 400);
    assertProblem(await api.post(`/api/jobs/${jobId}/progress`, '{"progress":"NaN"}'), 422, { mention: 'progress' });
    await assertNothingStored(jobId);
  });

  for (const kind of ['update', 'progress', 'completed', 'error']) {
    it(`${kind}: an empty body`, async () => {
      const jobId = uniqueId('empty');
      assertProblem(await api.post(`/api/jobs/${jobId}/${kind}`, ''), 400);
      const withoutLength = await api.request('POST', `/api/jobs/${jobId}/${kind}`);
      assertProblem(withoutLength, 400);
      await assertNothingStored(jobId);
    });

    it(`${kind}: a body that is no object`, async () => {
      const jobId = uniqueId('no-object');
      for (const body of ['[]', '[{"status":"queued","progress":1,"error":"x"}]', '"text"', '5', 'true', 'null']) {
        assertProblem(await api.post(`/api/jobs/${jobId}/${kind}`, body), 422);
      }
      await assertNothingStored(jobId);
    });
  }

  for (const depth of [200, 60_000]) {
    it(`data nested ${depth} deep`, async () => {
      const jobId = uniqueId('deep');
      const nested = '['.repeat(depth) + ']'.repeat(depth);
      assertProblem(await api.post(`/api/jobs/${jobId}/update`, `{"status":"queued","data":${nested}}`), [400, 422]);
      assertProblem(await api.post(`/api/jobs/${jobId}/completed`, `{"result":${nested}}`), [400, 422]);
      await assertNothingStored(jobId);
    });

    it(`survives a field that it ignores, nested ${depth} deep`, async () => {
      const jobId = uniqueId('deep-ignored');
      const nested = '['.repeat(depth) + ']'.repeat(depth);
      const response = await api.post(`/api/jobs/${jobId}/update`, `{"status":"queued","ignored":${nested}}`);
      assert.ok([200, 400, 422].includes(response.status), response.text);
      assert.equal((await api.history(jobId)).length, response.status === 200 ? 1 : 0);
    });
  }

  it('a body over the limit of 128 KiB, and takes one just below', async () => {
    const jobId = uniqueId('large');
    const bodyOf = (size) => {
      const frame = '{"status":"queued","data":""}';
      return `{"status":"queued","data":"${'x'.repeat(size - frame.length)}"}`;
    };
    for (const size of [128 * 1024 + 1, 1024 * 1024]) {
      const body = bodyOf(size);
      assert.equal(body.length, size);
      const options = { body, headers: { 'content-type': 'application/json' }, fresh: true };
      assertProblem(await send(gateway.gateway.url, 'POST', `/api/jobs/${jobId}/update`, options), 413);
    }
    await assertNothingStored(jobId);
    await api.update(jobId, bodyOf(128 * 1024));
    assert.equal((await api.history(jobId)).length, 1);
  });

  it('a body over the limit that does not say how long it is', async () => {
    const jobId = uniqueId('chunked');
    const chunk = 'x'.repeat(1024);
    const body = new ReadableStream({
      pull(controller) {
        this.sent = (this.sent ?? 0) + 1;
        controller.enqueue(new TextEncoder().encode(this.sent === 1 ? '{"status":"queued","data":"' : chunk));
        if (this.sent === 200) controller.close();
      },
    });
    const response = await fetch(`${gateway.gateway.url}/api/jobs/${jobId}/update`, {
      method: 'POST',
      body,
      duplex: 'half',
      headers: { 'content-type': 'application/json' },
    });
    assert.equal(response.status, 413);
    assert.match(response.headers.get('content-type'), /^application\/problem\+json/);
    await response.text();
    await assertNothingStored(jobId);
  });

  it('other content types', async () => {
    const jobId = uniqueId('content-type');
    const types = ['text/plain', 'application/xml', 'application/x-www-form-urlencoded', 'application/x-ndjson'];
    for (const type of types) {
      const options = { body: '{"status":"queued"}', headers: { 'content-type': type } };
      assertProblem(await api.request('POST', `/api/jobs/${jobId}/update`, options), 415);
    }
    await assertNothingStored(jobId);
  });

  it('ids with other characters, or more than 128', async () => {
    const ids = ['a%20b', 'a%2Fb', '%C3%BC', 'a%00b', 'a%0Ab', '%7B', 'a%22b', 'a*b', 'x'.repeat(129)];
    for (const id of ids) {
      assertProblem(await api.post(`/api/jobs/${id}/update`, { status: 'queued' }), 422, { mention: 'jobId' });
    }
  });

  it('ids that are empty or no UTF-8', async () => {
    for (const id of ['', '%FF', '%E2%82']) {
      const response = await api.post(`/api/jobs/${id}/update`, { status: 'queued' });
      assertProblem(response, [400, 404, 422]);
    }
  });

  it('unknown paths', async () => {
    for (const [method, path] of [
      ['GET', '/api/nonsense'],
      ['POST', '/api/jobs/x/finished'],
      ['GET', '/nonsense'],
      ['GET', '/api/jobs/x/history/y'],
    ]) {
      assertProblem(await api.request(method, path), 404);
    }
  });

  it('wrong methods, and says which are right', async () => {
    for (const [method, path, right] of [
      ['GET', '/api/jobs/x/update', 'POST'],
      ['PUT', '/api/jobs/x/progress', 'POST'],
      ['DELETE', '/api/jobs/x', 'GET'],
      ['POST', '/api/jobs/x/history', 'GET'],
      ['GET', '/api/broadcast', 'POST'],
      ['DELETE', '/api/events', 'POST'],
      ['POST', '/healthz', 'GET'],
    ]) {
      const response = await api.request(method, path, { body: '{}', headers: { 'content-type': 'application/json' } });
      assertProblem(response, 405);
      assert.ok(response.headers.allow?.includes(right), `${method} ${path} allows ${response.headers.allow}`);
    }
  });

  it('and still serves everybody else', async () => {
    const jobId = uniqueId('alive');
    const { seq } = await api.update(jobId);
    assert.deepEqual(
      (await api.history(jobId)).map((event) => event.seq),
      [seq],
    );
  });
});
