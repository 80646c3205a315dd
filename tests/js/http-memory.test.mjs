// What waits in memory for somebody is bounded by `limits.memory`, whatever it waits for.

import assert from 'node:assert/strict';
import net from 'node:net';
import { it } from 'node:test';
import { assertProblem, eventually, send, sequenceNumbers, uniqueId, updatesOf } from './support/clients.mjs';
import { metricsOf } from './support/metrics.mjs';
import { describeEachStore } from './support/stores.mjs';

const LARGE = 100_000;

const env = { JOBCAST_LIMITS__MEMORY: '16MiB' };

/** How many bytes a gateway holds for a purpose. */
const held = async (gateway, purpose) => (await metricsOf(gateway))[`jobcast_memory_held_bytes{purpose="${purpose}"}`];

/** Asks for something and reads nothing of the answer. Answers the sockets. */
function askWithoutReading(t, gateway, path, count) {
  const sockets = Array.from({ length: count }, () => {
    const socket = net.connect(gateway.port, '127.0.0.1');
    socket.pause();
    socket.on('error', () => {});
    socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    return socket;
  });
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  return sockets;
}

describeEachStore(
  'long answers',
  (context) => {
    const publishLarge = async (api, jobs) => {
      for (const jobId of jobs) await api.update(jobId, { status: 'queued', data: jobId.padEnd(LARGE, '.') });
    };

    it('are read and written page by page, whole and in order', async () => {
      const { api } = context;
      const jobs = Array.from({ length: 30 }, (_, index) => uniqueId(`long-${index}`));
      await publishLarge(api, jobs);
      await api.publishAll(updatesOf('long-history', 60, { data: 'x'.repeat(LARGE) }));

      const list = await api.get('/api/jobs?limit=1000');
      assert.equal(list.headers['content-length'], undefined);
      assert.match(list.headers['content-type'], /^application\/json/);
      const listed = list.json.jobs.map((event) => event.jobId);
      assert.deepEqual(listed, ['long-history', ...jobs.toReversed()]);
      const history = await api.history('long-history');
      assert.deepEqual(
        sequenceNumbers(history),
        history.map((_, index) => history[0].seq + index),
      );
      assert.equal(history.length, 60);
      const after = await api.history('long-history', `?since=${history[9].seq}&limit=40`);
      assert.deepEqual(sequenceNumbers(after), sequenceNumbers(history.slice(10, 50)));
      const short = await api.get('/api/jobs/long-history/history?limit=1');
      assert.equal(Number(short.headers['content-length']), short.bytes.length);
    });

    it('repeat and reorder nothing while their history rotates', async () => {
      const { api } = context;
      const jobId = uniqueId('rotating');
      await api.publishAll(updatesOf(jobId, 60, { data: 'x'.repeat(LARGE) }));
      await api.publishAll(updatesOf(jobId, 40, { data: 'x'.repeat(LARGE) }));
      const reading = api.history(jobId);
      for (let more = 0; more < 3; more += 1) await api.publishAll(updatesOf(jobId, 50, { data: 'x' }));
      const numbers = sequenceNumbers(await reading);
      assert.ok(numbers.length > 0 && numbers.length <= 100);
      for (const [index, number] of numbers.slice(1).entries()) assert.ok(number > numbers[index]);
    });

    it('count for streams too, until they are read or end', async (t) => {
      const gateway = await context.another(t, { env });
      const [socket] = askWithoutReading(t, gateway, '/api/jobs/streamed/events?since=0', 1);
      await eventually(async () => (await gateway.api.roomSize('job:streamed')) === 1, 'a stream that has begun');
      const waits = async () => (await held(gateway, 'outbox')) > 0;
      while (!(await waits())) await gateway.api.publishAll(updatesOf('streamed', 10, { data: 'x'.repeat(LARGE) }));
      socket.destroy();
      await eventually(async () => !(await waits()), 'nothing to wait');
    });

    // The system's own buffers take megabytes for each reader first.
    it('hold no more than they may for those who do not read them', { skip: context.kind === 'redis' }, async (t) => {
      const gateway = await context.another(t, { env });
      const { api } = gateway;
      await publishLarge(
        api,
        Array.from({ length: 150 }, (_, index) => `job-${index}`),
      );
      const sockets = askWithoutReading(t, gateway, '/api/jobs?limit=1000', 100);
      const refused = await eventually(async () => {
        const answer = await send(gateway.url, 'GET', '/api/jobs?limit=1', { fresh: true });
        return answer.status === 503 && answer;
      }, 'an answer that is refused', 30_000);
      assertProblem(refused, 503, { code: 'limit_reached', mention: 'limits.memory' });
      assert.equal(refused.headers['retry-after'], '1');
      // Pages that the system has taken make place for others.
      const bytes = await eventually(async () => {
        const now = await held(gateway, 'answer');
        return now > 12 * 1024 * 1024 && now;
      }, 'the budget to be full');
      assert.ok(bytes <= 16 * 1024 * 1024, `${bytes} bytes`);
      sockets.forEach((socket) => socket.destroy());
      await eventually(async () => (await held(gateway, 'answer')) === 0, 'nothing to be held', 30_000);
      const list = await api.get('/api/jobs?limit=1000');
      assert.equal(list.json.jobs.length, 150);
    });
  },
  { stores: ['embedded', 'redis'] },
);
