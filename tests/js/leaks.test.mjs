// Ten thousand clients come and go, politely or not: nothing of them is left.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { abortStream, openPolling, openSocket } from './support/by-hand.mjs';
import { connect, eventually, httpClient, sequenceNumbers, uniqueId } from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { metricsOf } from './support/metrics.mjs';
import { startRedis } from './support/redis.mjs';

const CLIENTS = 10_000;
const AT_ONCE = 50;
const JOBS = 20;

/** Longer than a channel lingers in the feed and a silent poller is waited for. */
const PATIENCE_MS = 30_000;

/** The connections that the test's own agent keeps are counted by the open files. */
const STATE = /^jobcast_(sessions|rooms|connections|feed_rooms|sessions_behind|tasks(?!\{name="connections"\}))(\{|$)/;

/** What a gateway holds at the moment, by name; what is zero is left out. */
async function held(gateway) {
  const metrics = Object.entries(await metricsOf(gateway));
  return Object.fromEntries(metrics.filter(([name, value]) => STATE.test(name) && value !== 0));
}

const openFiles = ({ pid }) => (existsSync(`/proc/${pid}/fd`) ? readdirSync(`/proc/${pid}/fd`).length : 0);

const jobOf = (index) => `leak-${index % JOBS}`;
const userOf = (index) => `anna-${index % 5}`;

/** A client in `/jobs`, in three rooms. Some share a name, and so take each other's record over. */
async function watcher(gateway, index) {
  const client = await openSocket(gateway);
  await client.enter('/jobs', index % 4 ? undefined : { clientId: `shared-${index % 40}` });
  const rooms = [{ jobId: jobOf(index), since: 0 }, { userId: userOf(index) }, index % 2 ? {} : { jobId: `own-${index}` }];
  for (const payload of rooms) assert.equal((await client.ask('subscribe:jobs', payload)).success, true);
  return client;
}

async function poller(gateway, index) {
  const client = await openPolling(gateway);
  await client.post('40/jobs,');
  await client.frame('40/jobs,');
  await client.post(`42/jobs,1${JSON.stringify(['subscribe:jobs', { jobId: jobOf(index) }])}`);
  await client.frame('43/jobs,1[');
  return client;
}

/** The ways of coming and going, with how many of a hundred clients go them. */
const WAYS = [
  [
    15,
    'leaves its rooms, the namespace and the connection',
    async (gateway, index) => {
      const client = await watcher(gateway, index);
      await client.ask('unsubscribe:jobs', { userId: userOf(index) });
      client.socket.send('41/jobs,');
      client.socket.close();
      await client.closed;
    },
  ],
  [
    15,
    'closes the connection',
    async (gateway, index) => {
      const client = await watcher(gateway, index);
      client.socket.close();
      await client.closed;
    },
  ],
  [20, 'is cut', async (gateway, index) => (await watcher(gateway, index)).cut()],
  [
    10,
    'is cut while it subscribes',
    async (gateway, index) => {
      const client = await openSocket(gateway);
      await client.enter('/jobs');
      const rooms = [{ jobId: jobOf(index), since: 0 }, { userId: userOf(index), since: 0 }, {}];
      const answers = rooms.map((payload) => client.ask('subscribe:jobs', payload));
      for (const answer of answers) answer.catch(() => {});
      await (index % 2 ? client.sent() : answers[0]);
      client.cut();
    },
  ],
  [
    5,
    'is cut while it enters',
    async (gateway, index) => {
      const client = await openSocket(gateway);
      client.enter('/jobs').catch(() => {});
      await client.sent();
      if (index % 2) client.cut();
      else client.socket.terminate();
    },
  ],
  [
    10,
    'never enters',
    async (gateway, index) => {
      const client = await openSocket(gateway);
      await client.frame('0{');
      if (index % 2) client.cut();
      else client.socket.close();
      await client.closed;
    },
  ],
  [
    3,
    'polls and says goodbye',
    async (gateway, index) => {
      const client = await poller(gateway, index);
      await client.post('41/jobs,', '1');
    },
  ],
  [2, 'polls and falls silent', poller],
  [
    2,
    'falls silent in the middle of an upgrade',
    async (gateway, index) => {
      const { sid } = await poller(gateway, index);
      const client = await openSocket(gateway, { sid });
      client.socket.send('2probe');
      await client.frame('3probe');
      client.cut();
    },
  ],
  [
    2,
    'upgrades and is cut',
    async (gateway, index) => {
      const { sid } = await poller(gateway, index);
      const client = await openSocket(gateway, { sid });
      client.socket.send('2probe');
      await client.frame('3probe');
      client.socket.send('5');
      await client.ask('subscribe:jobs', { userId: userOf(index) });
      client.cut();
    },
  ],
  [
    12,
    'gives up a stream',
    async (gateway, index) => {
      const path = [`/api/jobs/${jobOf(index)}/events?since=0`, `/api/users/${userOf(index)}/events`, '/api/events'][index % 3];
      await abortStream(gateway, path, ['connect', 'response', 'data'][(index >> 2) % 3]);
    },
  ],
  [
    4,
    'is refused',
    async (gateway, index) => {
      const client = await openSocket(gateway);
      if (index % 2) {
        client.socket.send('40/nothing,');
        await client.frame('44/nothing,');
      } else {
        client.socket.send('40/jobs,{"clientId":"not an id"}');
        await client.frame('44/jobs,');
      }
      client.cut();
    },
  ],
];

const PLAN = WAYS.flatMap(([share, name, way]) => Array.from({ length: share }, () => ({ name, way })));

/** Lets all clients come and go, in the middle of deliveries. */
async function comeAndGo(gateway, api) {
  let index = 0;
  const one = async () => {
    while (index < CLIENTS) {
      index += 1;
      const number = index;
      if (number % 4 === 0) await api.update(jobOf(number), { status: 'busy', userId: userOf(number) });
      // A step that has no divisor in common with the plan's length spreads the ways evenly.
      const { name, way } = PLAN[(number * 37) % PLAN.length];
      await way(gateway, number).catch((cause) => {
        throw new Error(`client ${number}, which ${name}: ${cause.message}`, { cause });
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

describe('clients that have come and gone', () => {
  for (const kind of ['embedded', 'redis']) {
    it(`leave nothing behind, ${kind} store`, async (t) => {
      assert.equal(PLAN.length, 100);
      const redis = kind === 'redis' ? await startRedis() : undefined;
      const gateway = await startGateway({
        store: redis ? { redisUrl: redis.url } : kind,
        env: { JOBCAST_SERVER__PING_INTERVAL: '2s', JOBCAST_SERVER__PING_TIMEOUT: '5s', JOBCAST_HISTORY__MAX_EVENTS: '10' },
      });
      t.after(async () => {
        await gateway.kill();
        await redis?.stop();
      });
      const api = httpClient(gateway.url);
      // Has been there before: what comes with the first use is no leak.
      (await connect(t, gateway)).close();
      await eventually(async () => !(await held(gateway)).jobcast_sessions, 'the first client to be gone');
      const [before, files] = [await held(gateway), openFiles(gateway)];

      const going = comeAndGo(gateway, api);
      going.catch(() => {});
      await eventually(async () => (await held(gateway)).jobcast_rooms > 0, 'clients to be there');
      await going;

      let now;
      const asBefore = async () => {
        now = await held(gateway);
        return JSON.stringify(Object.entries(now).sort()) === JSON.stringify(Object.entries(before).sort());
      };
      // Whatever is left is told by the comparison.
      await eventually(asBefore, '', PATIENCE_MS).catch(() => {});
      assert.deepEqual(now, before);
      await eventually(() => openFiles(gateway) < files + AT_ONCE + 20, 'the connections to be closed');
      if (redis) {
        const left = await Promise.all(
          ['client:*', 'subscriptions:*', 'jobcast:sessions:*', 'jobcast:clients'].map((keys) => redis.client.keys(keys)),
        );
        assert.deepEqual(left.flat(), []);
        assert.deepEqual(await redis.client.call('PUBSUB', 'SHARDCHANNELS'), ['jobcast:feed:broadcast']);
      }
      assert.equal((await api.get('/api/clients')).json.clients.length, 0);

      const jobId = uniqueId('afterwards');
      const late = await connect(t, gateway);
      await late.subscribe({ jobId });
      const published = await api.update(jobId);
      assert.deepEqual(sequenceNumbers(await late.through(published)), [published.seq]);
      late.close();
      assert.equal(await gateway.stop(), 0, gateway.stderr());
    });
  }
});
