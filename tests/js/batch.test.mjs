// Publishing many events in one call, each on its own.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertProblem, NDJSON_TYPE, send, sequenceNumbers, uniqueId, updatesOf } from './support/clients.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';

const lines = (events) => events.map((event) => (typeof event === 'string' ? event : JSON.stringify(event))).join('\n');

describeEachStoreAndCluster('batches', (context) => {
  const { api } = context;

  const publish = async (events) => {
    const response = await api.post('/api/events', events);
    assert.equal(response.status, 200, response.text);
    return response.json.results;
  };
  const publishLines = async (events) => {
    const response = await api.post('/api/events', `${lines(events)}\n`, NDJSON_TYPE);
    assert.equal(response.status, 200, response.text);
    return response.json.results;
  };
  const forms = { 'an array': publish, 'lines of JSON': publishLines };

  const assertItemRefused = (result, code) => {
    const context = JSON.stringify(result);
    assert.equal(result.error?.code, code, context);
    assert.equal(typeof result.error.message, 'string', context);
    assert.notEqual(result.error.message, '', context);
    assert.equal(result.seq, undefined, context);
  };

  for (const [form, publishAs] of Object.entries(forms)) {
    it(`takes ${form} of every kind of event, in order`, async () => {
      const [one, other] = [uniqueId('one'), uniqueId('other')];
      const results = await publishAs([
        { event: 'job:update', jobId: one, status: 'queued', data: { n: 1 }, userId: 'anna' },
        { event: 'job:progress', jobId: one, progress: 50, message: 'half' },
        { event: 'job:update', jobId: other, status: 'queued' },
        { event: 'job:completed', jobId: one, result: [1] },
        { event: 'job:error', jobId: other, error: { message: 'disk full' } },
      ]);
      const [update, progress, queued, completed, error] = results;
      assert.deepEqual(await api.history(one), [
        { event: 'job:update', status: 'queued', data: { n: 1 }, userId: 'anna', ...update },
        { event: 'job:progress', status: 'in_progress', progress: 50, message: 'half', userId: 'anna', ...progress },
        { event: 'job:completed', status: 'completed', result: [1], userId: 'anna', ...completed },
      ]);
      assert.deepEqual(await api.history(other), [
        { event: 'job:update', status: 'queued', data: null, ...queued },
        { event: 'job:error', status: 'failed', error: 'disk full', ...error },
      ]);
      assert.deepEqual(sequenceNumbers([progress, completed]), [update.seq + 1, update.seq + 2]);
    });

    it(`takes each event of ${form} on its own`, async () => {
      const jobId = uniqueId('each');
      const good = (status) => ({ event: 'job:update', jobId, status });
      const results = await publishAs([
        good('first'),
        { event: 'job:update', jobId },
        { event: 'job:progress', jobId, progress: 101 },
        { event: 'job:finished', jobId, status: 'x' },
        { jobId, status: 'x' },
        { event: 'job:update', status: 'no job' },
        { event: 'job:update', jobId: 'a b', status: 'x' },
        { event: 'job:update', jobId: '', status: 'x' },
        { event: 'job:update', jobId: null, status: 'x' },
        { event: 'job:update', jobId: { id: 1 }, status: 'x' },
        { event: 'job:error', jobId },
        [],
        'null',
        5,
        good('last'),
      ]);
      assert.equal(results.length, 15);
      for (const result of results.slice(1, -1)) assertItemRefused(result, 'invalid_payload');
      assert.equal(results.at(-1).seq, results[0].seq + 1);
      assert.deepEqual(
        (await api.history(jobId)).map((event) => event.status),
        ['first', 'last'],
      );
    });

    it(`keeps to the state of a job within ${form}`, async () => {
      const jobId = uniqueId('state');
      const results = await publishAs([
        { event: 'job:update', jobId, status: 'queued', userId: 'anna' },
        { event: 'job:completed', jobId },
        { event: 'job:progress', jobId, progress: 80 },
        { event: 'job:update', jobId, status: 'stolen', userId: 'mallory' },
        { event: 'job:update', jobId, status: 'again' },
        { event: 'job:progress', jobId, progress: 1 },
      ]);
      assertItemRefused(results[2], 'job_finished');
      assertItemRefused(results[3], 'owner_mismatch');
      const accepted = results.filter((result) => !result.error);
      assert.deepEqual(
        sequenceNumbers(accepted),
        [0, 1, 2, 3].map((n) => results[0].seq + n),
      );
      assert.deepEqual(sequenceNumbers(await api.history(jobId)), sequenceNumbers(accepted));
    });

    it(`makes text of a number as jobId in ${form}`, async () => {
      const small = Date.now();
      const large = `1234567890123456789${process.pid}${form.length}`;
      const results = await publishAs([
        { event: 'job:update', jobId: small, status: 'queued' },
        ...(form === 'an array' ? [] : [`{"event":"job:update","jobId":${large},"status":"queued"}`]),
      ]);
      assert.equal(results[0].jobId, String(small));
      assert.equal((await api.history(String(small)))[0].jobId, String(small));
      if (form !== 'an array') assert.equal(results[1].jobId, large);
    });

    it(`takes the id of an event in ${form} as its idempotency key`, async () => {
      const jobId = uniqueId('key');
      const event = (status, id) => ({ event: 'job:update', jobId, status, id });
      const [first, repeated, second] = await publishAs([event('one', 'a'), event('one', 'a'), event('two', 'b')]);
      assert.deepEqual(repeated, first);
      assert.equal(second.seq, first.seq + 1);
      const [again, conflict] = await publishAs([event('one', 'a'), event('other', 'b')]);
      assert.deepEqual(again, first);
      assertItemRefused(conflict, 'idempotency_conflict');
      const events = await api.history(jobId);
      assert.deepEqual(sequenceNumbers(events), [first.seq, second.seq]);
      assert.deepEqual(
        events.filter((stored) => 'id' in stored),
        [],
      );
    });

    it(`refuses an id of the wrong form in ${form}`, async () => {
      const jobId = uniqueId('bad-key');
      const event = (id) => ({ event: 'job:update', jobId, status: 'x', id });
      const results = await publishAs([
        event(''),
        event('x'.repeat(129)),
        event('two words'),
        event({}),
        event('fine'),
      ]);
      for (const result of results.slice(0, -1)) assertItemRefused(result, 'invalid_payload');
      assert.deepEqual(sequenceNumbers(await api.history(jobId)), [results.at(-1).seq]);
    });
  }

  it('does not use the id of a refused event up', async () => {
    const jobId = uniqueId('unused');
    const late = { event: 'job:progress', jobId, progress: 80, id: 'k' };
    const [, refused, , accepted] = await publish([
      { event: 'job:completed', jobId },
      late,
      { event: 'job:update', jobId, status: 'again' },
      late,
    ]);
    assertItemRefused(refused, 'job_finished');
    assert.equal(typeof accepted.seq, 'number', JSON.stringify(accepted));
  });

  it('ignores what is not part of an event', async () => {
    const jobId = uniqueId('ignored');
    const event = {
      event: 'job:update',
      jobId,
      status: 'x',
      seq: 1,
      timestamp: '1999-01-01T00:00:00.000Z',
      colour: 'red',
    };
    const [result] = await publish([event]);
    assert.notEqual(result.seq, 1);
    assert.deepEqual(await api.history(jobId), [{ event: 'job:update', status: 'x', data: null, ...result }]);
  });

  it('keeps every digit', async () => {
    const jobId = uniqueId('digits');
    const data = '{"n":9007199254740993,"m":1.000}';
    await publish(`[{"event":"job:update","jobId":"${jobId}","status":"x","data":${data}}]`);
    await publishLines([`{"event":"job:completed","jobId":"${jobId}","result":${data}}`]);
    const { text } = await api.get(`/api/jobs/${jobId}/history`);
    assert.ok(text.includes(`"data":${data}`) && text.includes(`"result":${data}`), text);
  });

  it('makes a malformed line that line’s error', async () => {
    const jobId = uniqueId('line');
    const good = (status) => ({ event: 'job:update', jobId, status });
    const results = await publishLines([good('first'), '{"event":', 'nonsense', good('second'), '}{', good('third')]);
    assert.equal(results.length, 6);
    for (const index of [1, 2, 4]) assertItemRefused(results[index], 'invalid_payload');
    assert.deepEqual(sequenceNumbers(await api.history(jobId)), sequenceNumbers([results[0], results[3], results[5]]));
  });

  it('reads lines that end in CR LF, or not at all', async () => {
    const jobId = uniqueId('crlf');
    const body = updatesOf(jobId, 3)
      .map((event) => JSON.stringify(event))
      .join('\r\n');
    const response = await api.post('/api/events', body, NDJSON_TYPE);
    assert.equal(response.status, 200, response.text);
    assert.deepEqual(sequenceNumbers(await api.history(jobId)), sequenceNumbers(response.json.results));
    assert.equal(response.json.results.length, 3);
  });

  it('refuses a malformed array, and accepts none of it', async () => {
    const jobId = uniqueId('malformed');
    const good = JSON.stringify({ event: 'job:update', jobId, status: 'x' });
    for (const body of [`[${good}`, `[${good},]`, `[${good} ${good}]`, `[${good}] x`, `${good},${good}`]) {
      assertProblem(await api.post('/api/events', body), 400, { code: 'invalid_payload' });
    }
    assert.deepEqual(await api.history(jobId), []);
  });

  it('refuses bodies that are no batch', async () => {
    for (const body of ['', '  ']) assertProblem(await api.post('/api/events', body), 400);
    for (const body of ['"text"', '5', 'null']) assertProblem(await api.post('/api/events', body), [400, 422]);
    const text = { body: '[]', headers: { 'content-type': 'text/plain' } };
    assertProblem(await api.request('POST', '/api/events', text), 415);
  });

  it('takes a missing content type as JSON', async () => {
    const jobId = uniqueId('typeless');
    const response = await api.request('POST', '/api/events', { body: JSON.stringify(updatesOf(jobId, 2)) });
    assert.equal(response.status, 200, response.text);
    assert.equal((await api.history(jobId)).length, 2);
  });

  it('takes 1,000 events and no more', async () => {
    const jobId = uniqueId('thousand');
    const results = await publish(updatesOf(jobId, 1000));
    assert.deepEqual(
      sequenceNumbers(results),
      results.map((_, index) => results[0].seq + index),
    );
    assert.equal(results.length, 1000);

    const tooMany = uniqueId('too-many');
    const events = updatesOf(tooMany, 1001);
    assertProblem(await api.post('/api/events', events), 413);
    assertProblem(await api.post('/api/events', lines(events), NDJSON_TYPE), 413);
    assert.deepEqual(await api.history(tooMany), []);
  });

  it('takes more than a single event may have, up to 8 MiB', async () => {
    const jobId = uniqueId('large');
    const data = 'x'.repeat(60 * 1024);
    assert.equal((await publish(updatesOf(jobId, 30, { data }))).length, 30);

    const huge = uniqueId('huge');
    for (const [body, headers] of [
      [JSON.stringify(updatesOf(huge, 150, { data })), { 'content-type': 'application/json' }],
      [lines(updatesOf(huge, 150, { data })), NDJSON_TYPE],
    ]) {
      const response = await send(context.gateway.url, 'POST', '/api/events', { body, headers, fresh: true });
      assertProblem(response, 413);
    }
    assert.deepEqual(await api.history(huge), []);
  });

  for (const depth of [200, 60_000]) {
    it(`refuses data nested ${depth} deep`, async () => {
      const jobId = uniqueId('deep');
      const nested = '['.repeat(depth) + ']'.repeat(depth);
      const deep = `{"event":"job:update","jobId":"${jobId}","status":"x","data":${nested}}`;
      const good = JSON.stringify({ event: 'job:update', jobId, status: 'fine' });

      const asArray = await api.post('/api/events', `[${deep}]`);
      if (asArray.status === 200) assertItemRefused(asArray.json.results[0], 'invalid_payload');
      else assertProblem(asArray, [400, 422]);

      const [refused, accepted] = await publishLines([deep, good]);
      assertItemRefused(refused, 'invalid_payload');
      assert.deepEqual(sequenceNumbers(await api.history(jobId)), [accepted.seq]);
    });
  }

  it('takes data nested 100 deep', async () => {
    const jobId = uniqueId('fairly-deep');
    const nested = '['.repeat(100) + ']'.repeat(100);
    await publish(`[{"event":"job:update","jobId":"${jobId}","status":"x","data":${nested}}]`);
    const { text } = await api.get(`/api/jobs/${jobId}/history`);
    assert.ok(text.includes(`"data":${nested}`), text);
  });

  it('takes many batches at once', async () => {
    const jobs = Array.from({ length: 5 }, () => uniqueId('parallel'));
    const batch = jobs.flatMap((jobId) => updatesOf(jobId, 4));
    await Promise.all(Array.from({ length: 5 }, () => publish(batch)));
    for (const jobId of jobs) {
      const numbers = sequenceNumbers(await api.history(jobId));
      assert.deepEqual(
        numbers,
        Array.from({ length: 20 }, (_, index) => numbers[0] + index),
      );
    }
  });
});
