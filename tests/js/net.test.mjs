// Connections that cannot hurt: contract, section 9, and the README's bounds of connections.

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, describe, it } from 'node:test';
import { openSocket } from './support/by-hand.mjs';
import { startGateway } from './support/gateway.mjs';
import { assertProblem, httpClient, send } from './support/http.mjs';
import { metricsOf } from './support/metrics.mjs';
import { eventually, inTime, uniqueId } from './support/waiting.mjs';

const PATIENCE_MS = 30_000;

/** A bare connection: `{socket, text(), until(pattern), closed()}`. */
async function dial(gateway, options = {}) {
  const socket = net.connect({ port: gateway.port, host: '127.0.0.1', ...options });
  let text = '';
  const waiting = new Set();
  const check = () => waiting.forEach((one) => one());
  socket.on('data', (bytes) => {
    text += bytes;
    check();
  });
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', () => (check(), resolve())));
  await inTime(new Promise((resolve) => socket.once('connect', resolve)), 'the connection', PATIENCE_MS);
  const until = (pattern) =>
    inTime(
      new Promise((resolve, reject) => {
        const one = () => {
          if (pattern.test(text)) resolve(text);
          else if (socket.destroyed) reject(new Error(`closed before ${pattern}: ${text}`));
        };
        waiting.add(one);
        one();
      }),
      `${pattern} in ${text}`,
      PATIENCE_MS,
    );
  return { socket, until, closed: () => inTime(closed, 'the end', PATIENCE_MS), text: () => text };
}

const request = (method, path, headers = {}, body = '') =>
  [`${method} ${path} HTTP/1.1`, 'Host: localhost', ...Object.entries(headers).map((pair) => pair.join(': '))].join(
    '\r\n',
  ) + `\r\n\r\n${body}`;

const cut = async (gateway, reason) =>
  (await metricsOf(gateway))[`jobcast_connections_cut_total{reason="${reason}"}`] ?? 0;

describe('connections', () => {
  let gateway;
  let api;

  before(async () => {
    gateway = await startGateway({
      env: {
        JOBCAST_LIMITS__HANDSHAKE_TIMEOUT: '1s',
        JOBCAST_LIMITS__IDLE: '2s',
        JOBCAST_LIMITS__MEMORY: '64MiB',
        // Pings count too.
        JOBCAST_LIMITS__MESSAGES_PER_SECOND: '1000000',
      },
    });
    api = httpClient(gateway.url);
  });

  after(async () => {
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  });

  it('do not speak HTTP/2', async () => {
    const peer = await dial(gateway);
    peer.socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    await peer.closed();
    assert.doesNotMatch(peer.text(), /^\0/);
  });

  it('end when the first head, a later one, or the pause between two takes too long', async () => {
    const [silent, dripping, idle] = await Promise.all([dial(gateway), dial(gateway), dial(gateway)]);
    const alive = request('GET', '/healthz');
    dripping.socket.write(alive);
    idle.socket.write(alive);
    await Promise.all([dripping.until(/"ok"/), idle.until(/"ok"/)]);
    dripping.socket.write('GET /heal');
    const drip = setInterval(() => dripping.socket.write('t'), 200);
    await Promise.all([silent.closed(), dripping.closed(), idle.closed()]);
    clearInterval(drip);
  });

  it('last as long as requests come', async () => {
    const peer = await dial(gateway);
    for (let count = 1; count <= 5; count += 1) {
      peer.socket.write(request('GET', '/healthz'));
      await peer.until(new RegExp(`("ok"[^]*){${count}}`));
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    peer.socket.destroy();
  });

  it('are answered when the peer has closed its sending side', async () => {
    const jobs = Array.from({ length: 30 }, () => uniqueId('half'));
    const body = JSON.stringify({ status: 'queued' });
    const headers = { 'content-type': 'application/json', 'content-length': body.length };
    const answers = jobs.map(async (job) => {
      const peer = await dial(gateway, { allowHalfOpen: true });
      peer.socket.end(request('POST', `/api/jobs/${job}/update`, headers, body));
      await inTime(new Promise((resolve) => peer.socket.once('end', resolve)), 'the end', PATIENCE_MS);
      assert.match(peer.text(), /^HTTP\/1.1 200 /);
      peer.socket.destroy();
    });
    await Promise.all(answers);
  });

  it('are cut off when a body comes too slowly, with a 408', async () => {
    const peer = await dial(gateway);
    const headers = { 'content-type': 'application/json', 'content-length': 100_000 };
    peer.socket.write(request('POST', '/api/jobs/slow/update', headers, '{'));
    const drip = setInterval(() => peer.socket.write(' '), 500);
    const answer = await peer.until(/\}$/);
    clearInterval(drip);
    assert.match(answer, /^HTTP\/1.1 408 [^]*application\/problem\+json[^]*"code":"request_timeout"/);
    await peer.closed();
  });

  it('get a 503 for a body that the budget has no place for', async () => {
    const size = 7 * 1024 * 1024;
    const head = request('POST', '/api/events', { 'content-type': 'application/json', 'content-length': size + 1 });
    const peers = await Promise.all(Array.from({ length: 12 }, () => dial(gateway)));
    // Each keeps its last byte back.
    peers.forEach(({ socket }) => socket.write(head + ' '.repeat(size)));
    // The others are still on their way in, and are too slow in the end.
    await Promise.any(peers.map((peer) => peer.until(/^HTTP\/1.1 503 [^]*"code":"limit_reached"/)));
    peers.forEach(({ socket }) => socket.destroy());
    await eventually(async () => (await metricsOf(gateway))['jobcast_memory_held_bytes{purpose="request"}'] === 0);
  });

  it('hold no more than a bound for a peer that sends pings and does not read', async () => {
    const { socket } = await openSocket(gateway);
    const stream = socket._socket;
    stream.pause();
    const pings = Buffer.concat(Array.from({ length: 500 }, () => pingFrame(125)));
    let held = 0;
    // It takes no more once nobody reads what was sent; a gateway that is slow at this moment may only seem not to.
    while (held === 0) {
      while (stream.write(pings) || (await drained(stream)));
      held = (await metricsOf(gateway))['jobcast_memory_held_bytes{purpose="outbox"}'];
    }
    assert.ok(held < 1024 * 1024, `${held} bytes are held`);
    stream.destroy();
    await eventually(async () => (await metricsOf(gateway))['jobcast_memory_held_bytes{purpose="outbox"}'] === 0);
  });

  it('are cut when the peer does not take the answer', async () => {
    const jobId = uniqueId('unread');
    const data = 'x'.repeat(100_000);
    for (let count = 0; count < 60; count += 1) await api.update(jobId, { status: 's', data });
    const before = await cut(gateway, 'slow');
    const peer = await dial(gateway);
    peer.socket.pause();
    for (let count = 0; count < 3; count += 1) peer.socket.write(request('GET', `/api/jobs/${jobId}/history`));
    await eventually(async () => (await cut(gateway, 'slow')) > before, 'the cut', PATIENCE_MS);
    peer.socket.destroy();
  });
});

/** A client's ping with a payload of zeros, masked with zeros. */
function pingFrame(length) {
  return Buffer.concat([Buffer.from([0x89, 0x80 | length, 0, 0, 0, 0]), Buffer.alloc(length)]);
}

/** Whether a stream takes more within a second. */
function drained(stream) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), 1000);
    stream.once('drain', () => (clearTimeout(timer), resolve(true)));
  });
}

describe('the limits of connections', () => {
  it('leave probes a way in', async () => {
    const gateway = await startGateway({ env: { JOBCAST_LIMITS__CONNECTIONS: '3' } });
    const peers = await Promise.all(Array.from({ length: 3 }, () => dial(gateway)));
    for (const path of ['/healthz', '/readyz', '/metrics']) {
      assert.equal((await send(gateway.url, 'GET', path, { fresh: true })).status, 200, path);
    }
    const refused = await send(gateway.url, 'GET', '/api/clients', { fresh: true });
    assertProblem(refused, 503, { code: 'limit_reached' });
    peers.forEach(({ socket }) => socket.destroy());
    await eventually(async () => (await send(gateway.url, 'GET', '/api/clients', { fresh: true })).status === 200);
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  });

  it('hold for each address', async () => {
    const gateway = await startGateway({ env: { JOBCAST_LIMITS__CONNECTIONS_PER_ADDRESS: '2' } });
    const peers = await Promise.all(Array.from({ length: 2 }, () => dial(gateway)));
    const third = await dial(gateway);
    await third.closed();
    const other = await dial(gateway, { localAddress: '127.0.0.2' });
    other.socket.write(request('GET', '/metrics'));
    assert.match(await other.until(/# EOF/), /jobcast_connections_refused_total\{reason="address"\} 1/);
    [...peers, other].forEach(({ socket }) => socket.destroy());
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  });
});

describe('a log that cannot be written', () => {
  const outputs = { 'is full': '2>/dev/full', 'has no reader': '2> >(exec true)' };
  for (const [name, output] of Object.entries(outputs)) {
    it(`stops nothing when it ${name}`, async () => {
      const gateway = await startGateway({
        env: { JOBCAST_LOG__LEVEL: 'trace' },
        within: ['bash', '-c', `exec "$0" "$@" ${output}`],
      });
      const api = httpClient(gateway.url);
      for (let count = 0; count < 20; count += 1) await api.update(uniqueId('unlogged'));
      assert.equal(await gateway.stop(), 0);
    });
  }
});
