const DAY = 24 * 60 * 60 * 1000;

/** A call that is answered with a status of 4xx. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** What a call comes to in HTTP. */
export async function answer(call) {
  try {
    return { status: 200, body: await call() };
  } catch (error) {
    const malformed = error instanceof SyntaxError || error instanceof URIError;
    return { status: error.status ?? (malformed ? 400 : 500), body: { message: error.message } };
  }
}

/** The namespace `jobs` of a socket.io server and the calls that publish to it. Nothing outlives the process. */
export class Jobs {
  #namespace;
  #newest = new Map();

  constructor(io) {
    this.#namespace = io.of('/jobs');
    this.#namespace.on('connection', (socket) => this.#welcome(socket));
    setInterval(() => this.#forgetIdle(), DAY / 24).unref();
  }

  /** `POST /api/jobs/{jobId}/progress` */
  progress(jobId, body) {
    const draft = { ...body, jobId };
    check(draft);
    return this.#publish(draft);
  }

  /** `POST /api/events` */
  batch(drafts) {
    if (!Array.isArray(drafts)) throw new Refused(400, 'an array of events is expected');
    if (drafts.length > 1000) throw new Refused(413, 'at most 1,000 events');
    drafts.forEach(check);
    return { results: drafts.map((draft) => this.#publish(draft)) };
  }

  #welcome(socket) {
    socket.data = {
      connectedAt: new Date().toISOString(),
      address: socket.handshake.address,
      userAgent: socket.handshake.headers['user-agent'],
      transport: socket.conn.transport.name,
    };
    socket.on('subscribe:jobs', (interest, ack) => {
      if (typeof interest === 'function') [interest, ack] = [undefined, interest];
      const { jobId, userId } = interest ?? {};
      const room = jobId ? `job:${jobId}` : userId ? `user:${userId}` : 'all-jobs';
      socket.join(room);
      ack?.({ success: true, room, message: `Subscribed to ${room}`, latest: this.#newest.get(jobId) ?? null });
    });
  }

  #publish({ jobId, progress, message, userId }) {
    const now = Date.now();
    const seq = (this.#newest.get(jobId)?.seq ?? now - 1) + 1;
    const timestamp = new Date(now).toISOString();
    // Watchers get the fields in this order.
    const event = { event: 'job:progress', jobId, status: 'in_progress', progress, message, userId, timestamp, seq };
    this.#newest.set(jobId, event);
    const rooms = [`job:${jobId}`, 'all-jobs'];
    if (userId) rooms.push(`user:${userId}`);
    this.#namespace.to(rooms).emit(event.event, event);
    return { jobId, seq, timestamp };
  }

  #forgetIdle() {
    const dayAgo = new Date(Date.now() - DAY).toISOString();
    for (const [jobId, { timestamp }] of this.#newest) {
      if (timestamp < dayAgo) this.#newest.delete(jobId);
    }
  }
}

function check(draft) {
  if (typeof draft?.jobId !== 'string') throw new Refused(422, 'jobId: a string is expected');
  if (!(draft.progress >= 0 && draft.progress <= 100)) {
    throw new Refused(422, 'progress: a number from 0 to 100 is expected');
  }
}
