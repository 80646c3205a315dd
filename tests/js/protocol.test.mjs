// The cases of the official suites of Engine.IO (protocol 4) and Socket.IO (protocol 5): what applies to `/jobs` against the
// gateway, and all of it against echoes on the gateway's own accept loop, upgrade and connection queue. The gate of
// `/socket.io`, which judges what clients send, stands in front of the gateway's own path only.

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { CLOSED, Collector, eventually, inTime, send } from './support/clients.mjs';
import { startEcho } from './support/echo.mjs';
import { startGateway } from './support/gateway.mjs';

const PING_INTERVAL_MS = 300;
const PING_TIMEOUT_MS = 200;
const MAX_PAYLOAD = 1_000_000;

const gatewayEnvironment = {
  JOBCAST_SERVER__PING_INTERVAL: `${PING_INTERVAL_MS}ms`,
  JOBCAST_SERVER__PING_TIMEOUT: `${PING_TIMEOUT_MS}ms`,
  JOBCAST_SERVER__MAX_PAYLOAD: `${MAX_PAYLOAD}`,
  JOBCAST_LIMITS__HANDSHAKE_TIMEOUT: '1s',
};

let echo;
let gateway;
before(async () => {
  [echo, gateway] = await Promise.all([startEcho(), startGateway({ env: gatewayEnvironment })]);
});
after(() => Promise.all([echo.kill(), gateway.kill()]));

/** A WebSocket whose messages are collected: text as it is, binary as buffers, and `CLOSED`. */
function openWebSocket(t, server, target) {
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}${target}`, { perMessageDeflate: false });
  t.after(() => socket.terminate());
  const frames = new Collector();
  socket.on('message', (data, isBinary) => frames.push(isBinary ? data : data.toString()));
  socket.on('error', () => {});
  socket.once('close', () => frames.push(CLOSED));
  let read = 0;
  return {
    socket,
    send: (...packets) => packets.forEach((packet) => socket.send(packet)),
    opened: () => inTime(once(socket, 'open'), 'the WebSocket'),
    /** The next message. */
    next: async () => {
      const place = read;
      read += 1;
      return frames.until((items) => items[place], `message ${place}`);
    },
    /** The next message that is no ping. */
    async answer() {
      for (;;) {
        const frame = await this.next();
        if (frame !== '2') return frame;
        socket.send('3');
      }
    },
    ended: () => frames.find((frame) => frame === CLOSED, 'the end'),
  };
}

/** A polling session. */
async function openPolling(server, path) {
  const target = `${path}?EIO=4&transport=polling`;
  const opened = await send(server.url, 'GET', target);
  assert.equal(opened.status, 200, opened.text);
  const { sid } = JSON.parse(opened.text.slice(1));
  const poll = () => send(server.url, 'GET', `${target}&sid=${sid}`);
  const post = (body) => send(server.url, 'POST', `${target}&sid=${sid}`, { body });
  return {
    sid,
    target: `${target}&sid=${sid}`,
    poll,
    post,
    /** The packets of the next poll that has others than pings. A session's first ping comes at once. */
    async packets() {
      for (;;) {
        const polled = await poll();
        assert.equal(polled.status, 200, polled.text);
        const packets = polled.text.split('\x1e').filter((packet) => packet !== '2');
        if (packets.length > 0) return packets;
        assert.equal((await post('3')).status, 200);
      }
    },
    /** Takes the first ping. */
    async begun() {
      assert.equal((await poll()).text, '2');
      assert.equal((await post('3')).status, 200);
    },
  };
}

function assertHandshake(packet, upgrades) {
  assert.ok(packet.startsWith('0'), packet);
  const { sid, ...rest } = JSON.parse(packet.slice(1));
  assert.equal(typeof sid, 'string');
  const expected = { upgrades, pingInterval: PING_INTERVAL_MS, pingTimeout: PING_TIMEOUT_MS, maxPayload: MAX_PAYLOAD };
  assert.deepEqual(rest, expected);
}

// `says` is answered by what begins with `hears`, on a session that lives.
const engines = [
  { name: 'Engine.IO echo', server: () => echo, path: '/engine.io/', says: '4hello', hears: '4hello' },
  { name: 'Socket.IO echo', server: () => echo, path: '/echo.io/', says: '40', hears: '40{' },
  { name: 'gateway', server: () => gateway, path: '/socket.io/', says: '40/jobs,', hears: '40/jobs,{' },
];

for (const { name, server, path, says, hears } of engines) {
  describe(`Engine.IO: ${name}`, { concurrency: 4 }, () => {
    const polling = `${path}?EIO=4&transport=polling`;
    const webSocket = `${path}?EIO=4&transport=websocket`;
    const wrong = ['?transport=T', '?EIO=abc&transport=T', '?EIO=4', '?EIO=4&transport=abc'];

    it('opens a session over polling', async () => {
      const opened = await send(server().url, 'GET', polling);
      assert.equal(opened.status, 200);
      assertHandshake(opened.text, ['websocket']);
    });

    it('opens a session over WebSocket', async (t) => {
      const client = openWebSocket(t, server(), webSocket);
      assertHandshake(await client.next(), []);
    });

    for (const query of wrong) {
      it(`refuses ${query}`, async (t) => {
        const answer = await send(server().url, 'GET', path + query.replace('T', 'polling'));
        assert.equal(answer.status, 400);
        await openWebSocket(t, server(), path + query.replace('T', 'websocket')).ended();
      });
    }

    for (const method of ['POST', 'PUT']) {
      it(`refuses a session by ${method}`, async () => {
        assert.equal((await send(server().url, method, polling, { body: '' })).status, 400);
      });
    }

    it('pings over polling, as long as pongs come', async () => {
      const session = await openPolling(server(), path);
      for (let beats = 0; beats < 3; beats += 1) {
        const polled = await session.poll();
        assert.deepEqual([polled.status, polled.text], [200, '2']);
        assert.equal((await session.post('3')).status, 200);
      }
    });

    it('ends a polling session without pongs', async () => {
      const session = await openPolling(server(), path);
      await eventually(async () => (await session.poll()).status === 400, 'the end of the session');
    });

    it('pings over WebSocket, as long as pongs come', async (t) => {
      const client = openWebSocket(t, server(), webSocket);
      await client.next();
      for (let beats = 0; beats < 3; beats += 1) {
        assert.equal(await client.next(), '2');
        client.send('3');
      }
    });

    it('ends a WebSocket without pongs', async (t) => {
      await openWebSocket(t, server(), webSocket).ended();
    });

    it('closes a polling session', async () => {
      // A poll that comes after the close is refused, so it is tried until one was there before.
      await eventually(async () => {
        const session = await openPolling(server(), path);
        await session.begun();
        const polled = session.poll();
        await session.post('1');
        const { status, text } = await polled;
        assert.equal((await session.poll()).status, 400);
        if (status === 400) return false;
        assert.deepEqual([status, text], [200, '6']);
        return true;
      }, 'a poll that waits when its session is closed');
    });

    it('closes a WebSocket', async (t) => {
      const client = openWebSocket(t, server(), webSocket);
      await client.next();
      client.send('1');
      await client.ended();
    });

    it('ends a polling session for what is no packet', async () => {
      const session = await openPolling(server(), path);
      assert.equal((await session.post('abc')).status, 400);
      assert.equal((await session.poll()).status, 400);
    });

    it('ends a WebSocket for what is no packet', async (t) => {
      const client = openWebSocket(t, server(), webSocket);
      await client.next();
      client.send('abc');
      await client.ended();
    });

    it('does not poll twice at a time', async () => {
      const session = await openPolling(server(), path);
      await session.begun();
      const [one, other] = await Promise.all([session.poll(), session.poll()]);
      const statuses = [one.status, other.status].sort();
      assert.equal(statuses[0], 200);
      assert.ok(statuses[1] >= 400, statuses);
      await eventually(async () => (await session.poll()).status === 400, 'the end of the session');
    });

    it('ends a session whose poll is cancelled', async () => {
      const session = await openPolling(server(), path);
      const request = http.get(server().url + session.target, { agent: false });
      request.on('error', () => {});
      await inTime(once(request, 'finish'), 'the poll');
      request.destroy();
      await eventually(async () => (await session.poll()).status === 400, 'the end of the session');
    });

    it('upgrades, and ends the poll that waits', async (t) => {
      const session = await openPolling(server(), path);
      const client = openWebSocket(t, server(), `${webSocket}&sid=${session.sid}`);
      await client.opened();
      client.send('2probe');
      assert.equal(await client.next(), '3probe');
      assert.deepEqual(await session.packets(), ['6']);
      client.send('5', says);
      const answer = await client.answer();
      assert.ok(answer.startsWith(hears), answer);
    });

    it('lets nothing else into a session that was upgraded', async (t) => {
      const session = await openPolling(server(), path);
      const client = openWebSocket(t, server(), `${webSocket}&sid=${session.sid}`);
      await client.opened();
      client.send('2probe');
      assert.equal(await client.next(), '3probe');
      client.send('5', says);
      const answer = await client.answer();
      assert.ok(answer.startsWith(hears), answer);
      assert.equal((await session.poll()).status, 400);
      await openWebSocket(t, server(), `${webSocket}&sid=${session.sid}`).ended();
      if (path === '/engine.io/') {
        client.send('4again');
        assert.equal(await client.answer(), '4again');
      }
    });
  });
}

describe('Engine.IO: messages', () => {
  const path = '/engine.io/';

  for (const payload of ['4hello', '4test1\x1e4test2\x1e4test3', '4hello\x1ebAQIDBA==']) {
    it(`come back over polling: ${JSON.stringify(payload)}`, async () => {
      const session = await openPolling(echo, path);
      const posted = await session.post(payload);
      assert.deepEqual([posted.status, posted.text], [200, 'ok']);
      assert.equal((await session.packets()).join('\x1e'), payload);
    });
  }

  it('come back over WebSocket, text and binary', async (t) => {
    const client = openWebSocket(t, echo, `${path}?EIO=4&transport=websocket`);
    await client.next();
    client.send('4hello', Buffer.from([1, 2, 3, 4]));
    assert.equal(await client.answer(), '4hello');
    assert.deepEqual(await client.answer(), Buffer.from([1, 2, 3, 4]));
  });
});

/** A WebSocket past the handshake of Engine.IO. */
async function openEcho(t, ...packets) {
  const client = openWebSocket(t, echo, '/echo.io/?EIO=4&transport=websocket');
  await client.next();
  client.send(...packets);
  return client;
}

/** A WebSocket in the main namespace. */
async function enterEcho(t) {
  const client = await openEcho(t, '40');
  assert.match(await client.answer(), /^40\{/);
  assert.equal(await client.answer(), '42["auth",{}]');
  return client;
}

describe('Socket.IO: connecting', { concurrency: 4 }, () => {
  for (const namespace of ['', '/custom,']) {
    for (const auth of ['', '{"token":"123"}']) {
      it(`to ${namespace || 'the main namespace'} with ${auth || 'nothing'}`, async (t) => {
        const client = await openEcho(t, `40${namespace}${auth}`);
        const connected = await client.answer();
        assert.ok(connected.startsWith(`40${namespace}{`), connected);
        const { sid, ...rest } = JSON.parse(connected.slice(2 + namespace.length));
        assert.deepEqual([typeof sid, rest], ['string', {}]);
        assert.equal(await client.answer(), `42${namespace}["auth",${auth || '{}'}]`);
      });
    }
  }

  it('to an unknown namespace is refused', async (t) => {
    const client = await openEcho(t, '40/random');
    assert.equal(await client.answer(), '44/random,{"message":"Invalid namespace"}');
    const other = openWebSocket(t, gateway, '/socket.io/?EIO=4&transport=websocket');
    await other.next();
    other.send('40/random,');
    assert.equal(await other.answer(), '44/random,{"message":"Invalid namespace"}');
  });

  it('by what is no handshake ends the connection', async (t) => {
    await (await openEcho(t, '4abc')).ended();
  });

  for (const { name, server, path } of engines.slice(1)) {
    it(`not at all ends the connection: ${name}`, async (t) => {
      const client = openWebSocket(t, server(), `${path}?EIO=4&transport=websocket`);
      client.socket.on('message', (data) => data.toString() === '2' && client.send('3'));
      await client.ended();
    });
  }
});

describe('Socket.IO: leaving and messages', { concurrency: 4 }, () => {
  it('leaves the main namespace, and the connection goes on', async (t) => {
    const client = await enterEcho(t);
    client.send('41');
    assert.equal(await client.next(), '2');
  });

  it('leaves a custom namespace, and not the main one', async (t) => {
    const client = await enterEcho(t);
    client.send('40/custom,');
    assert.match(await client.answer(), /^40\/custom,/);
    assert.equal(await client.answer(), '42/custom,["auth",{}]');
    client.send('41/custom,', '42["message","to the main namespace"]');
    assert.equal(await client.answer(), '42["message-back","to the main namespace"]');
  });

  it('sends values back', async (t) => {
    const client = await enterEcho(t);
    client.send('42["message",1,"2",{"3":[true]}]');
    assert.equal(await client.answer(), '42["message-back",1,"2",{"3":[true]}]');
    client.send('42456["message-with-ack",1,"2",{"3":[false]}]');
    assert.equal(await client.answer(), '43456[1,"2",{"3":[false]}]');
  });

  it('sends attachments back', async (t) => {
    const client = await enterEcho(t);
    const places = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
    const attachments = [Buffer.from([1, 2, 3]), Buffer.from([4, 5, 6])];
    for (const [packet, answer] of [
      [`452-["message",${places}]`, `452-["message-back",${places}]`],
      [`452-789["message-with-ack",${places}]`, `462-789[${places}]`],
    ]) {
      client.send(packet, ...attachments);
      assert.equal(await client.answer(), answer);
      assert.deepEqual([await client.answer(), await client.answer()], attachments);
    }
  });

  for (const [what, packet] of Object.entries({
    'an unknown type': '4abc',
    'a payload that is no array': '42{}',
    'an id that is no number': '42abc["message-with-ack",1,"2",{"3":[false]}]',
  })) {
    it(`${what} ends the connection`, async (t) => {
      const client = await enterEcho(t);
      client.send(packet);
      await client.ended();
    });
  }
});

/** A client's frame of a short text. */
function frameOf(text) {
  const mask = Buffer.from([1, 2, 3, 4]);
  const payload = Buffer.from(text).map((byte, place) => byte ^ mask[place % 4]);
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length]), mask, payload]);
}

describe('frames that are cut', () => {
  it('at any byte are the frames that they were', async (t) => {
    const socket = net.connect({ port: gateway.port, host: '127.0.0.1', noDelay: true });
    t.after(() => socket.destroy());
    const heard = new Collector();
    socket.on('data', (data) => heard.push(data.toString('latin1')));
    const hears = (text) => heard.until((items) => items.join('').includes(text), text);
    /** Sends a part, and waits until it left, so that the next one is a packet of its own. */
    const write = (part) => new Promise((resolve) => socket.write(part, resolve));
    await write(
      'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n' +
        'sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
    );
    await hears('pingInterval');
    for (const byte of frameOf('40/jobs,')) await write(Buffer.from([byte]));
    await hears('40/jobs,{');
    const packet = (id) => frameOf(`42/jobs,${id}["unsubscribe:jobs",{"jobId":"j"}]`);
    for (let place = 1; place < packet(100).length; place += 1) {
      const id = 100 + place;
      await write(packet(id).subarray(0, place));
      await write(Buffer.concat([packet(id).subarray(place), frameOf('3')]));
      await hears(`43/jobs,${id}[{"success":true`);
    }
  });
});
