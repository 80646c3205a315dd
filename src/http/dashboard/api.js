// The gateway's HTTP interface, as far as the page needs it.

import { shorten } from './dom.js';

const REQUEST_TIMEOUT = 15_000;

// The gateway may be mounted below a path of another server.
export const base = new URL('..', import.meta.url);

// What is wrong with a request: told by the gateway, or found before it was sent (then `status` is 0).
export class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function problemOf(response, text) {
  try {
    const { title, detail, code } = JSON.parse(text);
    return new Problem(response.status, code, detail || title || response.statusText);
  } catch {
    return new Problem(response.status, '', shorten(text.trim(), 200) || response.statusText);
  }
}

export async function call(path, init) {
  const response = await fetch(new URL(path, base), { ...init, signal: AbortSignal.timeout(REQUEST_TIMEOUT) });
  const text = await response.text();
  if (!response.ok) throw problemOf(response, text);
  return text;
}

export async function publish(job, kind, body, key = randomName()) {
  const answer = await call(`api/jobs/${encodeURIComponent(job)}/${kind}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    body,
  });
  return JSON.parse(answer);
}

export function describe(error) {
  if (!(error instanceof Problem)) return `The gateway does not answer (${error.message}).`;
  if (error.status === 0) return error.message;
  return error.code ? `${error.message} (${error.status} ${error.code})` : `${error.message} (${error.status})`;
}

export function randomName() {
  return [...crypto.getRandomValues(new Uint32Array(2))].map((n) => n.toString(36)).join('');
}
