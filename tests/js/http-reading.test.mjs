// Reading history and jobs, and what an operator asks.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { assertProblem, clockPast, sequenceNumbers, uniqueId, updatesOf } from './support/clients.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';

const jobIds = (jobs) => jobs.map((event) => event.jobId);

describeEachStoreAndCluster('reading', (gateway) => {
  const { api } = gateway;

  const jobs = async (query) => {
    const response = await api.get(`/api/jobs${query}`);
    assert.equal(response.status, 200, response.text);
    return response.json.jobs;
  };

  it('has an empty history for an unknown job', async () => {
    const jobId = uniqueId('unknown');
    const response = await api.get(`/api/jobs/${jobId}/history`);
    assert.equal(response.status, 200);
    assert.deepEqual(response.json, { jobId, events: [] });
  });

  it('gives history oldest first, and keeps the newest 100', async () => {
    const jobId = uniqueId('hundred');
    const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 105)));
    assert.deepEqual(sequenceNumbers(await api.history(jobId)), all.slice(5));
    assert.deepEqual(sequenceNumbers(await api.history(jobId, '?limit=5000')), all.slice(5));
    assert.deepEqual(sequenceNumbers(await api.history(jobId, '?limit=100')), all.slice(5));
  });

  it('gives the newest of them up to a limit', async () => {
    const jobId = uniqueId('limit');
    const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 6)));
    assert.deepEqual(sequenceNumbers(await api.history(jobId, '?limit=2')), all.slice(-2));
    assert.deepEqual(sequenceNumbers(await api.history(jobId, '?limit=1')), all.slice(-1));
  });

  it('gives what came after a number, and with a limit the oldest of that', async () => {
    const jobId = uniqueId('since');
    const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 6)));
    assert.deepEqual(sequenceNumbers(await api.history(jobId, `?since=${all[2]}`)), all.slice(3));
    assert.deepEqual(sequenceNumbers(await api.history(jobId, `?since=${all[0]}&limit=2`)), all.slice(1, 3));
    assert.deepEqual(sequenceNumbers(await api.history(jobId, '?since=0&limit=3')), all.slice(0, 3));
    assert.deepEqual(await api.history(jobId, `?since=${all.at(-1)}`), []);
  });

  it('can be paged through', async () => {
    const jobId = uniqueId('pages');
    const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 25)));
    const read = [];
    for (let since = 0; ; since = read.at(-1)) {
      const page = await api.history(jobId, `?since=${since}&limit=7`);
      if (page.length === 0) break;
      read.push(...sequenceNumbers(page));
    }
    assert.deepEqual(read, all);
  });

  it('refuses query parameters of the wrong form', async () => {
    const jobId = uniqueId('query');
    await api.update(jobId);
    for (const query of ['limit=0', 'limit=-1', 'limit=1.5', 'limit=abc', 'limit=', 'limit=99999999999999999999999']) {
      const response = await api.get(`/api/jobs/${jobId}/history?${query}`);
      if (query.startsWith('limit=9')) assert.ok([200, 422].includes(response.status), response.text);
      else assertProblem(response, 422, { mention: 'limit' });
    }
    for (const query of ['since=abc', 'since=1.5', 'since=2024-01-01T00:00:00Z']) {
      assertProblem(await api.get(`/api/jobs/${jobId}/history?${query}`), 422, { mention: 'since' });
    }
    assertProblem(await api.get('/api/jobs?limit=abc'), 422, { mention: 'limit' });
    assertProblem(await api.get('/api/jobs?userId=a%20b'), 422, { mention: 'userId' });
    assertProblem(await api.get('/api/jobs?tenantId='), 422, { mention: 'tenantId' });
    assertProblem(await api.get('/api/clients?limit=abc'), 422, { mention: 'limit' });
  });

  it('refuses ids of the wrong form', async () => {
    for (const path of ['a%20b', 'x'.repeat(129)]) {
      assertProblem(await api.get(`/api/jobs/${path}`), 422);
      assertProblem(await api.get(`/api/jobs/${path}/history`), 422);
      assertProblem(await api.get(`/api/jobs/${path}/events`), 422);
      assertProblem(await api.get(`/api/users/${path}/events`), 422);
    }
  });

  for (const owner of ['userId', 'tenantId']) {
    it(`lists the jobs of one ${owner} by their newest event, most recent first`, async () => {
      const [anna, bert] = [uniqueId('anna'), uniqueId('bert')];
      const [first, second, foreign, third] = ['first', 'second', 'foreign', 'third'].map(uniqueId);
      for (const [jobId, who] of [
        [first, anna],
        [second, anna],
        [foreign, bert],
        [third, anna],
      ]) {
        const { timestamp } = await api.update(jobId, { status: 'queued', [owner]: who });
        await clockPast(timestamp);
      }
      const newest = await api.progress(first, 50);

      const listed = await jobs(`?${owner}=${anna}`);
      assert.deepEqual(jobIds(listed), [first, third, second]);
      assert.deepEqual(listed[0], {
        event: 'job:progress',
        status: 'in_progress',
        progress: 50,
        [owner]: anna,
        ...newest,
      });
      assert.deepEqual(jobIds(await jobs(`?${owner}=${anna}&limit=2`)), [first, third]);
      assert.deepEqual(jobIds(await jobs(`?${owner}=${bert}`)), [foreign]);
      assert.deepEqual(await jobs(`?${owner}=${uniqueId('nobody')}`), []);
    });
  }

  it('lists all jobs, most recent first', async () => {
    const ids = [uniqueId('all'), uniqueId('all'), uniqueId('all')];
    for (const jobId of ids) {
      const { timestamp } = await api.update(jobId);
      await clockPast(timestamp);
    }
    assert.deepEqual(jobIds(await jobs('?limit=3')), ids.toReversed());
    const all = await jobs('');
    assert.deepEqual(jobIds(all.slice(0, 3)), ids.toReversed());
    const times = all.map((event) => event.timestamp);
    assert.deepEqual(times, times.toSorted().reverse());
    assert.equal(new Set(jobIds(all)).size, all.length);
  });

  it('compresses large answers for those who take gzip', async () => {
    const jobId = uniqueId('gzip');
    await api.publishAll(updatesOf(jobId, 100, { data: 'x'.repeat(500) }));
    const path = `/api/jobs/${jobId}/history`;
    const plain = await api.get(path);
    assert.equal(plain.headers['content-encoding'], undefined);
    const packed = await api.get(path, { 'accept-encoding': 'gzip' });
    assert.equal(packed.headers['content-encoding'], 'gzip');
    assert.ok(packed.bytes.length < plain.bytes.length / 5, `${packed.bytes.length} of ${plain.bytes.length} bytes`);
    assert.equal(gunzipSync(packed.bytes).toString(), plain.text);
    assert.equal(plain.json.events.length, 100);
  });

  it('says that it lives and that its store answers', async () => {
    assert.equal((await api.get('/healthz')).status, 200);
    assert.equal((await api.get('/readyz')).status, 200);
  });

  it('has metrics in the text format of Prometheus, in which publishing shows', async () => {
    const measure = async () => {
      const response = await api.get('/metrics');
      assert.equal(response.status, 200);
      assert.match(response.headers['content-type'], /^(text\/plain|application\/openmetrics-text)/);
      const samples = response.text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
      for (const line of samples) {
        assert.match(line, /^[a-zA-Z_:][\w:]*(\{.*\})? (-?[\d.]+(e[+-]?\d+)?|NaN|[+-]Inf)( [\d.]+)?$/i);
      }
      assert.match(response.text, /^# TYPE \S+ counter$/m);
      return samples.join('\n');
    };
    const before = await measure();
    await api.update(uniqueId('measured'));
    assert.notEqual(await measure(), before);
  });

  it('answers in JSON', async () => {
    const jobId = uniqueId('json');
    const published = await api.post(`/api/jobs/${jobId}/update`, { status: 'queued' });
    const answers = [
      published,
      ...(await Promise.all(
        [
          `/api/jobs/${jobId}`,
          `/api/jobs/${jobId}/history`,
          '/api/jobs',
          '/api/clients',
          `/api/rooms/job:${jobId}`,
        ].map((path) => api.get(path)),
      )),
    ];
    for (const { headers } of answers) assert.match(headers['content-type'], /^application\/json/);
  });
});
