// What a disk can do to the embedded store: be full, be read-only, hold something else or damaged files.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import {
  assertProblem,
  connect,
  eventually,
  httpClient,
  numbersBetween,
  sequenceNumbers,
} from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { smallDisk } from './support/small-disk.mjs';

const OUTAGES = 4;
const JOBS = 6;
const env = { JOBCAST_HISTORY__MAX_EVENTS: '100000' };

const ready = async (api) => (await api.get('/readyz')).status === 200;

/** Publishes to a job, with a key each, until it is refused; answers the refused call and its answer. */
async function publishUntilRefused(api, jobId, accepted, outage) {
  for (let step = 0; ; step += 1) {
    const tag = `${jobId}-${outage}-${step}`;
    // From smaller than a block of the disk to several.
    const body = { status: 'working', userId: 'anna', data: { tag, filler: 'x'.repeat((step * 997) % 9_000) } };
    const call = [`/api/jobs/${jobId}/update`, body, { 'idempotency-key': tag }];
    const response = await api.post(...call);
    if (response.status !== 200) return { jobId, tag, call, response };
    accepted.push({ tag, ...response.json });
  }
}

async function assertKept(api, jobId, accepted) {
  const events = await api.history(jobId, '?limit=100000');
  assert.deepEqual(
    events.map(({ seq, timestamp, data }) => ({ tag: data.tag, jobId, seq, timestamp })),
    accepted,
    jobId,
  );
  assert.deepEqual(sequenceNumbers(events), numbersBetween(events[0].seq, events[0].seq + events.length - 1));
}

it('a full disk refuses what is new, keeps what was answered, and passes without a restart', async (t) => {
  const disk = await smallDisk();
  if (disk.skip) return t.skip(disk.skip);
  t.after(() => disk.end());
  const path = join(disk.path, 'data');
  let gateway = await startGateway({ store: 'embedded', path, env, within: disk.enter });
  t.after(() => gateway.kill());
  const api = httpClient(() => gateway.url);
  const watcher = await connect(t, gateway);
  await watcher.subscribe({ userId: 'anna' });
  const jobs = Array.from({ length: JOBS }, (_, index) => ({ jobId: `job-${index}`, accepted: [] }));

  for (let outage = 1; outage <= OUTAGES; outage += 1) {
    const publishing = Promise.all(
      jobs.map(({ jobId, accepted }) => publishUntilRefused(api, jobId, accepted, outage)),
    );
    await eventually(() => jobs.every(({ accepted }) => accepted.length > 10 * outage), 'events before the outage');
    disk.fill();
    const refused = await publishing;

    for (const { response } of refused) {
      assertProblem(response, 503, { code: 'unavailable', mention: `the disk of the folder ${path} is full` });
      assert.ok(response.headers['retry-after']);
    }
    assertProblem(await api.get('/readyz'), 503, { mention: `the disk of the folder ${path} is full` });
    assert.equal((await api.get('/healthz')).status, 200);
    // Reading and watching go on.
    for (const { jobId, accepted } of jobs) {
      await assertKept(api, jobId, accepted);
      await watcher.through(accepted.at(-1));
    }
    assert.equal((await api.post('/api/broadcast', { event: `still-${outage}`, data: {} })).status, 200);
    await watcher.next(`still-${outage}`);
    // It stays so, at no cost.
    assertProblem(await api.post(...refused[0].call), 503, { mention: 'full' });

    disk.free();
    await eventually(() => ready(api), 'the end of the outage');
    for (const { jobId, tag, call } of refused) {
      const response = await api.post(...call);
      assert.equal(response.status, 200, response.text);
      const { accepted } = jobs.find((job) => job.jobId === jobId);
      accepted.push({ tag, ...response.json });
      assert.deepEqual((await api.post(...call)).json, response.json);
    }
    for (const { jobId, accepted } of jobs) await assertKept(api, jobId, accepted);
    const listed = (await api.get('/api/jobs?userId=anna')).json.jobs.map(({ jobId }) => jobId);
    assert.deepEqual(listed.sort(), jobs.map(({ jobId }) => jobId));
    // One line when it begins and one when it ends, however many were refused.
    const said = (line) => gateway.stderr().split(line).length - 1;
    assert.equal(said('cannot write'), outage, gateway.stderr());
    assert.equal(said('events are written and accepted again'), outage, gateway.stderr());
  }
  for (const { jobId, accepted } of jobs) {
    const seen = await watcher.through(accepted.at(-1));
    assert.deepEqual(sequenceNumbers(seen), sequenceNumbers(accepted), jobId);
  }
  assert.ok(!gateway.stderr().includes('panicked'), gateway.stderr());

  // A crash while it is full, and a start: what there is can be read.
  disk.fill();
  const call = ['/api/jobs/job-0/update', { status: 'late', data: { tag: 'late' } }, { 'idempotency-key': 'late' }];
  await eventually(async () => {
    const response = await api.post('/api/jobs/filler/update', { status: 'x'.repeat(64), data: 'x'.repeat(4_000) });
    return response.status === 503;
  }, 'the disk to be full');
  assertProblem(await api.post(...call), 503, { mention: 'full' });
  await gateway.kill();
  gateway = await startGateway({ store: 'embedded', path, env, within: disk.enter });
  for (const { jobId, accepted } of jobs) await assertKept(api, jobId, accepted);
  disk.free();
  await eventually(() => ready(api), 'the end of the outage');
  const [first] = jobs;
  first.accepted.push({ tag: 'late', ...(await eventually(async () => {
    const response = await api.post(...call);
    return response.status === 200 && response.json;
  }, 'the call to be accepted')) });
  for (const { jobId, accepted } of jobs) await assertKept(api, jobId, accepted);
  assert.equal(await gateway.stop(), 0, gateway.stderr());
});
