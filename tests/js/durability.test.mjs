// What was answered is there after a crash at whatever moment, and what has expired is gone.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import {
  assertProblem,
  clockPast,
  eventually,
  httpClient,
  numbersBetween,
  randomNumbers,
  sequenceNumbers,
  uniqueId,
} from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { temporaryFolder } from './support/processes.mjs';
import { describeEachStore } from './support/stores.mjs';

/** How many crashes, spread over series that each begin with an empty folder. */
const ROUNDS = Number(process.env.ROUNDS ?? 12);
const SERIES = [
  { cap: 100_000 },
  // Histories rotate, and what has not been published to for long is gone.
  { cap: 15, retentionMs: 20_000 },
];
const ROUNDS_PER_SERIES = 6;
const PUBLISHERS = 8;
const BATCH = 5;
const RETENTION_MS = 1_000;
const ENDED = ['job:completed', 'job:error'];

/** What publishers sent, and what they know of it. */
class Ledger {
  /** By job `{owner, accepted, sent}`: the answered events by number, and all that were ever sent by their tags. */
  jobs = new Map();
  /** The calls that were answered, and those that were cut: `{path, body, headers, events, answer}`. */
  answered = [];
  cut = [];

  job(jobId, owner) {
    const known = this.jobs.get(jobId) ?? { owner, accepted: new Map(), sent: new Map() };
    this.jobs.set(jobId, known);
    return known;
  }

  keep(call, answer) {
    this.answered.push({ ...call, answer });
    const results = answer.results ?? [answer];
    for (const [index, { jobId, seq, timestamp, error }] of results.entries()) {
      assert.equal(error, undefined, JSON.stringify(error));
      const { accepted } = this.jobs.get(jobId);
      assert.ok(!accepted.has(seq), `${seq} of ${jobId} was given twice`);
      accepted.set(seq, { ...call.events[index], timestamp });
    }
  }
}

const tagOf = (event) => event.message ?? event.data?.tag ?? event.result?.tag ?? event.error;

/**
 * One publisher: progress of a job of its own, which ends and is followed by another, and of one that it shares with
 * all the others, by single calls and batches, with and without keys; until the connection is cut.
 */
async function publishUntilCut(api, ledger, { name, shared, random, onAnswer }) {
  const owner = { userId: `user-${name}`, tenantId: 'acme' };
  let [job, length, step] = [0, 0, 0];

  /** Sends a call, and answers whether the gateway still does. */
  const send = async (call) => {
    for (const { jobId, ...event } of call.events) ledger.jobs.get(jobId).sent.set(tagOf(event), event);
    const response = await api.post(call.path, call.body, call.headers).catch(() => undefined);
    if (!response) {
      ledger.cut.push(call);
      return false;
    }
    assert.equal(response.status, 200, response.text);
    ledger.keep(call, response.json);
    onAnswer();
    return true;
  };
  const single = (event) => {
    const { event: kind, jobId, ...body } = event;
    const headers = random() < 0.5 ? { 'idempotency-key': `key-${tagOf(event)}` } : {};
    return send({ path: `/api/jobs/${jobId}/${kind.slice('job:'.length)}`, body, headers, events: [event] });
  };

  for (;;) {
    step += 1;
    const jobId = `${name}-${job}`;
    const tag = `${name}-${step}`;
    const progress = (index) => ({
      event: 'job:progress',
      jobId: random() < 0.4 ? shared : jobId,
      progress: Math.round(random() * 100),
      message: `${tag}-${index}`,
    });
    let going;
    if (length === 0) {
      ledger.job(jobId, owner);
      // Some are larger than a block of the disk.
      const data = { tag, filler: 'x'.repeat(random() < 0.2 ? 20_000 * random() : 0) };
      going = await single({ event: 'job:update', jobId, status: 'queued', data, ...owner });
    } else if (length > 4 && random() < 0.2) {
      const failed = random() < 0.3;
      going = await single(
        failed ? { event: 'job:error', jobId, error: tag } : { event: 'job:completed', jobId, result: { tag } },
      );
      job += 1;
      length = -1;
    } else if (random() < 0.2) {
      const events = Array.from({ length: BATCH }, (_, index) => progress(index));
      const keyed = random() < 0.5;
      const body = events.map((event) => (keyed ? { ...event, id: `id-${event.message}` } : event));
      going = await send({ path: '/api/events', body, keyed, events });
    } else {
      going = await single(progress(0));
    }
    if (!going) return;
    length += 1;
  }
}

/** Publishes, and kills the gateway after some hundred answers. */
async function publishAndCrash(gateway, ledger, { round, seed }) {
  const random = randomNumbers(seed + 1_000 * round);
  const api = httpClient(gateway.url);
  const shared = `shared-${round}`;
  const queued = { event: 'job:update', status: 'queued', tenantId: 'acme' };
  ledger.job(shared, { tenantId: 'acme' }).sent.set(undefined, queued);
  ledger.keep({ events: [queued] }, await api.update(shared, { status: 'queued', tenantId: 'acme' }));

  let left = 50 + Math.floor(random() * 400);
  let enough;
  const due = new Promise((resolve) => {
    enough = resolve;
  });
  const onAnswer = () => {
    left -= 1;
    if (left === 0) enough();
  };
  const publishers = Array.from({ length: PUBLISHERS }, (_, index) =>
    publishUntilCut(api, ledger, {
      name: `round-${round}-${index}`,
      shared,
      random: randomNumbers(seed + 1_000 * round + index + 1),
      onAnswer,
    }),
  );
  const publishing = Promise.all(publishers);
  await Promise.race([due, publishing]);
  // What matters is how far the writes of the moment have come.
  await pause(random() * 5);
  await gateway.kill();
  await publishing;
}

/** Whether a job has had its last event so long ago that it may have expired by now, or will be before it is looked at. */
const mayBeGone = ({ accepted }, { retentionMs }) => {
  const last = [...accepted.values()].map(({ timestamp }) => Date.parse(timestamp));
  return retentionMs !== undefined && Date.now() - Math.max(...last) > retentionMs / 2;
};

/** Expects of each job all that was answered, up to the cap, nothing that was never sent, and nothing by halves. */
async function assertKept(api, ledger, series, where) {
  for (const [jobId, job] of ledger.jobs) {
    const { owner, accepted, sent } = job;
    const events = await api.history(jobId, '?limit=100000');
    if (events.length === 0) {
      assert.ok(accepted.size === 0 || mayBeGone(job, series), `${jobId} is lost, ${where}`);
      continue;
    }
    assert.ok(events.length <= series.cap, `${events.length} events of ${jobId}, ${where}`);
    const first = events[0].seq;
    assert.deepEqual(sequenceNumbers(events), numbersBetween(first, first + events.length - 1), `${jobId}, ${where}`);
    for (const [seq, answered] of accepted) {
      if (seq < first && events.length === series.cap) continue;
      const stored = events[seq - first];
      assert.ok(stored, `${seq} of ${jobId} is lost, ${where}`);
      assert.equal(stored.timestamp, answered.timestamp, where);
      assert.equal(tagOf(stored), tagOf(answered), where);
    }
    const tags = events.map(tagOf);
    assert.equal(new Set(tags).size, tags.length, `${jobId} has something twice, ${where}`);
    for (const stored of events) {
      const { id: _, ...fields } = sent.get(tagOf(stored)) ?? assert.fail(`${JSON.stringify(stored)} of nobody`);
      const { seq, timestamp, ...rest } = stored;
      assert.ok(Number.isInteger(seq) && Number.isFinite(Date.parse(timestamp)), JSON.stringify(stored));
      for (const [field, value] of Object.entries({ jobId, ...owner, ...fields })) {
        assert.deepEqual(rest[field], value, `${field} of ${seq} of ${jobId}, ${where}`);
      }
    }
    if (mayBeGone(job, series)) continue;
    assert.deepEqual((await api.get(`/api/jobs/${jobId}`)).json, events.at(-1), where);
  }
}

const hasKey = (call) => call.keyed || (call.headers && 'idempotency-key' in call.headers);

/** Sends calls with keys again: the answered get the same answer, the cut are accepted once, then or now. */
async function repeatCalls(api, ledger, { answered, cut }, where) {
  for (const { path, body, headers, answer } of answered.filter(hasKey)) {
    const again = await api.post(path, body, headers);
    assert.equal(again.status, 200, `${again.text}, ${where}`);
    assert.deepEqual(again.json, answer, where);
  }
  for (const call of cut.filter(hasKey)) {
    const again = await api.post(call.path, call.body, call.headers);
    assert.equal(again.status, 200, `${again.text}, ${where}`);
    ledger.keep(call, again.json);
  }
}

/** Goes on with each of the jobs, by exactly one and as their owner's; what has ended stays so until it is reopened. */
async function goOn(api, ledger, jobs, where) {
  for (const jobId of jobs) {
    const { sent } = ledger.jobs.get(jobId);
    const newest = (await api.history(jobId, '?limit=1')).at(-1);
    // Its first event was cut, and without a key: nobody knows of this job.
    if (!newest) continue;
    const send = async (event) => {
      const { event: kind, ...body } = event;
      sent.set(tagOf(event), event);
      const answer = await api.publish(jobId, kind.slice('job:'.length), body);
      ledger.keep({ events: [event] }, answer);
      return answer.seq;
    };
    const progress = { event: 'job:progress', progress: 1, message: `${where}: on` };
    let due = newest.seq + 1;
    if (ENDED.includes(newest.event)) {
      const refused = await api.post(`/api/jobs/${jobId}/progress`, { progress: 1 });
      assertProblem(refused, 409, { code: 'job_finished' });
      const reopened = { event: 'job:update', status: 'again', data: { tag: `${where}: reopened` } };
      assert.equal(await send(reopened), due, `${jobId}, ${where}`);
      due += 1;
    }
    const foreign = await api.post(`/api/jobs/${jobId}/update`, { status: 'mine', tenantId: 'somebody-else' });
    assertProblem(foreign, 409, { code: 'owner_mismatch' });
    assert.equal(await send(progress), due, `${jobId}, ${where}`);
  }
}

async function crashAgainAndAgain(t, series, rounds, seed) {
  const path = join(temporaryFolder('durability'), 'data');
  const env = { JOBCAST_HISTORY__MAX_EVENTS: `${series.cap}` };
  if (series.retentionMs) env.JOBCAST_HISTORY__RETENTION = `${series.retentionMs}ms`;
  const ledger = new Ledger();
  let running = await startGateway({ store: 'embedded', path, env });
  t.after(() => running.kill());

  for (let round = 1; round <= rounds; round += 1) {
    const where = `round ${round}, SEED=${seed}, ${JSON.stringify(series)}`;
    const [jobs, answered, cut] = [ledger.jobs.size, ledger.answered.length, ledger.cut.length];
    await publishAndCrash(running, ledger, { round, seed });
    assert.ok(ledger.cut.length > cut, `nothing was under way, ${where}`);

    running = await startGateway({ store: 'embedded', path, env });
    const api = httpClient(running.url);
    await assertKept(api, ledger, series, where);
    const calls = { answered: ledger.answered.slice(answered), cut: ledger.cut.slice(cut) };
    await repeatCalls(api, ledger, calls, where);
    await goOn(api, ledger, [...ledger.jobs.keys()].slice(jobs), where);
    await assertKept(api, ledger, series, `${where}, afterwards`);

    const listed = (await api.get('/api/jobs?limit=1000')).json.jobs.map(({ jobId }) => jobId);
    const expected = [...ledger.jobs].filter(([, { accepted }]) => accepted.size > 0);
    assert.ok(expected.length < 1000);
    const certain = expected.filter(([, job]) => !mayBeGone(job, series)).map(([jobId]) => jobId);
    const possible = new Set(expected.map(([jobId]) => jobId));
    assert.deepEqual(certain.filter((jobId) => !listed.includes(jobId)), [], where);
    assert.deepEqual(listed.filter((jobId) => !possible.has(jobId)), [], where);
    assert.equal(new Set(listed).size, listed.length, where);
  }
  assert.ok(ledger.answered.filter(hasKey).length > 10 * rounds);
  assert.equal(await running.stop(), 0, running.stderr());
}

it('a crash at any moment costs nothing that was answered', async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
  t.diagnostic(`SEED=${seed}`);
  for (let done = 0, index = 0; done < ROUNDS; done += ROUNDS_PER_SERIES, index += 1) {
    const rounds = Math.min(ROUNDS_PER_SERIES, ROUNDS - done);
    await crashAgainAndAgain(t, SERIES[index % SERIES.length], rounds, seed + index);
  }
});

it('a crash during the first start leaves a folder that the next one takes up', async (t) => {
  for (let round = 0; round < ROUNDS; round += 1) {
    const path = join(temporaryFolder('first'), 'data');
    const starting = startGateway({ store: 'embedded', path, deadline: (round % 12) * 4 }).catch((error) => error);
    const started = await starting;
    if (!(started instanceof Error)) await started.kill();
    const again = await startGateway({ store: 'embedded', path }).catch((error) =>
      assert.fail(`killed after ${(round % 12) * 4} ms: ${error.message}`),
    );
    t.after(() => again.kill());
    const { seq } = await httpClient(again.url).update('job');
    await again.kill();
    const third = await startGateway({ store: 'embedded', path });
    t.after(() => third.kill());
    assert.deepEqual(sequenceNumbers(await httpClient(third.url).history('job')), [seq]);
    await third.kill();
  }
});

describeEachStore('history.retention', (context) => {
  const options = { env: { JOBCAST_HISTORY__RETENTION: `${RETENTION_MS}ms` } };

  /** Publishes two events of a job that are there for certain, and answers the last. */
  const begin = (api, jobId) =>
    eventually(async () => {
      await api.update(jobId, { status: 'queued', userId: 'anna' });
      const published = await api.progress(jobId, 50);
      // A machine that pauses for so long lets the job expire in between.
      return (await api.get(`/api/jobs/${jobId}`)).status === 200 && published;
    }, 'a job that is there');

  const assertGone = async (api, jobId) => {
    assertProblem(await api.get(`/api/jobs/${jobId}`), 404);
    assert.deepEqual(await api.history(jobId), []);
    for (const query of ['', '?userId=anna']) assert.deepEqual((await api.get(`/api/jobs${query}`)).json.jobs, []);
  };

  it('lets a job expire after its last event, and never gives its numbers again', async (t) => {
    const { api } = await context.another(t, options);
    const jobId = uniqueId('expiring');
    let newest = await begin(api, jobId);
    for (let times = 0; times < 2; times += 1) {
      await eventually(async () => (await api.get(`/api/jobs/${jobId}`)).status === 404, 'the job to expire');
      assert.ok(Date.now() - Date.parse(newest.timestamp) >= RETENTION_MS, 'it had a second');
      await assertGone(api, jobId);
      // Of the owner nothing is left either.
      const next = await api.update(jobId, { status: 'anew', userId: times ? 'carl' : 'bob' });
      assert.ok(next.seq > newest.seq, `${next.seq} after ${newest.seq}`);
      newest = next;
    }
  });

  it('is counted from the last event', async (t) => {
    const { api } = await context.another(t, options);
    const jobId = uniqueId('lively');
    const first = await begin(api, jobId);
    let last = first;
    // Longer than the retention in all, with an event every now and then.
    for (let step = 1; step <= 12; step += 1) {
      await pause(RETENTION_MS / 8);
      const late = Date.now() - Date.parse(last.timestamp) > RETENTION_MS / 2;
      const published = await api.progress(jobId, step);
      if (late) return t.skip('the machine is too slow for this');
      assert.equal(published.seq, last.seq + 1);
      last = published;
    }
    assert.ok(Date.parse(last.timestamp) - Date.parse(first.timestamp) > RETENTION_MS);
    assert.equal((await api.history(jobId)).length, 14);
  });

  it('passes while the gateway is down, too', async (t) => {
    const gateway = await context.another(t, options);
    const jobId = uniqueId('forgotten');
    const last = await begin(gateway.api, jobId);
    assert.equal(await gateway.stop(), 0, gateway.stderr());
    await clockPast(Date.parse(last.timestamp) + RETENTION_MS);
    const { api } = await gateway.again(options);
    await assertGone(api, jobId);
    const next = await api.update(jobId, { status: 'anew', userId: 'bob' });
    assert.ok(next.seq > last.seq, `${next.seq} after ${last.seq}`);
  });
});
