// Publishing one event at a time, and how it reads afterwards.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertProblem, sequenceNumbers, uniqueId } from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

const RFC_3339_MILLISECONDS = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

describeEachStore('publishing', (gateway) => {
  const { api } = gateway;

  const newest = async (jobId) => {
    const response = await api.get(`/api/jobs/${encodeURIComponent(jobId)}`);
    assert.equal(response.status, 200, response.text);
    return response;
  };

  it('answers with the job, a number from the clock and the time of acceptance', async () => {
    const jobId = uniqueId('answer');
    const before = Date.now();
    const answer = await api.update(jobId, { status: 'queued' });
    const after = Date.now();
    assert.deepEqual(Object.keys(answer).sort(), ['jobId', 'seq', 'timestamp']);
    assert.equal(answer.jobId, jobId);
    assert.ok(answer.seq >= before && answer.seq <= after, `${answer.seq} between ${before} and ${after}`);
    assert.match(answer.timestamp, RFC_3339_MILLISECONDS);
    const time = Date.parse(answer.timestamp);
    assert.ok(time >= before && time <= after, answer.timestamp);
  });

  it('numbers the events of a job by exactly one', async () => {
    const jobId = uniqueId('numbers');
    const first = await api.update(jobId);
    const second = await api.progress(jobId, 10);
    const third = await api.completed(jobId);
    assert.deepEqual([second.seq, third.seq], [first.seq + 1, first.seq + 2]);
  });

  it('keeps the numbers of concurrent publishers without a hole', async () => {
    const jobId = uniqueId('concurrent');
    const answers = await Promise.all(Array.from({ length: 40 }, (_, index) => api.progress(jobId, index)));
    const numbers = sequenceNumbers(answers).sort((a, b) => a - b);
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => numbers[0] + index),
    );
    assert.deepEqual(sequenceNumbers(await api.history(jobId)), numbers);
  });

  it('makes the four kinds of event', async () => {
    const jobId = uniqueId('kinds');
    const update = await api.update(jobId, { status: 'rendering', data: { frame: 1, list: [null, true, 'x'] } });
    const progress = await api.publish(jobId, 'progress', { progress: 42.5, message: 'almost' });
    const completed = await api.completed(jobId, { result: { url: '/result' } });
    await api.update(jobId, { status: 'again' });
    const error = await api.error(jobId, 'disk full');

    const events = await api.history(jobId);
    assert.deepEqual(events[0], {
      event: 'job:update',
      ...update,
      status: 'rendering',
      data: { frame: 1, list: [null, true, 'x'] },
    });
    assert.deepEqual(events[1], {
      event: 'job:progress',
      ...progress,
      status: 'in_progress',
      progress: 42.5,
      message: 'almost',
    });
    assert.deepEqual(events[2], {
      event: 'job:completed',
      ...completed,
      status: 'completed',
      result: { url: '/result' },
    });
    assert.deepEqual(events[4], { event: 'job:error', ...error, status: 'failed', error: 'disk full' });
    assert.equal(events.length, 5);
  });

  it('has null for data and result that were left out, and nothing for the rest', async () => {
    const jobId = uniqueId('defaults');
    const update = await api.update(jobId, { status: 'queued' });
    const progress = await api.progress(jobId, 0);
    const completed = await api.completed(jobId, {});
    assert.deepEqual(await api.history(jobId), [
      { event: 'job:update', ...update, status: 'queued', data: null },
      { event: 'job:progress', ...progress, status: 'in_progress', progress: 0 },
      { event: 'job:completed', ...completed, status: 'completed', result: null },
    ]);
  });

  it('gives the newest event of a job, or 404', async () => {
    const jobId = uniqueId('newest');
    assertProblem(await api.get(`/api/jobs/${jobId}`), 404);
    await api.update(jobId);
    const { seq } = await api.progress(jobId, 100);
    assert.equal((await newest(jobId)).json.seq, seq);
  });

  it("takes an error's message out of an object", async () => {
    const jobId = uniqueId('error-object');
    await api.error(jobId, { message: 'disk full', code: 28, stack: ['a', 'b'] });
    assert.equal((await newest(jobId)).json.error, 'disk full');
  });

  it("ignores a publisher's own seq, timestamp and unknown fields", async () => {
    const jobId = uniqueId('ignored');
    const answer = await api.update(jobId, {
      status: 'queued',
      seq: 7,
      timestamp: '1999-01-01T00:00:00.000Z',
      colour: 'red',
      progress: 3,
    });
    assert.notEqual(answer.seq, 7);
    assert.deepEqual((await newest(jobId)).json, { event: 'job:update', ...answer, status: 'queued', data: null });
  });

  it('takes 0, 100 and fractions as progress', async () => {
    const jobId = uniqueId('progress');
    for (const progress of [0, 0.125, 99.99, 100]) {
      await api.progress(jobId, progress);
      assert.equal((await newest(jobId)).json.progress, progress);
    }
  });

  it('takes a status of 1 to 64 characters, whatever their size in bytes', async () => {
    for (const status of ['q', 'x'.repeat(64), 'é'.repeat(64), 'läuft']) {
      const jobId = uniqueId('status');
      await api.update(jobId, { status });
      assert.equal((await newest(jobId)).json.status, status);
    }
  });

  it('takes every character that an id may have, and 128 of them', async () => {
    for (const id of [uniqueId('AZaz09_.:@-'), `${uniqueId('long')}-`.padEnd(128, 'x'), `${process.pid}7`]) {
      const { jobId } = await api.update(id);
      assert.equal(jobId, id);
      assert.equal((await newest(id)).json.jobId, id);
    }
  });

  it('takes a missing content type as JSON, and one with parameters', async () => {
    const jobId = uniqueId('content-type');
    for (const headers of [{}, { 'content-type': 'application/json; charset=utf-8' }]) {
      const response = await api.request('POST', `/api/jobs/${jobId}/update`, { body: '{"status":"queued"}', headers });
      assert.equal(response.status, 200, response.text);
    }
    assert.equal((await api.history(jobId)).length, 2);
  });

  const verbatim = {
    'a whole number beyond 2^53': '{"n":9007199254740993,"list":[123456789012345678901234567890]}',
    'a fraction with trailing zeros': '{"n":1.000,"m":0.10}',
    'more digits than a double has': '0.1000000000000000055511151231257827',
    'a negative zero': '-0.0',
    '__proto__ and its like': '{"__proto__":{"admin":true},"constructor":{"prototype":1},"toString":null}',
    'keys in no order': '{"z":1,"a":2,"m":{"y":1,"b":2}}',
    'text of all sorts': JSON.stringify({ text: 'ünï \u{1F600} \u0000 "quoted" \\ </script>' }),
    '100 arrays in one another': '['.repeat(100) + ']'.repeat(100),
    '100 objects in one another': '{"a":'.repeat(100) + '1' + '}'.repeat(100),
    'nothing but a string': '"text"',
    false: 'false',
  };
  for (const [what, json] of Object.entries(verbatim)) {
    it(`keeps data and result as they came: ${what}`, async () => {
      const jobId = uniqueId('verbatim');
      await api.update(jobId, `{"status":"queued","data":${json}}`);
      const update = await newest(jobId);
      assert.ok(update.text.includes(`"data":${json}`), update.text);

      await api.completed(jobId, `{"result":${json}}`);
      const completed = await newest(jobId);
      assert.ok(completed.text.includes(`"result":${json}`), completed.text);

      const history = await api.get(`/api/jobs/${jobId}/history`);
      assert.ok(history.text.includes(`"data":${json}`), history.text);
      assert.ok(history.text.includes(`"result":${json}`), history.text);
    });
  }

  it('never looks into __proto__ at the top', async () => {
    const jobId = uniqueId('proto');
    const answer = await api.update(
      jobId,
      '{"status":"queued","__proto__":{"userId":"mallory","status":"forged"},"constructor":1}',
    );
    assert.deepEqual((await newest(jobId)).json, { event: 'job:update', ...answer, status: 'queued', data: null });
    const forged = await api.post(`/api/jobs/${jobId}/update`, '{"__proto__":{"status":"forged"}}');
    assertProblem(forged, 422, { mention: 'status' });
  });

  it('answers with the request id that came', async () => {
    const jobId = uniqueId('request-id');
    const accepted = await api.post(`/api/jobs/${jobId}/update`, { status: 'queued' }, { 'x-request-id': 'abc-123' });
    assert.equal(accepted.headers['x-request-id'], 'abc-123');
    const refused = await api.post(`/api/jobs/${jobId}/update`, {}, { 'x-request-id': 'abc-124' });
    assert.equal(refused.headers['x-request-id'], 'abc-124');
  });
});
