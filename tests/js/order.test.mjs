// Order across nodes: many publishers, two gateways, every watcher sees each event once and in its place.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  connect,
  httpClient,
  NDJSON_TYPE,
  numbersBetween,
  openStream,
  sequenceNumbers,
  uniqueId,
} from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { startRedis } from './support/redis.mjs';

const PUBLISHERS = 8;
const EVENTS = 1000;
const EACH = EVENTS / PUBLISHERS;
const SUBSCRIBERS = 50;
const DAY_SECONDS = 24 * 60 * 60;

describe('two gateways on one Redis server', () => {
  let redis;
  let gateways;
  let apis;

  before(async () => {
    redis = await startRedis();
    gateways = await Promise.all([1, 2].map(() => startGateway({ store: { redisUrl: redis.url } })));
    apis = gateways.map((gateway) => httpClient(gateway.url));
  });
  after(async () => {
    for (const gateway of gateways) assert.equal(await gateway.stop(), 0, gateway.stderr());
    await redis.stop();
  });

  const connectMany = (t, count) =>
    Promise.all(gateways.flatMap((gateway) => Array.from({ length: count }, () => connect(t, gateway))));

  /** The publishers side by side, half of them at each gateway; `publish(api, publisher)`. */
  const publishAtOnce = (publish) =>
    Promise.all(Array.from({ length: PUBLISHERS }, (_, publisher) => publish(apis[publisher % 2], publisher)));

  /** Sends a notice behind all events, and waits until every watcher has it: what is late or twice is there by then. */
  async function settle(watchers) {
    const name = uniqueId('settled');
    const sent = await apis[0].post('/api/broadcast', { event: name, data: null });
    assert.equal(sent.status, 200, sent.text);
    await Promise.all(watchers.map((watcher) => watcher.next(name)));
  }

  const message = (publisher, step) => `publisher ${publisher}, step ${step}`;

  const ways = {
    'one by one': async (api, publisher, jobId) => {
      const numbers = [];
      for (let step = 0; step < EACH; step += 1) {
        const body = { progress: (step * 100) / EACH, message: message(publisher, step) };
        numbers.push((await api.publish(jobId, 'progress', body)).seq);
      }
      return numbers;
    },
    'in batches': async (api, publisher, jobId) => {
      const numbers = [];
      while (numbers.length < EACH) {
        const first = numbers.length;
        const events = Array.from({ length: Math.min(30, EACH - first) }, (_, index) => ({
          event: 'job:progress',
          jobId,
          progress: 50,
          message: message(publisher, first + index),
        }));
        const lines = events.map((event) => JSON.stringify(event)).join('\n');
        const answer = await (publisher < PUBLISHERS / 2
          ? api.post('/api/events', events)
          : api.post('/api/events', lines, NDJSON_TYPE));
        assert.equal(answer.status, 200, answer.text);
        numbers.push(...answer.json.results.map(({ seq, error }) => seq ?? assert.fail(JSON.stringify(error))));
      }
      return numbers;
    },
  };

  for (const [how, publish] of Object.entries(ways)) {
    it(`bring ${EVENTS} events of one job, published ${how}, to ${2 * SUBSCRIBERS} subscribers`, async (t) => {
      const jobId = uniqueId('job');
      const watchers = await connectMany(t, SUBSCRIBERS);
      await Promise.all(watchers.map((watcher) => watcher.subscribe({ jobId })));

      const answered = await publishAtOnce((api, publisher) => publish(api, publisher, jobId));
      const expected = answered.flat().sort((a, b) => a - b);
      assert.deepEqual(expected, numbersBetween(expected[0], expected[0] + EVENTS - 1));
      const messages = new Map();
      for (const [publisher, numbers] of answered.entries()) {
        assert.deepEqual(
          numbers,
          numbers.toSorted((a, b) => a - b),
          'a publisher gets rising numbers for its calls',
        );
        for (const [step, seq] of numbers.entries()) messages.set(seq, message(publisher, step));
      }

      await Promise.all(watchers.map((watcher) => watcher.through({ jobId, seq: expected.at(-1) })));
      await settle(watchers);
      for (const watcher of watchers) {
        const events = watcher.jobEvents(jobId);
        assert.deepEqual(sequenceNumbers(events), expected);
        for (const event of events) assert.equal(event.message, messages.get(event.seq));
      }

      const key = `job-history:${jobId}`;
      const stored = await redis.client.lrange(key, 0, -1);
      assert.deepEqual(sequenceNumbers(stored.map((text) => JSON.parse(text))), expected.slice(-100).toReversed());
      const seconds = await redis.client.ttl(key);
      assert.ok(seconds > DAY_SECONDS - 60 && seconds <= DAY_SECONDS, `${seconds} s`);
    });
  }

  it('bring all events of several jobs to every kind of room and stream', async (t) => {
    const [userId, tenantId] = [uniqueId('anna'), uniqueId('acme')];
    const owned = Array.from({ length: 4 }, () => uniqueId('owned'));
    const foreign = uniqueId('foreign');
    const all = [...owned, foreign];
    const jobRooms = owned.map((jobId) => ({ jobId }));

    const watching = [];
    const streaming = [];
    for (const gateway of gateways) {
      for (const [rooms, jobs] of [
        [[{ userId }], owned],
        [[{ tenantId }], owned],
        [[{}], all],
        [jobRooms, owned],
        [[{}, { userId }, { tenantId }, ...jobRooms], all],
      ]) {
        const watcher = await connect(t, gateway);
        for (const payload of rooms) await watcher.subscribe(payload);
        watching.push({ watcher, jobs, where: JSON.stringify(rooms) });
      }
      for (const [where, jobs] of [
        ['/api/events', all],
        [`/api/users/${userId}/events`, owned],
        [`/api/jobs/${owned[0]}/events`, [owned[0]]],
      ]) {
        streaming.push({ stream: await openStream(t, gateway, where), jobs, where });
      }
    }

    const numbers = new Map(all.map((jobId) => [jobId, []]));
    const keep = ({ jobId, seq }) => numbers.get(jobId).push(seq);
    for (const jobId of owned) keep(await apis[0].update(jobId, { status: 'queued', userId, tenantId }));
    await publishAtOnce(async (api, publisher) => {
      for (let step = 0; step < 50; step += 1) {
        const jobId = step % 10 === 9 ? foreign : owned[(publisher + step) % owned.length];
        keep(await api.progress(jobId, step));
      }
    });
    for (const jobId of all) keep(await apis[1].completed(jobId));
    // Behind all the others, and for every room and stream: what is late or twice is there by then.
    keep(await apis[0].update(owned[0], { status: 'again' }));
    for (const list of numbers.values()) list.sort((a, b) => a - b);

    const assertSeen = (events, jobs, where) => {
      for (const jobId of all) {
        const seen = sequenceNumbers(events.filter((event) => event.jobId === jobId));
        assert.deepEqual(seen, jobs.includes(jobId) ? numbers.get(jobId) : [], `${jobId} in ${where}`);
      }
    };
    for (const { watcher, jobs, where } of watching) {
      for (const jobId of jobs) await watcher.through({ jobId, seq: numbers.get(jobId).at(-1) });
      assertSeen(watcher.jobEvents(), jobs, where);
    }
    for (const { stream, jobs, where } of streaming) {
      for (const jobId of jobs) await stream.through(jobId, numbers.get(jobId).at(-1));
      assertSeen(
        stream.events.items.map(({ data }) => JSON.parse(data)),
        jobs,
        where,
      );
    }
  });
});
