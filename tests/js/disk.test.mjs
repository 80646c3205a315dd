// What a disk can do to the embedded store: be full, be read-only, hold something else or damaged files.

import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import {
  assertProblem,
  connect,
  eventually,
  httpClient,
  numbersBetween,
  randomNumbers,
  sequenceNumbers,
} from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { temporaryFolder } from './support/processes.mjs';
import { smallDisk } from './support/small-disk.mjs';

const OUTAGES = 4;
const JOBS = 6;
const DAMAGES = Number(process.env.DAMAGES ?? 2);
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
    await gateway.logged(new RegExp(`(events are written and accepted again[^]*){${outage}}`));
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

/** Expects that a gateway does not start, and answers what it says. */
async function refusal(options) {
  const error = await startGateway({ store: 'embedded', ...options }).then(
    async (gateway) => {
      await gateway.kill();
      assert.fail(`it started on ${options.path}`);
    },
    (reason) => reason,
  );
  assert.ok(error.message.includes(options.path), error.message);
  assert.ok(!error.message.includes('panicked'), error.message);
  assert.equal(error.code, 1, error.message);
  return error.message;
}

describe('a folder that cannot be used', () => {
  const folder = () => temporaryFolder('bad');

  it('is a file', async () => {
    const path = join(folder(), 'data');
    writeFileSync(path, '');
    assert.match(await refusal({ path }), /there is a file of that name/);
    assert.match(await refusal({ path: join(path, 'below') }), /cannot create the folder .*Not a directory/);
  });

  it('is read-only, as a file system', async (t) => {
    const disk = await smallDisk();
    if (disk.skip) return t.skip(disk.skip);
    t.after(() => disk.end());
    const path = join(disk.path, 'data');
    const gateway = await startGateway({ store: 'embedded', path, within: disk.enter });
    const answered = await httpClient(gateway.url).update('job');
    await gateway.kill();
    await disk.remount('ro');
    const within = disk.enter;
    assert.match(await refusal({ path, within }), /cannot be written to: Read-only file system/);
    const fresh = join(disk.path, 'fresh');
    assert.match(await refusal({ path: fresh, within }), /cannot create the folder .*Read-only file system/);
    await disk.remount('rw');
    const again = await startGateway({ store: 'embedded', path, within });
    t.after(() => again.kill());
    assert.deepEqual(sequenceNumbers(await httpClient(again.url).history('job')), [answered.seq]);
  });

  it('is not open to the user', async (t) => {
    // Nothing is closed to root: it becomes nobody first.
    const within = process.getuid() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [];
    const path = join(folder(), 'data');
    mkdirSync(path);
    t.after(() => chmodSync(path, 0o755));
    chmodSync(join(path, '..'), 0o755);
    chmodSync(path, 0o555);
    assert.match(await refusal({ path, within, cwd: '/' }), /cannot be written to: Permission denied/);
    assert.match(await refusal({ path: join(path, 'fresh'), within, cwd: '/' }), /cannot create the folder .*Permission denied/);
  });

  it('holds the data of another program', async () => {
    const path = folder();
    writeFileSync(join(path, 'version'), 'PostgreSQL 17');
    assert.match(await refusal({ path }), /another program, or of another version/);
    assert.equal(readFileSync(join(path, 'version'), 'utf8'), 'PostgreSQL 17');
  });
});

describe('damage', () => {
  const JOBS = 3;
  /** The folder that a crash left, and what was answered before, in order. */
  let left;
  const journalIn = (path) => join(path, readdirSync(path).find((name) => name.endsWith('.jnl')));

  before(async () => {
    const path = join(temporaryFolder('damage'), 'data');
    const gateway = await startGateway({ store: 'embedded', path, env });
    const api = httpClient(gateway.url);
    const answered = [];
    const current = join(path, 'keyspaces/1/current');
    const empty = readFileSync(current);
    // Enough for a table or two on disk beside the journal.
    for (let step = 0; step < 240; step += 1) {
      const data = { step, filler: 'x'.repeat(step < 200 ? 100_000 : 100) };
      answered.push({ step, ...(await api.update(`job-${step % JOBS}`, { status: 'working', data })) });
    }
    await eventually(() => !readFileSync(current).equals(empty), 'a table');
    await gateway.kill();
    left = { path, answered };
  });

  const copy = () => {
    const path = join(temporaryFolder('damaged'), 'data');
    cpSync(left.path, path, { recursive: true });
    return path;
  };

  /** Starts on a folder, expects the first `count` of what was answered or more of it, and goes on. */
  async function assertBeginning(path, atLeast) {
    const gateway = await startGateway({ store: 'embedded', path, env });
    const api = httpClient(gateway.url);
    const kept = [];
    for (let job = 0; job < JOBS; job += 1) {
      const events = await api.history(`job-${job}`, '?limit=100000');
      kept.push(...events.map(({ jobId, seq, timestamp, data: { step } }) => ({ step, jobId, seq, timestamp })));
      const next = await api.update(`job-${job}`, { status: 'on' });
      assert.equal(next.seq, events.at(-1).seq + 1);
      assert.equal((await api.get(`/api/jobs/job-${job}`)).json.seq, next.seq);
    }
    kept.sort((a, b) => a.step - b.step);
    assert.ok(kept.length >= atLeast, `${kept.length} of ${atLeast}`);
    assert.deepEqual(kept, left.answered.slice(0, kept.length));
    assert.equal((await api.get('/api/jobs')).json.jobs.length, JOBS);
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  }

  /** The offset at which the last batch of a journal ends. */
  const endOf = (bytes) => bytes.lastIndexOf(Buffer.from('FJL\x03')) + 4;

  it('is none after a crash', () => assertBeginning(copy(), left.answered.length));

  for (const [name, cut] of Object.entries({ 'a byte': 1, 'an end': 13, 'more than that': 200 })) {
    it(`that cuts ${name} off the journal costs no more than the last event`, async () => {
      const path = copy();
      truncateSync(journalIn(path), endOf(readFileSync(journalIn(path))) - cut);
      await assertBeginning(path, left.answered.length - 1);
    });
  }

  it('at the end of the journal, as of a write that reached the disk in part, costs no more either', async () => {
    const path = copy();
    const journal = readFileSync(journalIn(path));
    journal.fill(0, endOf(journal) - 200, endOf(journal) - 100);
    writeFileSync(journalIn(path), journal);
    await assertBeginning(path, left.answered.length - 1);
  });

  it('in the journal is found, and nothing is thrown away', async () => {
    const place = endOf(readFileSync(journalIn(left.path)));
    for (const back of [0.01, 0.1, 0.5, 0.9, 1]) {
      const path = copy();
      const journal = readFileSync(journalIn(path));
      journal[Math.floor(place * (1 - back)) + 1] ^= 0x55;
      writeFileSync(journalIn(path), journal);
      const said = await refusal({ path });
      assert.match(said, /is damaged: \d+\.jnl cannot be read from byte \d+ on/);
      assert.ok(readFileSync(journalIn(path)).equals(journal), 'the journal has been changed');
    }
  });

  for (const [missing, said] of Object.entries({
    version: /damaged: version is missing/,
    keyspaces: /damaged: keyspaces\/0\/current is missing/,
    'keyspaces/0': /damaged: keyspaces\/0\/current is missing/,
    'keyspaces/1': /damaged: the tree beside keyspaces\/0 is missing/,
    'keyspaces/1/current': /damaged: keyspaces\/1\/current is missing/,
    'keyspaces/1/tables': /damaged/,
    journal: /damaged: its journal .* is missing/,
  })) {
    it(`is found where ${missing} is missing`, async () => {
      const path = copy();
      rmSync(missing === 'journal' ? journalIn(path) : join(path, missing), { recursive: true });
      assert.match(await refusal({ path }), said);
    });
  }

  it('in any other file is found, or does not matter', async (t) => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
    t.diagnostic(`SEED=${seed}`);
    const random = randomNumbers(seed);
    const files = readdirSync(left.path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !/^(lock|probe)$|\.jnl$/.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name).slice(left.path.length));
    assert.ok(files.length > 5, files.join(' '));
    for (const file of files) {
      for (let round = 0; round < DAMAGES; round += 1) {
        const place = random();
        const path = copy();
        const bytes = readFileSync(join(path, file));
        if (bytes.length === 0) continue;
        bytes[Math.floor(bytes.length * place)] ^= 0x55;
        writeFileSync(join(path, file), bytes);
        const gateway = await startGateway({ store: 'embedded', path, env }).catch((error) => error);
        const where = `${file} at ${place}, SEED=${seed}: ${gateway.message ?? gateway.stderr()}`;
        if (gateway instanceof Error) {
          assert.match(gateway.message, /damaged|another version|cannot open/, where);
          continue;
        }
        const api = httpClient(gateway.url);
        for (let job = 0; job < JOBS; job += 1) {
          const answer = await api.get(`/api/jobs/job-${job}/history?limit=100000`).catch((error) => error);
          if (answer.code === 'ECONNRESET') {
            // A history of several pages is cut where one of them cannot be read: it is never taken for whole.
            continue;
          }
          if (answer instanceof Error) throw answer;
          if (answer.status === 503) {
            assertProblem(answer, 503, { mention: 'damaged' });
            continue;
          }
          const own = left.answered.filter(({ jobId }) => jobId === `job-${job}`);
          assert.deepEqual(sequenceNumbers(answer.json.events), sequenceNumbers(own), where);
        }
        await gateway.kill();
      }
    }
  });
});
