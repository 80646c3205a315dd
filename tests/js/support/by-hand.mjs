// Clients that speak Engine.IO and Socket.IO by hand, cheap enough for thousands, and free to misbehave.

import http from 'node:http';
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { send } from './http.mjs';
import { inTime } from './waiting.mjs';

const PATIENCE_MS = 30_000;
const POLLING = '/socket.io/?EIO=4&transport=polling';

/**
 * A WebSocket to the gateway that answers pings: `{socket, frame, closed, cut, enter, ask}`. `sid` continues
 * a polling session. `from` is the local address.
 */
export async function openSocket(gateway, { sid, headers, from } = {}) {
  const address = `${gateway.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`;
  const socket = new WebSocket(sid ? `${address}&sid=${sid}` : address, { headers, localAddress: from, perMessageDeflate: false });
  const waiting = new Set();
  const unclaimed = [];
  let raw;
  socket.once('upgrade', (response) => {
    raw = response.socket;
  });
  socket.on('message', (data) => {
    const text = data.toString();
    if (text === '2') {
      socket.send('3');
      return;
    }
    for (const one of waiting) if (one.take(text)) return;
    // Events are of interest to those only who wait for them.
    if (!text.startsWith('42')) unclaimed.push(text);
  });
  const closed = new Promise((resolve) => {
    socket.once('close', () => {
      for (const one of waiting) one.giveUp();
      resolve();
    });
  });
  await inTime(
    new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject)),
    'the WebSocket',
    PATIENCE_MS,
  );
  // From here on a cut is no failure: whoever waits for a frame says what is missing.
  socket.on('error', () => {});

  /** Resolves with the next frame that starts so. */
  const frame = (start) =>
    new Promise((resolve, reject) => {
      const place = unclaimed.findIndex((text) => text.startsWith(start));
      if (place >= 0) {
        resolve(unclaimed.splice(place, 1)[0]);
        return;
      }
      const end = (settle, value) => {
        waiting.delete(one);
        clearTimeout(timer);
        settle(value);
        return true;
      };
      const one = {
        take: (text) => text.startsWith(start) && end(resolve, text),
        giveUp: () => end(reject, new Error(`the connection ended before a frame ${start}`)),
      };
      const timer = setTimeout(() => end(reject, new Error(`waited in vain for a frame ${start}`)), PATIENCE_MS);
      waiting.add(one);
    });
  let asked = 0;
  return {
    socket,
    frame,
    closed,
    /** Cuts the connection as a lost network does, without a word. */
    cut: () => raw.resetAndDestroy(),
    /** Resolves once all that was sent is the network's. */
    sent: () => new Promise((resolve) => raw.write('', resolve)),
    /** Enters a namespace. */
    async enter(namespace, auth) {
      socket.send(`40${namespace},${auth ? JSON.stringify(auth) : ''}`);
      await frame(`40${namespace},`);
    },
    /** Emits an event to `/jobs` and resolves with its acknowledgement. */
    async ask(event, payload) {
      asked += 1;
      const id = asked;
      socket.send(`42/jobs,${id}${JSON.stringify([event, payload])}`);
      const answer = await frame(`43/jobs,${id}[`);
      return JSON.parse(answer.slice(answer.indexOf('[')))[0];
    },
  };
}

/** A long-polling session: `{sid, post(packet), poll(), frame(start)}`. */
export async function openPolling(gateway, headers) {
  const opened = await send(gateway.url, 'GET', POLLING, { headers });
  assert.equal(opened.status, 200, opened.text);
  const { sid } = JSON.parse(opened.text.slice(1));
  const path = `${POLLING}&sid=${sid}`;
  /** Polls once, and answers the packets. */
  const poll = async () => {
    const answer = await send(gateway.url, 'GET', path);
    assert.equal(answer.status, 200, answer.text);
    return answer.text.split('\x1e');
  };
  const post = async (packet) => {
    const answer = await send(gateway.url, 'POST', path, { body: packet });
    assert.equal(answer.status, 200, answer.text);
  };
  return {
    sid,
    poll,
    post,
    /** Polls, and answers pings, until a packet that starts so is there. */
    async frame(start) {
      for (;;) {
        const packets = await poll();
        if (packets.includes('2')) await post('3');
        if (packets.some((packet) => packet.startsWith(start))) return;
      }
    },
  };
}

/** Opens a stream and cuts it: `when` the first of `'connect'`, `'response'` or `'data'`. */
export function abortStream(gateway, path, when) {
  return inTime(
    new Promise((resolve, reject) => {
      const request = http.get(gateway.url + path, { agent: false });
      const cut = () => {
        request.destroy();
        resolve();
      };
      request.on('error', (error) => (request.destroyed ? resolve() : reject(error)));
      if (when === 'connect') request.once('socket', (socket) => socket.once('connect', cut));
      request.once('response', (response) => {
        response.on('error', () => {});
        assert.equal(response.statusCode, 200);
        if (when === 'data') response.once('data', cut);
        else cut();
      });
    }),
    `the ${when} of ${path}`,
    PATIENCE_MS,
  );
}
