// HTTP as it is on the wire: the raw text of answers, and no headers but those asked for.

import assert from 'node:assert/strict';
import { gunzipSync } from 'node:zlib';
import { speak } from './trust.mjs';
import { inTime } from './waiting.mjs';

export const JSON_TYPE = { 'content-type': 'application/json' };
/** The ways into Socket.IO, and what asks for a WebSocket. */
export const POLLING = '/socket.io/?EIO=4&transport=polling';
export const SOCKET_IO_UPGRADE = '/socket.io/?EIO=4&transport=websocket';
export const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

export const NDJSON_TYPE = { 'content-type': 'application/x-ndjson' };

/**
 * One request: `{status, headers, text, json}`. `body` is a string or a buffer and sent as it is.
 * Connections are reused unless `fresh`, or `from` another local address.
 */
export function send(base, method, path, { body, headers = {}, from, fresh = from !== undefined } = {}) {
  const url = new URL(base);
  const answer = new Promise((resolve, reject) => {
    const { request: ask, agent, options } = speak(base);
    const request = ask({
      ...options,
      // Not as a URL, which would tidy the path up.
      host: url.hostname,
      port: url.port,
      path,
      method,
      headers: { ...headers, ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }) },
      localAddress: from,
      agent: fresh ? false : agent,
    });
    request.on('error', reject);
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve({ status: response.statusCode, headers: response.headers, text: '' });
    });
    request.on('response', (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const bytes = Buffer.concat(chunks);
        const plain = response.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes;
        const text = plain.toString('utf8');
        resolve({
          status: response.statusCode,
          headers: response.headers,
          bytes,
          text,
          get json() {
            return JSON.parse(text);
          },
        });
      });
    });
    request.end(body);
  });
  return inTime(answer, `the answer to ${method} ${path.slice(0, 200)}`, 30_000);
}

/** The calls of a gateway's HTTP API. `url` may be a function, for a gateway that starts later. */
export function httpClient(url) {
  const base = () => (typeof url === 'function' ? url() : url);
  const request = (method, path, options) => send(base(), method, path, options);
  const get = (path, headers) => request('GET', path, { headers });
  const post = (path, body, headers = {}) =>
    request('POST', path, {
      body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
      headers: { ...JSON_TYPE, ...headers },
    });

  /** Publishes, expects it to be accepted, and answers `{jobId, seq, timestamp}`. */
  const publish = async (jobId, kind, body, headers) => {
    const response = await post(`/api/jobs/${encodeURIComponent(jobId)}/${kind}`, body, headers);
    assert.equal(response.status, 200, `${kind} of ${jobId}: ${response.text}`);
    return response.json;
  };

  /** Publishes a batch of which every event is expected to be accepted, and answers its results. */
  const publishAll = async (events) => {
    const response = await post('/api/events', events);
    assert.equal(response.status, 200, response.text);
    const { results } = response.json;
    assert.deepEqual(
      results.filter((result) => result.error),
      [],
    );
    return results;
  };

  const history = async (jobId, query = '') => {
    const response = await get(`/api/jobs/${encodeURIComponent(jobId)}/history${query}`);
    assert.equal(response.status, 200, response.text);
    assert.equal(response.json.jobId, jobId);
    return response.json.events;
  };

  const roomSize = async (room) => {
    const response = await get(`/api/rooms/${encodeURIComponent(room)}`);
    assert.equal(response.status, 200, response.text);
    assert.equal(response.json.room, room);
    return response.json.clients;
  };

  return {
    request,
    get,
    post,
    publish,
    publishAll,
    update: (jobId, body = { status: 'queued' }, headers) => publish(jobId, 'update', body, headers),
    progress: (jobId, progress, headers) => publish(jobId, 'progress', { progress }, headers),
    completed: (jobId, body = {}, headers) => publish(jobId, 'completed', body, headers),
    error: (jobId, error, headers) => publish(jobId, 'error', { error }, headers),
    history,
    roomSize,
  };
}

export const sequenceNumbers = (events) => events.map((event) => event.seq);

/** All whole numbers from the first to the last. */
export const numbersBetween = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** Publishes progress of a job, one event after another, until the function it answers is called; that answers the last. */
export function publishUntilStopped(t, api, jobId) {
  let stopped = false;
  t.after(() => {
    stopped = true;
  });
  const publishing = (async () => {
    let last;
    do last = await api.progress(jobId, 50);
    while (!stopped);
    return last;
  })();
  return () => {
    stopped = true;
    return publishing;
  };
}

/** `count` updates of one job, for `publishAll`. */
export function updatesOf(jobId, count, fields = {}) {
  return Array.from({ length: count }, (_, index) => ({
    event: 'job:update',
    jobId,
    status: `step-${index}`,
    ...fields,
  }));
}

/** Expects an error as RFC 9457 has it, with a code, and a detail that speaks of `mention`. */
export function assertProblem(response, status, { code, mention } = {}) {
  const context = `${response.status} ${response.text.slice(0, 400)}`;
  const expected = [status].flat();
  assert.ok(expected.includes(response.status), `expected ${expected.join(' or ')}, got ${context}`);
  assert.match(response.headers['content-type'] ?? '', /^application\/problem\+json/, context);
  const problem = response.json;
  for (const field of ['type', 'title', 'detail', 'code']) {
    assert.equal(typeof problem[field], 'string', `${field} in ${context}`);
    assert.notEqual(problem[field], '', `${field} in ${context}`);
  }
  assert.equal(problem.status, response.status, context);
  if (code) assert.equal(problem.code, code, context);
  if (mention) assert.ok(problem.detail.includes(mention), `"${mention}" in the detail of ${context}`);
}
