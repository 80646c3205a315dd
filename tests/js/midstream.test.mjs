// Subscribing while a stream of events is under way: never a gap or a repetition between the acknowledgement,
// what is replayed, and what is live.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { connect, eventually, httpClient, uniqueId } from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { startRedis } from './support/redis.mjs';

/** How many live events end a subscription. */
const ENOUGH = 20;

/**
 * Publishes to jobs for as long as a test runs, one event of a job after another, several jobs side by side.
 * A job has `length` events (without it, it has no end); then the next one begins in its place.
 */
class Stream {
  /** For each job `{numbers, times}`: what the publisher was answered. */
  jobs = new Map();
  #publishing;
  #stopped = false;

  constructor(apis, { jobs, length = Infinity, owner = {}, publishers = jobs }) {
    this.apis = apis;
    const places = Array.from({ length: jobs }, () => null);
    const next = async (place, api) => {
      let jobId = places[place];
      if (!jobId || this.jobs.get(jobId).numbers.length >= length) {
        jobId = uniqueId('stream');
        places[place] = jobId;
        this.jobs.set(jobId, { numbers: [], times: [] });
        this.keep(await api.update(jobId, { status: 'queued', ...owner }));
      } else {
        this.keep(await api.progress(jobId, 50));
      }
    };
    const publisher = async (index) => {
      for (let round = 0; !this.#stopped; round += 1) {
        for (let place = index; place < jobs; place += publishers) {
          await next(place, apis[(index + round) % apis.length]);
        }
      }
    };
    this.#publishing = Promise.all(Array.from({ length: publishers }, (_, index) => publisher(index)));
    // Whoever waits for the end hears of a failure; until then it is no unhandled one.
    this.#publishing.catch(() => {});
  }

  keep({ jobId, seq, timestamp }) {
    const { numbers, times } = this.jobs.get(jobId);
    assert.equal(seq, numbers.length ? numbers.at(-1) + 1 : seq, 'numbers rise by one');
    numbers.push(seq);
    times.push(Date.parse(timestamp));
  }

  /** The only job of a stream that has one without end. */
  get jobId() {
    return this.jobs.keys().next().value;
  }

  first(jobId) {
    return this.jobs.get(jobId).numbers[0];
  }

  /** The newest number of a job that its publisher knows. */
  newest(jobId) {
    return this.jobs.get(jobId)?.numbers.at(-1);
  }

  /** The first number of a job that bears that time or a later one. */
  firstSince(jobId, time) {
    const { numbers, times } = this.jobs.get(jobId);
    return numbers[times.findIndex((at) => at >= time)];
  }

  /** Waits until each of the first jobs has so many events. */
  async begun(jobs, count) {
    const long = ({ numbers }) => numbers.length >= count;
    await eventually(() => [...this.jobs.values()].filter(long).length >= jobs, 'the stream to begin');
  }

  async end() {
    this.#stopped = true;
    await this.#publishing;
  }
}

/** Starts a stream that the test's end stops. */
async function startStream(t, apis, options, begun = 30) {
  const stream = new Stream(apis, options);
  t.after(() => stream.end());
  await stream.begun(options.jobs, begun);
  return stream;
}

/** What a subscription brought: the acknowledgement, and what came before and after it. */
async function watch(t, gateway, payload, isEnough) {
  const watcher = await connect(t, gateway);
  try {
    const answer = await watcher.subscribe(payload);
    const isOver = () => isEnough(watcher, answer);
    await watcher.log.until(isOver, `enough after ${JSON.stringify(payload)}`, 20_000);
    const { items } = watcher.log;
    assert.equal(items[0].name, 'ack', 'nothing comes before the acknowledgement');
    return { answer, items: items.slice(1) };
  } finally {
    watcher.close();
  }
}

const liveAfter = (seq) => (watcher) => (watcher.log.items.at(-1).payload.seq ?? 0) >= seq + ENOUGH;

/** Expects numbers without gap or repetition from `first` on, `job:gap` standing for what it names. */
function assertContiguous(items, first, context) {
  let due = first;
  for (const { name, payload } of items) {
    if (name === 'job:gap') {
      assert.ok(payload.to >= due && payload.from <= due, `gap ${payload.from}-${payload.to} at ${due}; ${context}`);
      due = payload.to + 1;
    } else {
      assert.equal(payload.seq, due, context);
      due += 1;
    }
  }
}

const gapsOf = (items) => items.filter(({ name }) => name === 'job:gap');

/** Runs `work(index)` so often, `atOnce` at a time. */
async function repeat(times, atOnce, work) {
  let index = 0;
  const worker = async () => {
    while (index < times) {
      index += 1;
      await work(index - 1);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

const CONFIGURATIONS = {
  'two gateways on Redis': { nodes: 2, redis: true },
  'the embedded store': { nodes: 1, redis: false },
};

function describeEach(name, define, env) {
  for (const [where, { nodes, redis }] of Object.entries(CONFIGURATIONS)) {
    describe(`${name}, ${where}`, () => {
      const context = {};
      before(async () => {
        if (redis) context.redis = await startRedis();
        const store = redis ? { redisUrl: context.redis.url } : 'embedded';
        context.gateways = await Promise.all(Array.from({ length: nodes }, () => startGateway({ store, env })));
        context.apis = context.gateways.map((gateway) => httpClient(gateway.url));
      });
      after(async () => {
        for (const gateway of context.gateways) assert.equal(await gateway.stop(), 0, gateway.stderr());
        await context.redis?.stop();
      });
      define(context);
    });
  }
}

// Few at once leave the room empty in between, many keep it occupied.
const CROWDS = [
  { times: 40, atOnce: 2 },
  { times: 160, atOnce: 20 },
];

describeEach(
  'joining in midstream',
  (context) => {
    const gatewayOf = (index) => context.gateways[index % context.gateways.length];

    for (const { times, atOnce } of CROWDS) {
      describe(`${times} times, ${atOnce} at once`, () => {
        it('a job: what follows the newest', async (t) => {
          const stream = await startStream(t, context.apis, { jobs: 1 });
          const { jobId } = stream;
          await repeat(times, atOnce, async (index) => {
            const isEnough = (watcher, { latest }) => liveAfter(latest.seq)(watcher);
            const { answer, items } = await watch(t, gatewayOf(index), { jobId }, isEnough);
            assertContiguous(items, answer.latest.seq + 1, `latest ${answer.latest.seq}`);
            assert.deepEqual(gapsOf(items), []);
          });
        });

        it('a job: what follows a number', async (t) => {
          const stream = await startStream(t, context.apis, { jobs: 1 });
          const { jobId } = stream;
          await repeat(times, atOnce, async (index) => {
            // Some just seen, some long ago, and now and then all there ever was.
            const back = index % 10 === 9 ? Infinity : (index * 7) % 150;
            const since = Math.max(stream.first(jobId) - 1, stream.newest(jobId) - back);
            const asked = back === Infinity ? 0 : since;
            const isEnough = (watcher, { latest }) => liveAfter(latest.seq)(watcher);
            const { answer, items } = await watch(t, gatewayOf(index), { jobId, since: asked }, isEnough);
            assert.equal(answer.recovered, true);
            assertContiguous(items, since + 1, `since ${since}, latest ${answer.latest.seq}`);
            assert.deepEqual(gapsOf(items), []);
          });
        });

        it('a job: the newest so many', async (t) => {
          const stream = await startStream(t, context.apis, { jobs: 1 });
          const { jobId } = stream;
          await repeat(times, atOnce, async (index) => {
            const replay = (index * 3) % 25;
            const isEnough = (watcher, { latest }) => liveAfter(latest.seq)(watcher);
            const { answer, items } = await watch(t, gatewayOf(index), { jobId, replay }, isEnough);
            const { latest, replaying } = answer;
            assert.equal(replaying, replay);
            const [{ payload: first }] = items;
            assertContiguous(items, first.seq, `replay ${replay}, latest ${latest.seq}`);
            assert.deepEqual(gapsOf(items), []);
            assert.ok(first.seq > latest.seq - replay, `not more than ${replay}: ${first.seq}, latest ${latest.seq}`);
            assert.ok(first.seq <= latest.seq + 1, `a hole between latest ${latest.seq} and ${first.seq}`);
          });
        });

        for (const [room, select] of Object.entries({
          'a user': ({ userId }) => ({ userId }),
          'a tenant': ({ tenantId }) => ({ tenantId }),
          'all jobs': () => ({}),
        })) {
          // What makes the difference is in the rooms of single jobs; of these, so many are enough.
          const count = room === 'all jobs' ? times / 2 : times / 4;

          it(`${room}: what follows the newest of each job`, async (t) => {
            const owner = { userId: uniqueId('anna'), tenantId: uniqueId('acme') };
            const stream = await startStream(t, context.apis, { jobs: 6, length: 100, owner });
            const seen = [];
            await repeat(count, atOnce, async (index) => {
              const isEnough = (watcher) => watcher.jobEvents().length >= ENOUGH;
              seen.push(await watch(t, gatewayOf(index), select(owner), isEnough));
            });
            await stream.end();
            for (const { answer, items } of seen) {
              assert.deepEqual(gapsOf(items), []);
              const newest = new Map(answer.latest.map((event) => [event.jobId, event.seq]));
              for (const jobId of new Set(items.map(({ payload }) => payload.jobId))) {
                const events = items.filter(({ payload }) => payload.jobId === jobId);
                // The snapshot has place for all jobs of this stream: what it does not name began after it.
                const due = newest.has(jobId) ? newest.get(jobId) + 1 : stream.first(jobId);
                // The snapshot is read after the room's end: it may know what comes then.
                const first = events[0].payload.seq;
                assertContiguous(events, Math.min(first, due), `${jobId}, latest ${newest.get(jobId)}`);
              }
            }
          });

          it(`${room}: everything since a time`, async (t) => {
            const owner = { userId: uniqueId('anna'), tenantId: uniqueId('acme') };
            const stream = await startStream(t, context.apis, { jobs: 6, length: 100, owner });
            const seen = [];
            await repeat(count, atOnce, async (index) => {
              const time = Date.now() - ((index * 13) % 300);
              const since = index % 2 ? time : new Date(time).toISOString();
              const isEnough = (watcher, { latest }) => {
                const events = watcher.jobEvents();
                const newest = new Map(latest.map((event) => [event.jobId, event.seq]));
                const replayed = latest
                  .filter(({ timestamp }) => Date.parse(timestamp) >= time)
                  .every(({ jobId, seq }) => events.some((event) => event.jobId === jobId && event.seq >= seq));
                const live = events.filter(({ jobId, seq }) => seq > (newest.get(jobId) ?? 0));
                return replayed && live.length >= ENOUGH;
              };
              seen.push({ time, ...(await watch(t, gatewayOf(index), { ...select(owner), since }, isEnough)) });
            });
            await stream.end();
            for (const { time, items, answer } of seen) {
              assert.deepEqual(gapsOf(items), []);
              for (const jobId of new Set(items.map(({ payload }) => payload.jobId))) {
                // Streams of earlier tests have ended; what they left is replayed to those who go back so far.
                if (!stream.jobs.has(jobId)) continue;
                const events = items.filter(({ payload }) => payload.jobId === jobId);
                const due = stream.firstSince(jobId, time) ?? stream.newest(jobId) + 1;
                const [{ payload: first, args }] = events;
                assertContiguous(events, Math.min(first.seq, due), `${jobId} since ${time}`);
                // What was accepted after the subscription comes in any case. Of all else the place in the room counts, which
                // may be later than its own time.
                const isLive = answer.latest.every((event) => event.jobId !== jobId || event.seq < first.seq);
                const [position] = Object.values(args[1]);
                assert.ok(first.seq === due || isLive || parseInt(position, 10) >= time, `${position} since ${time}`);
              }
            }
          });
        }
      });
    }

    it('the list of jobs names each of them at every moment', async (t) => {
      const owner = { userId: uniqueId('anna') };
      const stream = await startStream(t, context.apis, { jobs: 6, owner });
      const expected = [...stream.jobs.keys()].sort();
      await repeat(300, 3, async (index) => {
        const answer = await context.apis[index % context.apis.length].get(`/api/jobs?userId=${owner.userId}`);
        assert.deepEqual(answer.json.jobs.map(({ jobId }) => jobId).sort(), expected);
      });
    });

    it('more jobs than the snapshot names: nothing that is published after the acknowledgement is missing', async (t) => {
      const owner = { userId: uniqueId('anna') };
      const stream = await startStream(t, context.apis, { jobs: 130, publishers: 10, owner }, 3);
      await repeat(60, 20, async (index) => {
        const watcher = await connect(t, gatewayOf(index));
        const known = new Map();
        const answer = await new Promise((resolve) => {
          watcher.socket.emit('subscribe:jobs', owner, (acknowledged) => {
            for (const jobId of stream.jobs.keys()) known.set(jobId, stream.newest(jobId));
            resolve(acknowledged);
          });
        });
        assert.equal(answer.latest.length, 100);
        const newest = new Map(answer.latest.map((event) => [event.jobId, event.seq]));
        await watcher.log.until(() => watcher.jobEvents().length >= 300, '300 live events', 20_000);
        watcher.close();
        for (const jobId of known.keys()) {
          const items = watcher.log.items.filter(({ payload }) => payload.jobId === jobId);
          if (items.length === 0) continue;
          const first = items[0].payload.seq;
          assertContiguous(items, first, jobId);
          assert.deepEqual(gapsOf(items), []);
          if (newest.has(jobId)) assert.ok(first <= newest.get(jobId) + 1, `${first} after ${newest.get(jobId)}`);
          // One was under way and may have been accepted already; the next was sent after the acknowledgement.
          assert.ok(first <= known.get(jobId) + 2, `${first} after the acknowledgement at ${known.get(jobId)}`);
        }
      });
    });

    it('several rooms, come to and left again: one job goes on through all of it', async (t) => {
      const owner = { userId: uniqueId('anna'), tenantId: uniqueId('acme') };
      const stream = await startStream(t, context.apis, { jobs: 2, owner });
      const [jobId, other] = stream.jobs.keys();
      const rooms = [{ jobId }, { userId: owner.userId }, { tenantId: owner.tenantId }, {}];
      await repeat(60, 20, async (index) => {
        const watcher = await connect(t, gatewayOf(index));
        // From each room into the next, with a moment in both.
        const turns = rooms.map((_, turn) => rooms[(index + turn) % rooms.length]);
        const { latest } = await watcher.subscribe(turns[0]);
        const begin = [latest].flat().find((event) => event.jobId === jobId).seq;
        for (let turn = 1; turn < 8; turn += 1) {
          await watcher.subscribe(turns[turn % rooms.length]);
          assert.equal((await watcher.ask('unsubscribe:jobs', turns[(turn - 1) % rooms.length])).success, true);
        }
        const end = stream.newest(jobId) + ENOUGH;
        const events = await watcher.through({ jobId, seq: end });
        // The snapshot of a shared room may know what comes then.
        assertContiguous(
          events.map((payload) => ({ payload })),
          Math.min(events[0].seq, begin + 1),
          `${jobId} from ${begin}`,
        );
        assert.ok(watcher.jobEvents(other).length > 0);
        assert.deepEqual(gapsOf(watcher.log.items), []);
        watcher.close();
      });
    });
  },
  { JOBCAST_HISTORY__MAX_EVENTS: '100000' },
);

describeEach(
  'joining in midstream, over a short history',
  (context) => {
    it('a job: the rest after a true gap', async (t) => {
      const stream = await startStream(t, context.apis, { jobs: 1 });
      const { jobId } = stream;
      let gaps = 0;
      await repeat(200, 20, async (index) => {
        const since = Math.max(stream.first(jobId) - 1, stream.newest(jobId) - ((index * 7) % 60));
        const isEnough = (watcher, { latest }) => liveAfter(latest.seq)(watcher);
        const gateway = context.gateways[index % context.gateways.length];
        const { answer, items } = await watch(t, gateway, { jobId, since }, isEnough);
        assertContiguous(items, since + 1, `since ${since}, latest ${answer.latest.seq}`);
        if (!answer.recovered) assert.equal(items[0].name, 'job:gap');
        gaps += gapsOf(items).length;
      });
      assert.ok(gaps > 0, 'some came too late for all of it');
    });
  },
  { JOBCAST_HISTORY__MAX_EVENTS: '20' },
);
