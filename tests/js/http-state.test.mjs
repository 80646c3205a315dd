// What a job's past says about its next event: owner, end, idempotency, restarts.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertProblem, sequenceNumbers, uniqueId } from './support/clients.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';

describeEachStoreAndCluster('the state of a job', (gateway) => {
  const { api } = gateway;
  const key = (value) => ({ 'idempotency-key': value });
  const post = (jobId, kind, body, headers) => api.post(`/api/jobs/${jobId}/${kind}`, body, headers);

  for (const owner of ['userId', 'tenantId']) {
    it(`keeps the ${owner} that an event has named`, async () => {
      const jobId = uniqueId('owned');
      await api.update(jobId, { status: 'queued' });
      await api.update(jobId, { status: 'started', [owner]: 'anna' });
      await api.progress(jobId, 50);
      await api.publish(jobId, 'progress', { progress: 60, [owner]: 'anna' });
      await api.completed(jobId);
      assert.deepEqual(
        (await api.history(jobId)).map((event) => event[owner]),
        [undefined, 'anna', 'anna', 'anna', 'anna'],
      );
    });

    it(`refuses an event that names another ${owner}`, async () => {
      const jobId = uniqueId('stolen');
      await api.update(jobId, { status: 'queued', [owner]: 'anna' });
      const theft = await post(jobId, 'update', { status: 'stolen', [owner]: 'mallory' });
      assertProblem(theft, 409, { code: 'owner_mismatch' });
      const { seq } = await api.progress(jobId, 50);
      const events = await api.history(jobId);
      assert.deepEqual(
        events.map((event) => event.status),
        ['queued', 'in_progress'],
      );
      assert.equal(seq, events[0].seq + 1);
    });
  }

  it('takes a tenant for a job that has a user', async () => {
    const jobId = uniqueId('both');
    await api.update(jobId, { status: 'queued', userId: 'anna' });
    await api.update(jobId, { status: 'queued', tenantId: 'acme' });
    await api.progress(jobId, 1);
    const { userId, tenantId } = (await api.history(jobId)).at(-1);
    assert.deepEqual({ userId, tenantId }, { userId: 'anna', tenantId: 'acme' });
  });

  it('takes a number as owner', async () => {
    const jobId = uniqueId('numeric-owner');
    await api.update(jobId, { status: 'queued', userId: 42 });
    await api.update(jobId, { status: 'queued', userId: '42' });
    assert.deepEqual(
      (await api.history(jobId)).map((event) => event.userId),
      ['42', '42'],
    );
  });

  for (const [end, body] of [
    ['completed', { result: 1 }],
    ['error', { error: 'disk full' }],
  ]) {
    it(`refuses progress and another end after ${end}, until an update reopens the job`, async () => {
      const jobId = uniqueId('finished');
      const finished = await api.publish(jobId, end, body);
      for (const [kind, late] of [
        ['progress', { progress: 80 }],
        ['completed', {}],
        ['error', { error: 'late' }],
      ]) {
        assertProblem(await post(jobId, kind, late), 409, { code: 'job_finished' });
      }
      assert.deepEqual(sequenceNumbers(await api.history(jobId)), [finished.seq]);
      const reopened = await api.update(jobId, { status: 'retrying' });
      const progress = await api.progress(jobId, 10);
      const again = await api.publish(jobId, end, body);
      assert.deepEqual(
        sequenceNumbers([reopened, progress, again]),
        [1, 2, 3].map((n) => finished.seq + n),
      );
    });
  }

  it('lets exactly one of many ends win', async () => {
    const jobId = uniqueId('ends');
    const responses = await Promise.all(Array.from({ length: 10 }, () => post(jobId, 'completed', {})));
    const statuses = responses.map((response) => response.status).sort();
    assert.deepEqual(statuses, [200, ...Array(9).fill(409)]);
    assert.equal((await api.history(jobId)).length, 1);
  });

  it('answers a repeated call as it did the first time, and stores nothing again', async () => {
    const jobId = uniqueId('repeated');
    const first = await post(jobId, 'progress', { progress: 5 }, key('k-1'));
    const between = await api.progress(jobId, 6);
    const second = await post(jobId, 'progress', { progress: 5 }, key('k-1'));
    assert.equal(first.status, 200);
    assert.equal(second.status, 200);
    assert.deepEqual(second.json, first.json);
    assert.deepEqual(sequenceNumbers(await api.history(jobId)), [first.json.seq, between.seq]);
  });

  it('answers calls with one key at the same time alike', async () => {
    const jobId = uniqueId('together');
    const responses = await Promise.all(
      Array.from({ length: 10 }, () => post(jobId, 'update', { status: 'queued' }, key('k-1'))),
    );
    for (const response of responses) {
      assert.equal(response.status, 200, response.text);
      assert.deepEqual(response.json, responses[0].json);
    }
    assert.equal((await api.history(jobId)).length, 1);
  });

  it('answers a repeated call even after the job has ended', async () => {
    const jobId = uniqueId('repeated-late');
    const progress = await post(jobId, 'progress', { progress: 5 }, key('p'));
    const completed = await post(jobId, 'completed', { result: 1 }, key('c'));
    const lateProgress = await post(jobId, 'progress', { progress: 5 }, key('p'));
    assert.equal(lateProgress.status, 200, lateProgress.text);
    assert.deepEqual(lateProgress.json, progress.json);
    const lateCompleted = await post(jobId, 'completed', { result: 1 }, key('c'));
    assert.equal(lateCompleted.status, 200, lateCompleted.text);
    assert.deepEqual(lateCompleted.json, completed.json);
    assert.equal((await api.history(jobId)).length, 2);
  });

  it('refuses a key that comes with another body', async () => {
    const jobId = uniqueId('conflict');
    await api.progress(jobId, 5, key('k-1'));
    assertProblem(await post(jobId, 'progress', { progress: 6 }, key('k-1')), 422, { code: 'idempotency_conflict' });
    const otherKind = await post(jobId, 'update', { status: 'queued' }, key('k-1'));
    assertProblem(otherKind, 422, { code: 'idempotency_conflict' });
    assert.equal((await api.history(jobId)).length, 1);
  });

  it('knows a key by its job', async () => {
    const [one, other] = [uniqueId('key-of'), uniqueId('key-of')];
    await api.progress(one, 5, key('same'));
    await api.progress(other, 6, key('same'));
    assert.equal((await api.history(other)).length, 1);
  });

  it('does not use the key of a refused call up', async () => {
    const jobId = uniqueId('unused');
    const finished = await api.completed(jobId);
    assertProblem(await post(jobId, 'progress', { progress: 5 }, key('k-1')), 409);
    await api.update(jobId, { status: 'retrying' });
    const { seq } = await api.progress(jobId, 5, key('k-1'));
    assert.equal(seq, finished.seq + 2);

    assertProblem(await post(jobId, 'progress', { progress: 101 }, key('k-2')), 422);
    await api.progress(jobId, 100, key('k-2'));
    assert.equal((await api.history(jobId)).length, 4);
  });

  it('takes keys of 1 to 128 visible characters and no others', async () => {
    const jobId = uniqueId('keys');
    for (const good of ['k', 'x'.repeat(128), '!"#$%&()*+,-./:;<=>?@[]^_`{|}~'])
      await api.progress(jobId, 1, key(good));
    assert.equal((await api.history(jobId)).length, 3);
    for (const bad of ['', 'x'.repeat(129), 'two words', 'ümlaut', 'a\tb']) {
      assertProblem(await post(jobId, 'progress', { progress: 1 }, key(bad)), [400, 422]);
    }
    assert.equal((await api.history(jobId)).length, 3);
  });

  for (const ending of ['stop', 'kill']) {
    it(`remembers everything after ${ending} and a new start`, async (t) => {
      const jobId = uniqueId('restart');
      const first = await gateway.another(t);
      const progress = await first.api.progress(jobId, 5, key('k-1'));
      const update = await first.api.update(jobId, { status: 'queued', userId: 'anna' });
      const completed = await first.api.completed(jobId, { result: { done: true } });
      const before = await first.api.history(jobId);
      await first[ending]();

      const second = await first.again();
      assert.deepEqual(await second.api.history(jobId), before);
      assert.deepEqual(sequenceNumbers(before), sequenceNumbers([progress, update, completed]));
      assert.deepEqual(await second.api.progress(jobId, 5, key('k-1')), progress);
      const late = await second.api.post(`/api/jobs/${jobId}/progress`, { progress: 80 });
      assertProblem(late, 409, { code: 'job_finished' });
      const theft = await second.api.post(`/api/jobs/${jobId}/update`, { status: 'x', userId: 'mallory' });
      assertProblem(theft, 409, { code: 'owner_mismatch' });
      const next = await second.api.update(jobId, { status: 'again' });
      assert.equal(next.seq, completed.seq + 1);
      assert.equal((await second.api.history(jobId)).at(-1).userId, 'anna');
    });
  }
});
