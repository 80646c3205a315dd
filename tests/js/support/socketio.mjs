// Socket.IO clients that keep what they see.

import assert from 'node:assert/strict';
import { io as io4 } from 'socket.io-client';
import io3 from 'socket.io-client-3';
import { WebSocket } from 'ws';
import { Collector, inTime } from './waiting.mjs';

const clients = { 3: io3.io ?? io3, 4: io4 };
export const CLOSED = 'closed';
const JOB_EVENTS = ['job:update', 'job:progress', 'job:completed', 'job:error'];

/**
 * Emits with an acknowledgement callback and resolves with what it is called with. `args` without a
 * payload sends none.
 */
export function ask(socket, event, ...args) {
  return inTime(
    new Promise((resolve) => {
      socket.emit(event, ...args, resolve);
    }),
    `the acknowledgement of ${event}`,
  );
}

/** A connected client with everything that reached it, in order: `{name, payload}`. */
class Watcher {
  log = new Collector();

  constructor(socket) {
    this.socket = socket;
    socket.onAny((name, ...args) => this.log.push({ name, payload: args[0], args }));
  }

  /** As `ask`; the acknowledgement takes its place in the log, as `ack`. */
  ask(event, ...args) {
    return inTime(
      new Promise((resolve) => {
        this.socket.emit(event, ...args, (...answer) => {
          this.log.push({ name: 'ack', payload: answer[0], args: answer });
          resolve(answer[0]);
        });
      }),
      `the acknowledgement of ${event}`,
    );
  }

  /** Subscribes, expects that to succeed, and answers the acknowledgement. */
  async subscribe(...payload) {
    const answer = await this.ask('subscribe:jobs', ...payload);
    assert.equal(answer?.success, true, JSON.stringify(answer));
    return answer;
  }

  /** The job events so far, or those of one job. */
  jobEvents(jobId) {
    return this.log.items
      .filter(({ name, payload }) => JOB_EVENTS.includes(name) && (!jobId || payload.jobId === jobId))
      .map(({ payload }) => payload);
  }

  /** Waits for the job event of that number and answers the job's events so far. */
  async through({ jobId, seq }) {
    await this.log.find(
      ({ name, payload }) => JOB_EVENTS.includes(name) && payload.jobId === jobId && payload.seq === seq,
      `event ${seq} of ${jobId}`,
    );
    return this.jobEvents(jobId);
  }

  /** Waits for an event of that name and answers its payload. */
  async next(name) {
    const { payload } = await this.log.find((entry) => entry.name === name, name);
    return payload;
  }

  close() {
    this.socket.disconnect();
  }
}

/**
 * Connects to `/jobs` and answers a `Watcher`; rejects with the `connect_error`. `client` is the major
 * version of socket.io-client; the other options are its own.
 */
export async function connect(
  t,
  gateway,
  { client = 4, namespace = '/jobs', transports = ['websocket'], ...options } = {},
) {
  const socket = clients[client](gateway.url + namespace, {
    transports,
    forceNew: true,
    reconnection: false,
    ...options,
  });
  const watcher = new Watcher(socket);
  t.after(() => watcher.close());
  await inTime(
    new Promise((resolve, reject) => socket.once('connect', resolve).once('connect_error', reject)),
    `the connection to ${namespace}`,
  );
  return watcher;
}

/** Fails the failure: expects an acknowledgement that refuses, with that code. */
export function assertRefused(answer, code) {
  const context = JSON.stringify(answer);
  assert.equal(answer?.success, false, context);
  assert.equal(answer.error?.code, code, context);
  assert.equal(typeof answer.error.message, 'string', context);
  assert.notEqual(answer.error.message, '', context);
  assert.equal(typeof answer.message, 'string', context);
}

/**
 * A client that speaks the protocol by hand over a WebSocket, for what a library would never send, and
 * for the text of frames as it came: `{socket, frames}`, already in `/jobs`. The end of the connection is the
 * frame `CLOSED`.
 */
export async function connectByHand(t, gateway, { namespace = '/jobs', headers } = {}) {
  const address = gateway.url.replace('http', 'ws');
  const socket = new WebSocket(`${address}/socket.io/?EIO=4&transport=websocket`, { headers });
  t.after(() => socket.terminate());
  const frames = new Collector();
  socket.once('close', () => frames.push(CLOSED));
  socket.on('message', (data) => {
    const text = data.toString();
    if (text === '2') socket.send('3');
    else frames.push(text);
  });
  await inTime(new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject)), 'the WebSocket');
  socket.on('error', () => {});
  socket.send(`40${namespace},`);
  await frames.find((text) => text.startsWith(`40${namespace},`), 'the namespace');
  return { socket, frames };
}
