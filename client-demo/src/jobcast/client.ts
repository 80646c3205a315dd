// A client for Jobcast's /jobs namespace. Depends on socket.io-client (v4) and on nothing else: copy this
// folder into any project, with or without a framework.

import { io, type Socket } from 'socket.io-client';
import {
  checkTarget,
  connectError,
  isTransient,
  JOB_EVENTS,
  JobcastError,
  parseError,
  parseJobEvent,
  parseJobEvents,
  parseJobGap,
  parsePositions,
  roomPayload,
  type ClientEvents,
  type JobEvent,
  type Refusal,
  type ServerEvents,
  type Target,
} from './protocol';
import { ActiveWatch, safely, type WatchHandlers } from './watch';

export type Connection =
  | { state: 'connecting'; error?: JobcastError }
  | { state: 'connected' }
  | { state: 'reconnecting'; error?: JobcastError }
  /** The gateway said no. Nothing is tried again until `connect()`. */
  | { state: 'refused'; error: JobcastError }
  | { state: 'closed' };

export interface Watch {
  stop(): void;
}

export interface JobcastOptions {
  /** The name that this client goes by in the gateway's list of clients. */
  clientId?: string | undefined;
  /**
   * Fetches a token from your backend, where the gateway asks for one. It is called for each connection, and before the
   * token expires. While it fails, the client tries again.
   */
  token?: (() => Promise<string>) | undefined;
  /** How long the gateway may take to answer, in milliseconds. */
  timeout?: number;
}

export class Jobcast {
  readonly #socket: Socket<ServerEvents, ClientEvents>;
  readonly #timeout: number;
  readonly #watches = new Set<ActiveWatch>();
  readonly #connectionListeners = new Set<() => void>();
  #connection: Connection = { state: 'connecting' };
  #wasConnected = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #tokenFailed = false;

  constructor(url: string, { clientId, token, timeout = 10_000 }: JobcastOptions = {}) {
    this.#timeout = timeout;
    this.#socket = io(`${url.replace(/\/+$/, '')}/jobs`, {
      // WebSocket first: long-polling behind a load balancer needs sticky sessions.
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      auth: (send) => {
        this.#tokenFailed = false;
        if (!token) return send({ clientId });
        token().then(
          (good) => send({ clientId, token: good }),
          () => {
            this.#tokenFailed = true;
            send({ clientId });
          },
        );
      },
    });

    this.#socket.on('auth:expiring', () => {
      // Where this fails, the connection ends with its token, and comes back with another one.
      const renew = async () => token && this.#socket.emit('auth:refresh', { token: await token() }, () => {});
      renew().catch(() => {});
    });

    this.#socket.on('connect', () => {
      this.#wasConnected = true;
      this.#setConnection({ state: 'connected' });
      for (const watch of this.#watches) this.#subscribe(watch);
    });

    this.#socket.on('disconnect', (reason) => {
      for (const watch of this.#watches) watch.suspend();
      if (reason === 'io client disconnect') {
        this.#setConnection({ state: 'closed' });
        return;
      }
      this.#setConnection({ state: 'reconnecting' });
      // socket.io does not come back by itself from a server that closed the connection in so
      // many words, as a gateway does that restarts or finds a client too slow.
      if (!this.#socket.active) this.#connectLater();
    });

    this.#socket.on('connect_error', ({ message }) => {
      const error = this.#tokenFailed
        ? new JobcastError('connection', 'No token could be fetched.')
        : connectError(message);
      const state = this.#wasConnected ? 'reconnecting' : 'connecting';
      if (this.#socket.active) {
        this.#setConnection({ state, error });
      } else if (isTransient(error)) {
        this.#setConnection({ state, error });
        this.#connectLater();
      } else {
        this.#setConnection({ state: 'refused', error });
      }
    });

    for (const name of JOB_EVENTS) {
      this.#socket.on(name, (payload: unknown, second?: unknown) => {
        const event = parseJobEvent(payload);
        const positions = parsePositions(second);
        if (event) for (const watch of this.#watches) watch.receive(event, positions);
      });
    }

    this.#socket.on('job:gap', (payload, second) => {
      const gap = parseJobGap(payload);
      const positions = parsePositions(second);
      if (gap) for (const watch of this.#watches) watch.receiveGap(gap, positions);
    });
  }

  get connection(): Connection {
    return this.#connection;
  }

  /** Calls back whenever `connection` has changed. Returns the function that ends this. */
  onConnection(listener: () => void): () => void {
    this.#connectionListeners.add(listener);
    return () => this.#connectionListeners.delete(listener);
  }

  /** Tries again after `close()` or a refusal. */
  connect(): void {
    clearTimeout(this.#retry);
    if (this.#socket.connected) return;
    this.#setConnection({ state: this.#wasConnected ? 'reconnecting' : 'connecting' });
    this.#socket.connect();
  }

  close(): void {
    clearTimeout(this.#retry);
    for (const watch of this.#watches) watch.suspend();
    this.#socket.disconnect();
    this.#setConnection({ state: 'closed' });
  }

  /**
   * Hands over the events of a job, a user, a tenant, or of all jobs, each once, until `stop()`.
   * After a lost connection it goes on where it stopped. Throws where an id is missing.
   */
  watch(target: Target, handlers: WatchHandlers): Watch {
    checkTarget(target);
    const watch = new ActiveWatch(target, handlers);
    this.#watches.add(watch);
    this.#subscribe(watch);
    return {
      stop: () => {
        if (!this.#watches.delete(watch)) return;
        watch.stopped = true;
        watch.suspend();
        const shared = [...this.#watches].some((other) => other.room === watch.room);
        if (shared || !this.#socket.connected) return;
        // Nobody waits for this one: if it fails, the connection is gone and the room with it.
        this.#socket
          .timeout(this.#timeout)
          .emitWithAck('unsubscribe:jobs', roomPayload(target))
          .catch(() => {});
      },
    };
  }

  /** What is kept of a job, oldest first: the newest `limit`, or with `since` the next `limit`. */
  async history(jobId: string, page: { limit?: number; since?: number } = {}): Promise<JobEvent[]> {
    checkTarget({ jobId });
    const answer = await this.#socket
      .timeout(this.#timeout)
      .emitWithAck('history:jobs', { jobId, ...page })
      .catch(() => {
        throw new JobcastError('timeout', 'The gateway did not answer.');
      });
    if (!answer.success) throw parseError(answer.error);
    return parseJobEvents(answer.events);
  }

  #subscribe(watch: ActiveWatch): void {
    // Not left to socket.io's send buffer: 'connect' subscribes every watch there is.
    if (!this.#socket.connected) return;
    const attempt = watch.begin();
    const since = watch.resumeFrom();
    const payload = roomPayload(watch.target);
    if (since !== undefined) payload.since = since;

    // A callback and not emitWithAck: over long-polling one response may carry the answer and the
    // replay behind it, and a promise would resume only after those events had been dispatched.
    this.#socket.timeout(this.#timeout).emit('subscribe:jobs', payload, (late, answer) => {
      if (watch.stopped || attempt !== watch.attempt) return;
      if (!late && answer.success) {
        watch.accept(answer, since !== undefined);
        return;
      }
      const error = late
        ? new JobcastError('timeout', 'The gateway did not answer in time.')
        : parseError((answer as Refusal).error);
      const delay = watch.refuse(error);
      if (delay === undefined || !this.#socket.connected) return;
      watch.retry = setTimeout(() => this.#subscribe(watch), delay);
    });
  }

  #connectLater(): void {
    clearTimeout(this.#retry);
    // Spread out, or every page would be back in the same instant after a restart.
    this.#retry = setTimeout(() => this.#socket.connect(), 500 + Math.random() * 1500);
  }

  #setConnection(connection: Connection): void {
    this.#connection = connection;
    for (const listener of this.#connectionListeners) safely(listener);
  }
}
