// Socket.IO clients, and what stands between them and the gateway, that misbehave: nobody else is hurt, and they are
// told. Contract, sections 2, 6 and 9.

import assert from 'node:assert/strict';
import net from 'node:net';
import { describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { openPolling, openSocket } from './support/by-hand.mjs';
import {
  ask,
  assertRefused,
  CLOSED,
  Collector,
  connect,
  connectByHand,
  eventually,
  httpClient,
  inTime,
  send,
  uniqueId,
} from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { metricsOf } from './support/metrics.mjs';

const OTHER_ADDRESS = '127.0.0.2';
const POLLING = '/socket.io/?EIO=4&transport=polling';
const UNKNOWN_SESSION = '{"code":"1","message":"Session ID unknown"}';

async function start(t, env = {}) {
  const gateway = await startGateway({ env });
  t.after(() => gateway.kill());
  return { gateway, api: httpClient(gateway.url) };
}

/** A polling session in `/jobs` that watches a job. */
async function pollingWatcher(gateway, jobId) {
  const client = await openPolling(gateway);
  await client.post('40/jobs,');
  await client.frame('40/jobs,');
  await client.post(`42/jobs,1${JSON.stringify(['subscribe:jobs', { jobId }])}`);
  await client.frame('43/jobs,1[');
  return client;
}

/** Asks for the upgrade of a session, and answers the WebSocket with what it receives; it sends nothing. */
async function upgradeOf(t, gateway, sid) {
  const socket = new WebSocket(`${gateway.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket&sid=${sid}`);
  t.after(() => socket.terminate());
  const frames = new Collector();
  socket.on('message', (data) => frames.push(data.toString()));
  socket.on('error', () => {});
  socket.once('close', () => frames.push(CLOSED));
  await inTime(new Promise((resolve) => socket.once('open', resolve)), 'the 101');
  return { socket, frames };
}

/** A proxy that passes whatever there is, until a server answers 101: then that and no more. */
async function swallowingProxy(t, gateway) {
  const sockets = new Set();
  const proxy = net.createServer((client) => {
    const server = net.connect(gateway.port, '127.0.0.1');
    let upgraded = false;
    client.on('data', (data) => upgraded || server.write(data));
    server.on('data', (data) => {
      if (!upgraded) client.write(data);
      upgraded ||= data.includes('HTTP/1.1 101');
    });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ]) {
      sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => other.destroy());
    }
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    proxy.close();
    for (const socket of sockets) socket.destroy();
  });
  return { url: `http://127.0.0.1:${proxy.address().port}` };
}

const closedFor = async (gateway, reason) =>
  (await metricsOf(gateway))[`jobcast_sessions_closed_total{reason="${reason}"}`] ?? 0;

describe('upgrades that are not completed', () => {
  it('a proxy that passes a 101 and no more leaves a stock client polling', async (t) => {
    const { gateway, api } = await start(t);
    const proxy = await swallowingProxy(t, gateway);
    const watcher = await connect(t, proxy, { transports: ['polling', 'websocket'] });
    const jobId = uniqueId('swallowed');
    await watcher.subscribe({ jobId });
    for (let number = 0; number < 5; number += 1) await watcher.through(await api.update(jobId));
    assert.equal(watcher.socket.io.engine.transport.name, 'polling');
  });

  for (const sends of [[], ['2probe'], ['nonsense']]) {
    it(`leave the session polling: ${sends.join() || 'nothing'} sent, then cut`, async (t) => {
      const { gateway, api } = await start(t, { JOBCAST_LIMITS__OUTBOX_BYTES: '64KiB' });
      const jobId = uniqueId('cut');
      const client = await pollingWatcher(gateway, jobId);
      const { socket, frames } = await upgradeOf(t, gateway, client.sid);
      for (const packet of sends) socket.send(packet);
      if (sends[0] === '2probe') await frames.find((frame) => frame === '3probe');
      socket.terminate();
      const { seq } = await api.update(jobId, { status: 's', data: 'x' });
      await eventually(async () => {
        const packets = await client.poll();
        return packets.some((packet) => packet.includes(`"seq":${seq}`));
      }, 'the event');
      // The bound holds as before.
      for (let number = 0; number < 10; number += 1) await api.update(jobId, { status: 's', data: 'x'.repeat(40_000) });
      const { jobcast_outbox_largest_bytes: largest, jobcast_sessions_behind: behind } = await metricsOf(gateway);
      assert.ok(largest > 40_000 && largest < 64 * 1024 + 41_000, `${largest} bytes`);
      assert.equal(behind, 1);
      // And another try succeeds.
      const again = await upgradeOf(t, gateway, client.sid);
      again.socket.send('2probe');
      await again.frames.find((frame) => frame === '3probe');
      again.socket.send('5');
      again.socket.send('42/jobs,2["unsubscribe:jobs",{"jobId":"x"}]');
      await again.frames.find((frame) => frame.startsWith('43/jobs,2['));
    });
  }

  it('the heartbeat runs all the same', async (t) => {
    const { gateway } = await start(t, {
      JOBCAST_SERVER__PING_INTERVAL: '300ms',
      JOBCAST_SERVER__PING_TIMEOUT: '300ms',
    });
    const client = await pollingWatcher(gateway, uniqueId('dead'));
    const { socket, frames } = await upgradeOf(t, gateway, client.sid);
    socket.send('2probe');
    await frames.find((frame) => frame === '3probe');
    await eventually(async () => (await metricsOf(gateway)).jobcast_sessions === 0, 'the session to be gone');
  });

  it('one that is completed ends the poll that waits, loses nothing, and shows', async (t) => {
    const { gateway, api } = await start(t);
    const clientId = uniqueId('upgraded');
    const jobId = uniqueId('upgrade');
    const client = await openPolling(gateway);
    await client.post(`40/jobs,${JSON.stringify({ clientId })}`);
    await client.frame('40/jobs,');
    await client.post(`42/jobs,1${JSON.stringify(['subscribe:jobs', { jobId }])}`);
    await client.frame('43/jobs,1[');
    assert.equal((await api.get(`/api/clients/${clientId}`)).json.transport, 'polling');
    const waiting = client.poll();
    const { socket, frames } = await upgradeOf(t, gateway, client.sid);
    socket.send('2probe');
    await frames.find((frame) => frame === '3probe');
    assert.deepEqual(await waiting, ['6']);
    const first = await api.update(jobId);
    socket.send('5');
    const second = await api.update(jobId);
    await frames.find((frame) => frame.includes(`"seq":${second.seq}`));
    const events = frames.items.filter((frame) => frame.startsWith('42/jobs,["job:'));
    assert.deepEqual(
      events.map((frame) => JSON.parse(frame.slice(8))[1].seq),
      [first.seq, second.seq],
    );
    assert.ok(!frames.items.includes('6'));
    await eventually(
      async () => (await api.get(`/api/clients/${clientId}`)).json.transport === 'websocket',
      'the transport to show',
    );
    // A session has one WebSocket.
    const refused = await send(gateway.url, 'GET', `/socket.io/?EIO=4&transport=websocket&sid=${client.sid}`, {
      headers: {
        connection: 'upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
      },
    });
    assert.equal(refused.status, 400);
  });
});

describe('answers', () => {
  const DATA = 'x'.repeat(100_000);
  const sizeOf = (items) => items.reduce((sum, item) => sum + JSON.stringify(item).length, 0);

  it('have at most 1 MiB of snapshots or events, and say where there are more', async (t) => {
    const { gateway, api } = await start(t);
    const jobs = Array.from({ length: 15 }, () => uniqueId('large'));
    for (const jobId of jobs) await api.update(jobId, { status: 's', data: DATA });
    const events = [];
    for (let number = 0; number < 15; number += 1) events.push(await api.update('one', { status: 's', data: DATA }));
    const watcher = await connect(t, gateway);

    const { latest, more } = await watcher.subscribe({});
    assert.equal(more, true);
    assert.ok(sizeOf(latest) <= 1024 * 1024 && sizeOf(latest) > 800_000, `${sizeOf(latest)} bytes`);
    assert.equal(latest[0].jobId, 'one');

    const history = await watcher.ask('history:jobs', { jobId: 'one' });
    assert.equal(history.more, true);
    assert.equal(history.events.at(-1).seq, events.at(-1).seq, 'the newest');
    assert.ok(sizeOf(history.events) <= 1024 * 1024 && history.events.length === 10, `${history.events.length} events`);

    // From a number on they come in order, page by page.
    const seen = [];
    let page = { more: true };
    for (let since = 0; page.more; since = seen.at(-1)) {
      page = await watcher.ask('history:jobs', { jobId: 'one', since });
      seen.push(...page.events.map(({ seq }) => seq));
    }
    assert.deepEqual(
      seen,
      events.map(({ seq }) => seq),
    );
    const small = await watcher.ask('history:jobs', { jobId: 'one', limit: 3 });
    assert.equal(small.events.length, 3);
    assert.equal('more' in small, false);
  });

  for (const transports of [['websocket'], ['polling']]) {
    it(`to who does not read are bounded, and count: ${transports}`, async (t) => {
      const { gateway, api } = await start(t, { JOBCAST_LIMITS__OUTBOX_BYTES: '256KiB' });
      for (let number = 0; number < 15; number += 1) await api.update('one', { status: 's', data: DATA });
      const client = await pollingWatcher(gateway, 'one');
      if (transports[0] === 'websocket') {
        const { socket, frames } = await upgradeOf(t, gateway, client.sid);
        socket.send('2probe');
        await frames.find((frame) => frame === '3probe');
        socket.send('5');
        for (let id = 10; id < 60; id += 1) socket.send(`42/jobs,${id}["history:jobs",{"jobId":"one"}]`);
        socket._socket.pause();
      } else {
        for (let id = 10; id < 60; id += 1) await client.post(`42/jobs,${id}["history:jobs",{"jobId":"one"}]`);
      }
      const held = 'jobcast_memory_held_bytes{purpose="answer"}';
      await eventually(async () => (await metricsOf(gateway))[held] > 900_000, 'an answer to wait');
      const metrics = await metricsOf(gateway);
      assert.ok(metrics[held] < 3 * 1024 * 1024, `${metrics[held]} bytes`);
      assert.ok(metrics.jobcast_outbox_largest_bytes < 2 * 1024 * 1024, `${metrics.jobcast_outbox_largest_bytes} bytes`);
      // It is given up in the end, and all of it is given back.
      await eventually(async () => (await metricsOf(gateway)).jobcast_sessions === 0, 'the session to be closed', 30_000);
      await eventually(async () => (await metricsOf(gateway))[held] === 0, 'its answers to be given back');
    });
  }

  it('are refused where the gateway holds too much', async (t) => {
    const { gateway, api } = await start(t, { JOBCAST_LIMITS__MEMORY: '16MiB' });
    for (let number = 0; number < 15; number += 1) await api.update('one', { status: 's', data: DATA });
    for (let greedy = 0; greedy < 12; greedy += 1) {
      const client = await pollingWatcher(gateway, 'one');
      for (const id of [10, 11]) await client.post(`42/jobs,${id}["history:jobs",{"jobId":"one"}]`);
    }
    const watcher = await connect(t, gateway);
    await eventually(async () => {
      const answer = await watcher.ask('history:jobs', { jobId: 'one' });
      if (!answer.success) assertRefused(answer, 'limit_reached');
      return !answer.success;
    }, 'a refusal');
    assertRefused(await watcher.ask('subscribe:jobs', {}), 'limit_reached');
    await watcher.subscribe({ jobId: 'one' });
    const metrics = await metricsOf(gateway);
    const held = Object.keys(metrics).filter((name) => name.startsWith('jobcast_memory_held_bytes'));
    assert.ok(held.reduce((sum, name) => sum + metrics[name], 0) <= 18 * 1024 * 1024);
  });
});

describe('floods', () => {
  const burst = async (watcher, count) => {
    const answers = Array.from({ length: count }, () => ask(watcher.socket, 'unsubscribe:jobs', { jobId: 'none' }));
    return Promise.all(answers);
  };

  for (const transports of [['websocket'], ['polling']]) {
    it(`a burst of a second's messages passes: ${transports}`, async (t) => {
      const { gateway } = await start(t);
      const watcher = await connect(t, gateway, { transports });
      const answers = await burst(watcher, 1000);
      assert.deepEqual(
        answers.filter(({ success }) => !success),
        [],
      );
    });
  }

  it('connects, acknowledgements and pings beyond the rate, for seconds, end a WebSocket', async (t) => {
    const { gateway } = await start(t, { JOBCAST_LIMITS__MESSAGES_PER_SECOND: '100' });
    for (const packet of ['40/jobs,', '3', '43/jobs,1[]', '42/other,["x"]', '42/jobs,["history:jobs",{"jobId":"x"}]']) {
      const before = await closedFor(gateway, 'too_many_messages');
      const { socket, frames } = await connectByHand(t, gateway);
      const flooding = setInterval(() => {
        for (let number = 0; number < 50; number += 1) socket.send(packet);
      }, 20);
      t.after(() => clearInterval(flooding));
      await frames.until((items) => items.includes(CLOSED), `the end of ${packet}`, 20_000);
      clearInterval(flooding);
      assert.equal(await closedFor(gateway, 'too_many_messages'), before + 1, packet);
    }
    await gateway.logged(/too_many_messages/);
  });

  it('connects beyond the rate, for seconds, end a polling session', async (t) => {
    const { gateway } = await start(t, { JOBCAST_LIMITS__MESSAGES_PER_SECOND: '100' });
    const client = await pollingWatcher(gateway, 'x');
    const packets = Array.from({ length: 150 }, () => '40/jobs,').join('\x1e');
    await eventually(
      async () => {
        const answer = await send(gateway.url, 'POST', `${POLLING}&sid=${client.sid}`, { body: packets });
        return answer.status !== 200;
      },
      'the end',
      20_000,
    );
    assert.equal(await closedFor(gateway, 'too_many_messages'), 1);
    await eventually(async () => (await metricsOf(gateway)).jobcast_sessions === 0, 'the session to be gone');
  });

  it('handshakes of one address, without what follows, keep no other out', async (t) => {
    const { gateway } = await start(t, { JOBCAST_LIMITS__HANDSHAKES: '2' });
    const flood = Array.from({ length: 60 }, () => send(gateway.url, 'GET', POLLING, { from: OTHER_ADDRESS }));
    await Promise.race(flood);
    for (let number = 0; number < 3; number += 1) await connect(t, gateway);
    await Promise.all(flood);
  });
});

describe('who else knows the id of a session', () => {
  it('can neither poll, post nor upgrade from another address', async (t) => {
    const { gateway, api } = await start(t);
    const jobId = uniqueId('mine');
    const client = await pollingWatcher(gateway, jobId);
    const path = `${POLLING}&sid=${client.sid}`;
    const upgrade = {
      connection: 'upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
    };
    for (const [method, to, options] of [
      ['GET', path, {}],
      ['POST', path, { body: '41/jobs,' }],
      ['GET', path.replace('polling', 'websocket'), { headers: upgrade }],
    ]) {
      const answer = await send(gateway.url, method, to, { ...options, from: OTHER_ADDRESS });
      assert.deepEqual([answer.status, answer.text], [400, UNKNOWN_SESSION], `${method} ${to}`);
    }
    const unknown = await send(gateway.url, 'GET', `${POLLING}&sid=AAAAAAAAAAAAAAAA`);
    assert.deepEqual([unknown.status, unknown.text], [400, UNKNOWN_SESSION]);
    const { seq } = await api.update(jobId);
    await client.frame(`42/jobs,["job:update",{"event":"job:update","jobId":"${jobId}"`);
    assert.ok(seq > 0);
  });
});

describe('broadcasts', () => {
  it('a burst slows the publisher down, and loses no client that reads', async (t) => {
    const { gateway, api } = await start(t);
    const watchers = await Promise.all(Array.from({ length: 10 }, () => connect(t, gateway)));
    const data = 'x'.repeat(20_000);
    let number = 0;
    const publish = async () => {
      while (number < 1000) {
        number += 1;
        const answer = await api.post('/api/broadcast', { event: 'news', data: { number, data } });
        assert.equal(answer.status, 200, answer.text);
      }
    };
    await Promise.all(Array.from({ length: 50 }, publish));
    for (const { log } of watchers) {
      await log.until((items) => items.filter(({ name }) => name === 'news').length === 1000, 'all of them', 60_000);
    }
    assert.equal(await closedFor(gateway, 'too_many_notices'), 0);
  });

  it('wait for a client that does not read for a while', async (t) => {
    const { gateway, api } = await start(t, { JOBCAST_LIMITS__OUTBOX_BYTES: '256KiB' });
    const [slow, quick] = [await connect(t, gateway), await connect(t, gateway)];
    const stream = slow.socket.io.engine.transport.ws._socket;
    stream.pause();
    const data = 'x'.repeat(100_000);
    for (let number = 0; number < 150; number += 1) {
      assert.equal((await api.post('/api/broadcast', { event: 'news', data: { number, data } })).status, 200);
    }
    const news = ({ log }) => log.items.filter(({ name }) => name === 'news').map(({ payload }) => payload.number);
    await quick.log.until(() => news(quick).length === 150, 'all of them');
    assert.equal((await metricsOf(gateway)).jobcast_sessions_behind, 1, 'nothing waits: this tests nothing');
    stream.resume();
    await slow.log.until(() => news(slow).length === 150, 'all of them, later');
    assert.deepEqual(news(slow), news(quick));
    const held = 'jobcast_memory_held_bytes{purpose="outbox"}';
    await eventually(async () => (await metricsOf(gateway))[held] === 0, 'all to be given back');
  });
});

describe('packets that no one should send', () => {
  const WITH_ID = {
    'an event without a name': ['[1]', 'invalid_payload'],
    'an empty event': ['[]', 'invalid_payload'],
    'half an event': ['["subscribe:jobs",{"jobId":', 'invalid_payload'],
    'an event that is an object': ['{"a":1}', 'invalid_payload'],
    'a name that needs an escape': ['["sub\\"scribe",{}]', 'unknown_event'],
    'a name with a surrogate': ['["\\ud83d\\ude00",{}]', 'unknown_event'],
  };

  for (const [what, [body, code]] of Object.entries(WITH_ID)) {
    it(`${what} is answered, and the connection goes on`, async (t) => {
      const { gateway } = await start(t);
      const { socket, frames } = await connectByHand(t, gateway);
      socket.send(`42/jobs,5${body}`);
      const answer = await frames.find((frame) => frame.startsWith('43/jobs,5['));
      assertRefused(JSON.parse(answer.slice(9))[0], code);
      socket.send(`42/jobs,${body}`);
      const exception = await frames.find((frame) => frame.startsWith('42/jobs,["exception"'));
      assert.equal(JSON.parse(exception.slice(8))[1].code, code);
      socket.send('42/jobs,6[ "unsubscribe:jobs" , {} ]');
      await frames.find((frame) => frame.startsWith('43/jobs,6[{"success":true'));
      const client = await pollingWatcher(gateway, 'x');
      await client.post(`42/jobs,5${body}`);
      await client.frame('43/jobs,5[{"success":false');
    });
  }

  it('an id beyond what is understood is an exception', async (t) => {
    const { gateway } = await start(t);
    const { socket, frames } = await connectByHand(t, gateway);
    socket.send('42/jobs,99999999999999999999999["subscribe:jobs"]');
    const exception = await frames.find((frame) => frame.startsWith('42/jobs,["exception"'));
    assert.match(exception, /acknowledgement/);
    socket.send('42/jobs,6["unsubscribe:jobs"]');
    await frames.find((frame) => frame.startsWith('43/jobs,6[{"success":true'));
  });

  for (const transports of [['websocket'], ['polling']]) {
    it(`binary payloads are refused by the acknowledgement: ${transports}`, async (t) => {
      const { gateway } = await start(t);
      const watcher = await connect(t, gateway, { transports });
      const answer = await watcher.ask('subscribe:jobs', { jobId: Buffer.from('x'), userId: Buffer.from('y') });
      assertRefused(answer, 'invalid_payload');
      assert.match(answer.message, /binary/);
      watcher.socket.emit('subscribe:jobs', Buffer.from('z'));
      assert.equal((await watcher.next('exception')).code, 'invalid_payload');
      await watcher.subscribe({ jobId: 'x' });
    });
  }

  for (const [what, packet] of Object.entries({
    'no packet at all': 'nonsense',
    'an unknown type': '49/jobs,["x"]',
    'attachments that nobody announced': Buffer.from([1, 2, 3]),
    'a frame that is not masked': null,
  })) {
    it(`${what} ends the connection, with a reason`, async (t) => {
      const { gateway } = await start(t);
      const { socket, frames } = await connectByHand(t, gateway);
      if (packet === null) socket._socket.write(Buffer.from([0x81, 1, 0x33]));
      else socket.send(packet);
      await frames.find((frame) => frame === CLOSED);
      assert.equal(await closedFor(gateway, 'malformed'), 1);
      await gateway.logged(/malformed/);
    });
  }

  it('a message in many fragments is one message', async (t) => {
    const { gateway } = await start(t);
    const { socket, frames } = await connectByHand(t, gateway);
    const packet = '42/jobs,6["unsubscribe:jobs",{"jobId":"ü"}]'.replace('ü', 'u');
    for (let place = 0; place < packet.length; place += 1) {
      socket.send(packet[place], { fin: place === packet.length - 1 });
      if (place === 5) socket.ping();
    }
    await frames.find((frame) => frame.startsWith('43/jobs,6[{"success":true'));
  });
});

describe('what socketioxide writes', () => {
  // The gateway writes its own frames between those of the library: these must be what they were when that was built.
  it('is what it was', async (t) => {
    const { gateway } = await start(t, { JOBCAST_SERVER__PING_INTERVAL: '200ms' });
    const socket = net.connect(gateway.port, '127.0.0.1');
    t.after(() => socket.destroy());
    socket.write(
      'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n' +
        'sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
    );
    let received = Buffer.alloc(0);
    const arrived = new Collector();
    socket.on('data', (data) => {
      received = Buffer.concat([received, data]);
      arrived.push(data.length);
    });
    const say = (text) => {
      const bytes = Buffer.from(text);
      socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]));
    };
    const frame = async (pattern) => {
      const found = await arrived.until(() => pattern.exec(received.toString('latin1')), String(pattern));
      assert.equal(found.index, 0, `before ${pattern} came ${JSON.stringify(received.toString('latin1'))}`);
      received = received.subarray(found[0].length);
      return found;
    };
    await frame(/HTTP\/1\.1 101 [^]*?\r\n\r\n/);
    const greeting = await frame(/\x81([^]{1,3})0(\{"sid":"([\w-]{16})","upgrades":\[\],"pingInterval":200,"pingTimeout":20000,"maxPayload":131072\})/);
    assert.equal(greeting[1].charCodeAt(0), greeting[2].length + 1);
    await frame(/\x81\x012/);
    say('3');
    say('40/jobs,');
    const connected = await frame(/(?:\x81\x012)*\x81([^])40\/jobs,(\{"sid":"([\w-]{16})"\})/);
    assert.equal(connected[3], greeting[3]);
    say('42/jobs,7["unsubscribe:jobs",{"jobId":"x"}]');
    await frame(/(?:\x81\x012)*\x81[^]43\/jobs,7\[\{"success":true,"room":"job:x","message":"unsubscribed from job:x"\}\]/);
    await frame(/\x81\x012/);
  });
});
