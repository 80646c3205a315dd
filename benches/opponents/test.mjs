// Every subject does what the scenarios rely on. Needs redis-server.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { Redis } from 'ioredis';
import { io } from 'socket.io-client';
import WebSocket from 'ws';

const home = import.meta.dirname;
const subjects = JSON.parse(await readFile(join(home, 'subjects.json'), 'utf8'));

for (const [name, subject] of Object.entries(subjects)) {
  describe(name, { timeout: 30_000 }, () => {
    let store;
    let gateway;
    before(async () => {
      if (subject.redis) store = await startRedis();
      gateway = await startSubject(subject, store?.env);
    });
    after(async () => {
      await gateway?.stop();
      await store?.stop();
    });

    test('the frame is the same, byte by byte, for every subject', async () => {
      const watcher = await rawWatcher(gateway.url, { jobId: 'frame' });
      const first = await progress(gateway.url, 'frame', { progress: 42, message: 'rows ü "4"', userId: 'u' });
      assert.deepEqual(Object.keys(first), ['jobId', 'seq', 'timestamp']);
      assert.match(first.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      assert.ok(Math.abs(first.seq - Date.now()) < 5_000, 'numbers start at the time');
      assert.equal(
        await watcher.next(),
        '42/jobs,["job:progress",{"event":"job:progress","jobId":"frame","status":"in_progress","progress":42,' +
          `"message":"rows ü \\"4\\"","userId":"u","timestamp":"${first.timestamp}","seq":${first.seq}}]`,
      );
      const second = await progress(gateway.url, 'frame', { progress: 43.5, message: '' });
      assert.equal(second.seq, first.seq + 1);
      assert.equal(
        await watcher.next(),
        '42/jobs,["job:progress",{"event":"job:progress","jobId":"frame","status":"in_progress","progress":43.5,' +
          `"message":"","timestamp":"${second.timestamp}","seq":${second.seq}}]`,
      );
      watcher.close();
    });

    test('a batch is answered in its order and reaches the watchers of each job', async () => {
      const [a, b] = await Promise.all(['batch:a', 'batch:b'].map((jobId) => watch(gateway.url, [{ jobId }])));
      const drafts = Array.from({ length: 1000 }, (_, i) => draft(i % 3 ? 'batch:a' : 'batch:b', i % 101));
      const { results } = await post(gateway.url, '/api/events', drafts);
      assert.deepEqual(results.map(({ jobId }) => jobId), drafts.map(({ jobId }) => jobId));
      for (const watcher of [a, b]) {
        const ofJob = results.filter(({ jobId }) => jobId === watcher.acks[0].room.slice('job:'.length));
        assert.deepEqual((await watcher.take(ofJob.length)).map(receiptOf), ofJob);
        inOrder(ofJob);
        watcher.close();
      }
    });

    test('concurrent publishes, one by one and in batches, come in order', async () => {
      const watcher = await watch(gateway.url, [{ jobId: 'order' }]);
      const batch = (job) => post(gateway.url, '/api/events', Array.from({ length: 7 }, () => draft(job, 2)));
      const calls = Array.from({ length: 300 }, (_, i) =>
        i % 10 ? progress(gateway.url, 'order', { progress: 1, message: 'm' }) : batch(i % 20 ? 'order' : 'other'),
      );
      const answers = await Promise.all(calls);
      const seqs = answers.flatMap((answer) => answer.results ?? answer).filter(({ jobId }) => jobId === 'order');
      const events = await watcher.take(seqs.length);
      inOrder(events);
      assert.deepEqual(events.map(receiptOf), seqs.sort((x, y) => x.seq - y.seq));
      watcher.close();
    });

    test('a client in several rooms of an event gets it once', async () => {
      const watcher = await watch(gateway.url, [{ jobId: 'once' }, { userId: 'ada' }, undefined]);
      assert.deepEqual(watcher.acks.map(({ room }) => room), ['job:once', 'user:ada', 'all-jobs']);
      const sent = [];
      for (const jobId of ['once', 'once', 'another']) {
        sent.push(await progress(gateway.url, jobId, { progress: 1, userId: 'ada' }));
      }
      assert.deepEqual((await watcher.take(3)).map(receiptOf), sent);
      watcher.close();
    });

    test('a subscription is answered with the newest event', async () => {
      const { seq } = await progress(gateway.url, 'latest', { progress: 7, message: 'm' });
      const watcher = await watch(gateway.url, [{ jobId: 'latest' }, { jobId: 'unheard-of' }, { userId: 'nobody' }]);
      const [known, unknown, user] = watcher.acks;
      assert.deepEqual(Object.keys(known), ['success', 'room', 'message', 'latest']);
      assert.equal(known.success, true);
      assert.equal(known.latest.seq, seq);
      assert.equal(unknown.latest, null);
      assert.equal(user.latest, null);
      watcher.close();
    });

    test('bad calls are refused', async () => {
      const status = async (path, body) => (await call(gateway.url, path, body)).status;
      assert.equal(await status('/api/events', '[{'), 400);
      assert.equal(await status('/api/events', '{}'), 400);
      assert.equal(await status('/api/events', JSON.stringify(Array(1001).fill(draft('a', 1)))), 413);
      assert.equal(await status('/api/events', '[{"jobId":"a"}]'), 422);
      assert.equal(await status('/api/jobs/a/progress', '{"progress":101}'), 422);
      const large = { ...draft('large', 1), message: 'x'.repeat(7 * 1024 * 1024) };
      assert.equal(await status('/api/events', JSON.stringify([large])), 200);
      // Bun answers and closes before the body is through, which may look like a cut to who is still sending.
      const tooLarge = status('/api/events', JSON.stringify([{ ...large, more: 'x'.repeat(1024 * 1024) }]));
      assert.ok([413, 'cut'].includes(await tooLarge.catch(() => 'cut')));
    });

    if (subject.redis) {
      test('history is capped and expires, and `since` replays from it', async () => {
        const { results } = await post(gateway.url, '/api/events', Array.from({ length: 250 }, () => draft('old', 1)));
        const kept = await store.client.lrange('job-history:old', 0, -1);
        assert.deepEqual(kept.map((event) => receiptOf(JSON.parse(event))), results.slice(-100).reverse());
        for (const key of ['job-history:old', 'job-seq:old']) {
          assert.ok((await store.client.ttl(key)) > 86_000, key);
        }
        const watcher = await watch(gateway.url, [{ jobId: 'old', since: results[239].seq }]);
        const next = await progress(gateway.url, 'old', { progress: 2 });
        assert.deepEqual((await watcher.take(11)).map(receiptOf), [...results.slice(240), next]);
        watcher.close();
      });

      test('clients and their rooms are known while they are there', async () => {
        const watcher = await watch(gateway.url, [{ jobId: 'a' }, { userId: 'u' }]);
        const client = await store.client.hgetall(`client:${watcher.id}`);
        assert.deepEqual(Object.keys(client).sort(), ['address', 'connectedAt', 'transport', 'userAgent']);
        assert.equal(client.transport, 'websocket');
        assert.deepEqual((await store.client.smembers(`subscriptions:${watcher.id}`)).sort(), ['job:a', 'user:u']);
        watcher.close();
        await until(async () => (await store.client.keys(`*:${watcher.id}`)).length === 0);
      });

      test('two nodes on one Redis reach each other', async () => {
        const env = { ...store.env, ADAPTER: 'redis' };
        const nodes = await Promise.all([startSubject(subject, env), startSubject(subject, env)]);
        try {
          const watcher = await watch(nodes[1].url, [{ jobId: 'far' }, { userId: 'ada' }]);
          const sends = Array.from({ length: 50 }, () => progress(nodes[0].url, 'far', { progress: 1, userId: 'ada' }));
          await Promise.all(sends);
          inOrder(await watcher.take(50));
          watcher.close();
        } finally {
          await Promise.all(nodes.map((node) => node.stop()));
        }
      });
    }

    test('SIGTERM ends it, with watchers there', async () => {
      const watcher = await watch(gateway.url, [undefined]);
      await gateway.stop();
      watcher.close();
      if (store) assert.deepEqual(await store.client.keys('client:*'), []);
    });
  });
}

const draft = (jobId, progress) => ({ event: 'job:progress', jobId, progress, message: 'm' });
const receiptOf = ({ jobId, seq, timestamp }) => ({ jobId, seq, timestamp });

function inOrder(events) {
  events.forEach(({ seq }, i) => assert.equal(seq, events[0].seq + i));
}

function call(url, path, body) {
  return fetch(url + path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
}

async function post(url, path, body) {
  const response = await call(url, path, JSON.stringify(body));
  assert.equal(response.status, 200);
  return response.json();
}

const progress = (url, jobId, body) => post(url, `/api/jobs/${encodeURIComponent(jobId)}/progress`, body);

/** A client of `/jobs` with its subscriptions made. `take` waits for events and fails on one too many. */
async function watch(url, interests) {
  const socket = io(`${url}/jobs`, { transports: ['websocket'], reconnection: false, forceNew: true });
  const events = [];
  socket.on('job:progress', (event) => events.push(event));
  await once(socket, 'connect');
  const acks = [];
  for (const interest of interests) {
    const payload = interest === undefined ? [] : [interest];
    acks.push(await socket.timeout(5_000).emitWithAck('subscribe:jobs', ...payload));
  }
  const take = async (count) => {
    await until(() => events.length >= count);
    // Whatever was sent before this answer is here when it comes.
    await socket.timeout(5_000).emitWithAck('subscribe:jobs', { jobId: 'marker' });
    assert.equal(events.length, count);
    return events.splice(0);
  };
  return { id: socket.id, acks, take, close: () => socket.close() };
}

/** A client that shows the frames as they are, from its subscription on. */
async function rawWatcher(url, interest) {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
  const frames = [];
  socket.on('message', (data) => frames.push(data.toString()));
  const next = async () => {
    await until(() => frames.length > 0);
    return frames.shift();
  };
  const opened = JSON.parse((await next()).slice(1));
  assert.equal(opened.pingInterval, 25_000);
  assert.equal(opened.pingTimeout, 20_000);
  assert.equal(socket.extensions, '', 'no compression');
  socket.send('40/jobs,{}');
  assert.match(await next(), /^40\/jobs,\{"sid":"[^"]+"/);
  socket.send(`42/jobs,0${JSON.stringify(['subscribe:jobs', interest])}`);
  assert.match(await next(), /^43\/jobs,0\[\{"success":true,"room":"[^"]+","message":"[^"]+","latest":null\}\]$/);
  return { next, close: () => socket.close() };
}

async function startSubject({ command: [program, ...args] }, env = {}) {
  const child = spawn(program, args, {
    cwd: home,
    env: { ...process.env, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const stop = () => end(child);
  const line = await Promise.race([
    once(createInterface(child.stdout), 'line').then(([text]) => text),
    once(child, 'exit').then(() => 'ended'),
  ]);
  const [, url] = /^listening on (http:\/\/127\.0\.0\.1:\d+)$/.exec(line) ?? assert.fail(line);
  return { url, stop };
}

async function startRedis() {
  const port = await freePort();
  const dir = await mkdtemp(join(tmpdir(), 'opponents-'));
  const args = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', dir];
  const child = spawn('redis-server', args, { stdio: 'ignore' });
  await once(child, 'spawn');
  const client = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 50 });
  client.on('error', () => {}); // refused until it listens
  await client.ping();
  const stop = async () => {
    client.disconnect();
    await end(child);
    await rm(dir, { recursive: true });
  };
  return { client, env: { REDIS_URL: `redis://127.0.0.1:${port}` }, stop };
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit', { signal: AbortSignal.timeout(5_000) }).catch((error) => {
    child.kill('SIGKILL');
    throw error;
  });
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

async function until(condition) {
  const deadline = Date.now() + 5_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, 'waited for 5 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
