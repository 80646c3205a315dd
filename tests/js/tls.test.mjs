// TLS: all that works without it, handshakes that fail, and certificates that are replaced.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import tls from 'node:tls';
import { createAuthority } from './support/certificates.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient, numbersBetween, send, sequenceNumbers } from './support/http.mjs';
import { metricsOf } from './support/metrics.mjs';
import { temporaryFolder } from './support/processes.mjs';
import { startRedis } from './support/redis.mjs';
import { connect } from './support/socketio.mjs';
import { openStream } from './support/sse.mjs';
import { trust } from './support/trust.mjs';
import { eventually, inTime, uniqueId } from './support/waiting.mjs';

const authority = createAuthority();
trust(authority.pem);

const files = ({ certFile, keyFile }) => ({
  JOBCAST_SERVER__TLS_CERT_FILE: certFile,
  JOBCAST_SERVER__TLS_KEY_FILE: keyFile,
});

const start = (pair, env = {}) => startGateway({ env: { ...files(pair), ...env } });

/** A TLS connection after its handshake; rejects where that fails. */
async function dial(t, gateway, options = {}) {
  const socket = tls.connect({ host: '127.0.0.1', port: gateway.port, ca: authority.pem, ...options });
  t.after(() => socket.destroy());
  await inTime(
    new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject)),
    'the handshake',
  );
  return socket;
}

/** All that comes until the peer ends, which it may not do by a reset. */
async function untilEnd(socket) {
  const chunks = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  await inTime(
    new Promise((resolve, reject) => socket.once('end', resolve).once('error', reject)),
    'the end of the connection',
  );
  return Buffer.concat(chunks).toString();
}

const handshakes = async (gateway, outcome) =>
  (await metricsOf(gateway))[`jobcast_tls_handshakes_total{outcome="${outcome}"}`] ?? 0;

describe('over TLS', () => {
  let gateway;
  let api;

  before(async () => {
    gateway = await start(authority.issue(), {
      JOBCAST_LIMITS__OUTBOX: '128',
      JOBCAST_LIMITS__BEHIND: '10s',
      JOBCAST_LIMITS__HANDSHAKE_TIMEOUT: '1s',
      JOBCAST_HISTORY__MAX_EVENTS: '10000',
    });
    api = httpClient(gateway.url);
  });

  after(async () => {
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  });

  it('the first line says https', () => {
    assert.match(gateway.url, /^https:\/\/127\.0\.0\.1:\d+$/);
  });

  it('HTTP, SSE, long-polling and WebSockets bring every event', async (t) => {
    const jobId = uniqueId('tls');
    const stream = await openStream(t, gateway, `/api/jobs/${jobId}/events`);
    const options = { ca: authority.pem };
    const watchers = await Promise.all([
      connect(t, gateway, options),
      connect(t, gateway, { ...options, client: 3 }),
      connect(t, gateway, { ...options, transports: ['polling'] }),
      connect(t, gateway, { ...options, transports: ['polling', 'websocket'] }),
    ]);
    const { engine } = watchers[3].socket.io;
    if (engine.transport.name !== 'websocket') await inTime(once(engine, 'upgrade'), 'the upgrade');
    await Promise.all(watchers.map((watcher) => watcher.subscribe({ jobId })));
    const first = await api.update(jobId);
    const large = 'y'.repeat(100_000);
    await api.publish(jobId, 'update', { status: 's', data: large });
    const last = await api.completed(jobId);
    for (const watcher of watchers) {
      const events = await watcher.through(last);
      assert.deepEqual(sequenceNumbers(events), numbersBetween(first.seq, last.seq));
      assert.equal(events.length, 3);
      assert.equal(events[1].data, large);
    }
    await stream.events.until((events) => events.length >= 3);
    assert.equal((await api.history(jobId)).length, 3);
  });

  it('a large body arrives, and so does a large answer, split anywhere', async (t) => {
    const jobId = uniqueId('large');
    const events = Array.from({ length: 60 }, () => ({ event: 'job:update', jobId, status: 's', data: 'z'.repeat(100_000) }));
    await api.publishAll(events);
    const history = await api.history(jobId, '?limit=60');
    assert.deepEqual(history.map(({ data }) => data.length), Array(history.length).fill(100_000));
    // Records of one byte, of which several are in one segment and some are cut by it.
    const socket = await dial(t, gateway);
    const text = `GET /api/jobs/${jobId}/history HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`;
    for (const byte of text) socket.write(byte);
    assert.match(await untilEnd(socket), /^HTTP\/1\.1 200 OK\r\n/);
  });

  it('records that the network splits at every byte are put together again', async (t) => {
    const relay = net.createServer((client) => {
      const server = net.connect(gateway.port, '127.0.0.1').setNoDelay(true);
      server.pipe(client);
      client.on('data', (chunk) => {
        for (const byte of chunk) server.write(Buffer.of(byte));
      });
      for (const one of [client, server]) one.on('error', () => {});
      client.once('close', () => server.destroy());
    });
    relay.listen(0, '127.0.0.1');
    await once(relay, 'listening');
    t.after(() => relay.close());
    const jobId = uniqueId('split');
    const url = `https://127.0.0.1:${relay.address().port}`;
    const watcher = await connect(t, { url }, { ca: authority.pem });
    await watcher.subscribe({ jobId });
    await watcher.through(await api.update(jobId));
    watcher.close();
  });

  it('who does not read is caught up when they read again', async (t) => {
    const jobId = uniqueId('slow');
    const slow = await connect(t, gateway, { ca: authority.pem });
    await slow.subscribe({ jobId });
    const socket = slow.socket.io.engine.transport.ws._socket;
    socket.pause();
    let first;
    let last;
    for (let batch = 0; batch < 24; batch += 1) {
      const event = { event: 'job:update', jobId, status: 's', data: 'x'.repeat(4000) };
      const results = await api.publishAll(Array(250).fill(event));
      first ??= results[0];
      last = results.at(-1);
    }
    await eventually(async () => (await metricsOf(gateway)).jobcast_sessions_behind === 1, 'the session to be behind');
    socket.resume();
    const events = await slow.through(last);
    assert.deepEqual(sequenceNumbers(events), numbersBetween(first.seq, last.seq));
  });

  it('an answer that its reader takes late comes whole, and ends with close_notify', async (t) => {
    const jobId = uniqueId('late');
    const event = { event: 'job:update', jobId, status: 's', data: 'w'.repeat(100_000) };
    await api.publishAll(Array(70).fill(event));
    const socket = await dial(t, gateway);
    socket.pause();
    socket.write(`GET /api/jobs/${jobId}/history?limit=70 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
    const held = 'jobcast_memory_held_bytes{purpose="outbox"}';
    await eventually(async () => ((await metricsOf(gateway))[held] ?? 0) > 0, 'the answer to wait');
    socket.resume();
    const answer = await untilEnd(socket);
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.equal(answer.match(/w{100000}/g)?.length, 70);
    assert.ok(answer.endsWith('\r\n0\r\n\r\n'));
    await eventually(async () => ((await metricsOf(gateway))[held] ?? 0) === 0, 'nothing to wait');
  });

  it('speaks HTTP/1.1 to who offers HTTP/2 as well, and nothing to who offers that alone', async (t) => {
    const socket = await dial(t, gateway, { ALPNProtocols: ['h2', 'http/1.1'] });
    assert.equal(socket.alpnProtocol, 'http/1.1');
    await assert.rejects(dial(t, gateway, { ALPNProtocols: ['h2'] }), /alert/i);
  });

  for (const version of ['TLSv1.2', 'TLSv1.3']) {
    it(`speaks ${version}`, async (t) => {
      const socket = await dial(t, gateway, { minVersion: version, maxVersion: version });
      assert.equal(socket.getProtocol(), version);
      socket.write('GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n');
      assert.match(await untilEnd(socket), /^HTTP\/1\.1 200 OK\r\n/);
    });
  }

  it('refuses TLS 1.1, counts that, and logs no line', async (t) => {
    const before = await handshakes(gateway, 'failed');
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
    await assert.rejects(dial(t, gateway, old), /alert|version/i);
    await eventually(async () => (await handshakes(gateway, 'failed')) === before + 1, 'the refusal to be counted');
    assert.doesNotMatch(gateway.stderr(), /handshake/);
  });

  it('tells who speaks plain HTTP what is spoken here', async () => {
    const before = await handshakes(gateway, 'not_tls');
    const answer = await send(`http://127.0.0.1:${gateway.port}`, 'GET', '/healthz', { fresh: true });
    assert.equal(answer.status, 400);
    assert.match(answer.text, /HTTPS/);
    assert.equal(await handshakes(gateway, 'not_tls'), before + 1);
  });

  it('who stops in the handshake is cut, and others do not notice', async (t) => {
    const before = await handshakes(gateway, 'timeout');
    const idle = Array.from({ length: 20 }, (_, place) => {
      const socket = net.connect(gateway.port, '127.0.0.1');
      t.after(() => socket.destroy());
      socket.on('error', () => {});
      // Half of them say the beginning of a handshake.
      if (place % 2) socket.write(Buffer.from([22, 3, 1, 2, 0, 1]));
      return socket;
    });
    const ended = idle.map((socket) => inTime(new Promise((resolve) => socket.once('close', resolve)), 'the cut'));
    idle.forEach((socket) => socket.resume());
    await api.update(uniqueId('meanwhile'));
    await Promise.all(ended);
    assert.equal(await handshakes(gateway, 'timeout'), before + 20);
  });

  it('a client that comes back resumes its session', async (t) => {
    const first = await dial(t, gateway, { maxVersion: 'TLSv1.3' });
    const [session] = await inTime(once(first, 'session'), 'a ticket');
    const again = await dial(t, gateway, { session });
    assert.equal(again.isSessionReused(), true);
  });
});

it('a stop says goodbye to everybody over TLS as well', async (t) => {
  const gateway = await start(authority.issue());
  const watcher = await connect(t, gateway, { ca: authority.pem });
  const stream = await openStream(t, gateway, '/api/jobs/j/events');
  const left = once(watcher.socket, 'disconnect');
  assert.equal(await gateway.stop(), 0, gateway.stderr());
  await Promise.all([left, stream.closed]);
});

describe('the certificate', () => {
  /** What a new connection is shown. */
  async function shown(t, gateway) {
    const socket = await dial(t, gateway);
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return Number.parseInt(serialNumber, 16);
  }

  for (const [key, form] of [['rsa', 'pkcs8'], ['rsa', 'traditional'], ['ec', 'traditional']]) {
    it(`may have a key of ${key} in ${form} form`, async (t) => {
      const pair = authority.issue({ key, form });
      const gateway = await start(pair);
      assert.equal(await shown(t, gateway), pair.serial);
      await gateway.stop();
    });
  }

  it('is replaced when its files change, but not by one that is bad, which is told once', async (t) => {
    const [first, second, third] = [authority.issue(), authority.issue({ days: 1 }), authority.issue()];
    const folder = temporaryFolder('pair');
    const pair = { certFile: join(folder, 'tls.crt'), keyFile: join(folder, 'tls.key') };
    const write = (cert, key) => {
      writeFileSync(pair.certFile, cert);
      writeFileSync(pair.keyFile, key);
    };
    write(first.cert, first.key);
    const gateway = await start(pair);
    const old = await dial(t, gateway);
    const expiry = async () => (await metricsOf(gateway))['jobcast_tls_certificate_expires_seconds{}'];
    assert.equal(await shown(t, gateway), first.serial);
    assert.equal(await expiry(), Date.parse(old.getPeerCertificate().valid_to) / 1000);

    write(second.cert, second.key);
    await gateway.logged(/new connections use a new certificate/);
    assert.equal(await shown(t, gateway), second.serial);
    const soon = await expiry();
    assert.ok(soon < Date.parse(old.getPeerCertificate().valid_to) / 1000);

    write(third.cert, second.key);
    await gateway.logged(/cannot be used.*is not that of the first certificate/s);
    assert.equal(await shown(t, gateway), second.serial);

    write(third.cert, third.key);
    process.kill(gateway.pid, 'SIGHUP');
    await eventually(async () => (await shown(t, gateway)) === third.serial, 'the third');
    assert.equal(gateway.stderr().match(/cannot be used/g).length, 1);

    // A connection of the first still works.
    old.write('GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n');
    assert.match(await untilEnd(old), /^HTTP\/1\.1 200 OK\r\n/);
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  });

  it('is replaced when a symbolic link to its folder is', async (t) => {
    const folder = temporaryFolder('links');
    const pairs = [authority.issue(), authority.issue()];
    const link = (place) => {
      symlinkSync(`version-${place}`, join(folder, 'next'));
      renameSync(join(folder, 'next'), join(folder, 'current'));
    };
    pairs.forEach(({ cert, key }, place) => {
      mkdirSync(join(folder, `version-${place}`));
      writeFileSync(join(folder, `version-${place}`, 'tls.crt'), cert);
      writeFileSync(join(folder, `version-${place}`, 'tls.key'), key);
    });
    link(0);
    const gateway = await start({
      certFile: join(folder, 'current', 'tls.crt'),
      keyFile: join(folder, 'current', 'tls.key'),
    });
    assert.equal(await shown(t, gateway), pairs[0].serial);
    link(1);
    await eventually(async () => (await shown(t, gateway)) === pairs[1].serial, 'the second');
    assert.equal(await gateway.stop(), 0, gateway.stderr());
  });

  it('stops a start where it cannot be used, and says which file is wrong', async () => {
    const [one, other] = [authority.issue(), authority.issue()];
    const wrong = [
      [{ certFile: one.certFile, keyFile: other.keyFile }, /TLS_KEY_FILE: server\.tls_key_file: .*not that of the first/],
      [{ certFile: '/nowhere', keyFile: one.keyFile }, /TLS_CERT_FILE: server\.tls_cert_file: \/nowhere cannot be read/],
      [{ certFile: one.keyFile, keyFile: one.keyFile }, /tls_cert_file: .*has no certificate/],
      [{ certFile: one.certFile, keyFile: one.certFile }, /tls_key_file: .*has no private key/],
    ];
    for (const [pair, message] of wrong) await assert.rejects(start(pair), message);
    const alone = { env: { JOBCAST_SERVER__TLS_KEY_FILE: one.keyFile } };
    await assert.rejects(startGateway(alone), /tls_key_file: goes with server\.tls_cert_file, which is not set/);
  });
});

it("Redis over TLS is trusted by the system's certificates, or by redis.ca_file in their place", async () => {
  const { certFile, keyFile } = authority.issue();
  const args = ['--port', '0', '--tls-auth-clients', 'no', '--tls-cert-file', certFile, '--tls-key-file', keyFile];
  const redis = await startRedis({ tls: { ca: authority.pem }, args: [...args, '--tls-ca-cert-file', authority.file] });
  const store = { redisUrl: redis.url };
  const stranger = createAuthority();
  const tries = [
    [{ SSL_CERT_FILE: authority.file }, true],
    [{ SSL_CERT_FILE: stranger.file }, false],
    [{ SSL_CERT_FILE: stranger.file, JOBCAST_REDIS__CA_FILE: authority.file }, true],
    [{ SSL_CERT_FILE: authority.file, JOBCAST_REDIS__CA_FILE: stranger.file }, false],
  ];
  for (const [env, works] of tries) {
    const started = startGateway({ store, env });
    if (works) {
      const gateway = await started;
      const jobId = uniqueId('redis-tls');
      await httpClient(gateway.url).update(jobId);
      assert.equal((await httpClient(gateway.url).history(jobId)).length, 1);
      await gateway.stop();
    } else {
      await assert.rejects(started, /certificate/i, JSON.stringify(env));
    }
  }
  await redis.stop();
});
