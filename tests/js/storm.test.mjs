// Everybody comes at once: all get in, and nobody who dawdles keeps a place.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as openConnection } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { openPolling, openSocket } from './support/by-hand.mjs';
import { eventually, httpClient, inTime, send, uniqueId } from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { startProcess, temporaryFolder } from './support/processes.mjs';
import { describeEachStore } from './support/stores.mjs';

const PATIENCE_MS = 60_000;

/** Asks on a connection of its own whether the process lives. */
const alive = async (gateway) =>
  assert.equal((await send(gateway.url, 'GET', '/healthz', { fresh: true })).status, 200);

/** A WebSocket, as a client gets it that comes back when it is told to. */
async function openAtLast(gateway) {
  for (;;) {
    try {
      return await openSocket(gateway);
    } catch (error) {
      assert.match(error.message, /503/);
      await pause(500);
    }
  }
}

/** A connection by hand: `{socket, closed}`. */
async function speaker(t, gateway, words) {
  const socket = openConnection(gateway.port, '127.0.0.1');
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  socket.resume();
  const closed = once(socket, 'close');
  await inTime(once(socket, 'connect'), 'the connection', PATIENCE_MS);
  socket.write(words);
  return { socket, closed };
}

describeEachStore('a storm', (context) => {
  it('of hundreds gets in through eight places', async (t) => {
    const gateway = await context.another(t, { env: { JOBCAST_LIMITS__HANDSHAKES: '8' } });
    const jobId = uniqueId('storm');
    const { seq } = await gateway.api.update(jobId);
    const clients = Array.from({ length: 400 }, async () => {
      const client = await openAtLast(gateway);
      t.after(() => client.socket.terminate());
      await client.enter('/jobs');
      const answer = await client.ask('subscribe:jobs', { jobId, since: seq });
      assert.equal(answer.recovered, true, JSON.stringify(answer));
    });
    await inTime(Promise.all([...clients, alive(gateway), gateway.api.progress(jobId, 1)]), 'all of them', PATIENCE_MS);
    assert.equal(await gateway.api.roomSize(`job:${jobId}`), 400);
  });

  it('finds the only place free, whoever came before', async (t) => {
    const env = { JOBCAST_LIMITS__HANDSHAKES: '1', JOBCAST_LIMITS__HANDSHAKE_TIMEOUT: '10m' };
    const gateway = await context.another(t, { env });
    const enter = async () => {
      const client = await openAtLast(gateway);
      t.after(() => client.socket.terminate());
      await client.enter('/jobs');
    };
    await enter();
    const polling = await openPolling(gateway);
    await polling.post('40/jobs,');
    await polling.frame('40/jobs,');
    const upgraded = await openSocket(gateway, { sid: polling.sid });
    t.after(() => upgraded.socket.terminate());
    assert.equal((await send(gateway.url, 'GET', '/socket.io/?EIO=4&transport=pigeon')).status, 400);
    const gone = await openAtLast(gateway);
    gone.cut();
    await inTime(enter(), 'the place', PATIENCE_MS);
  });

  it('of connections that never finish their handshake keeps nobody out', async (t) => {
    const env = { JOBCAST_LIMITS__HANDSHAKES: '2', JOBCAST_LIMITS__HANDSHAKE_TIMEOUT: '1s' };
    const gateway = await context.another(t, { env });
    // It has said all it has to say for now, and is not cut.
    const idle = await openSocket(gateway);
    t.after(() => idle.socket.terminate());
    await idle.enter('/jobs');
    const silent = [];
    for (const words of ['', '', '', '', 'GET /healthz HTTP/1.1\r\nhost']) {
      silent.push((await speaker(t, gateway, words)).closed);
    }
    const lost = Array.from({ length: 5 }, () => openAtLast(gateway).then(({ closed }) => closed));
    await alive(gateway);
    const last = await openAtLast(gateway);
    t.after(() => last.socket.terminate());
    await last.enter('/jobs');
    await inTime(Promise.all([...silent, ...lost]), 'all of them to be cut', PATIENCE_MS);
    const { jobId } = await gateway.api.update(uniqueId('after'));
    assert.equal((await idle.ask('subscribe:jobs', { jobId })).success, true);
  });
});

describe('more connections than files may be open', () => {
  it('are refused, said once, while the others are served', async (t) => {
    const example = await startGateway();
    t.after(() => example.kill());
    const cwd = temporaryFolder('files');
    const command = 'ulimit -n 160; exec "$0" serve --listen 127.0.0.1:0';
    const started = await startProcess('/bin/sh', ['-c', command, example.process.spawnfile], {
      cwd,
      env: { PATH: process.env.PATH },
      ready: (line) => /^listening on (http:\/\/\S+:(\d+))$/.exec(line),
    });
    t.after(() => started.kill());
    const gateway = { url: started.answer[1], port: Number(started.answer[2]), api: httpClient(started.answer[1]) };
    await gateway.api.update('kept');

    const others = [];
    for (let count = 0; count < 200; count += 1) others.push(await speaker(t, gateway, ''));
    await eventually(() => others.some(({ socket }) => socket.destroyed), 'a refusal');
    // On the connection that it has kept.
    for (let count = 0; count < 100; count += 1) await gateway.api.update(uniqueId('kept'));
    await eventually(() => others.filter(({ socket }) => socket.destroyed).length >= 100, 'the refusals');
    await started.logged(/refusing connections/);
    assert.equal(started.stderr().match(/refusing connections/g).length, 1, started.stderr());

    for (const { socket } of others) socket.destroy();
    await eventually(() => alive(gateway).then(() => true, () => false), 'room for more');
    assert.equal(await started.stop(), 0, started.stderr());
  });
});
