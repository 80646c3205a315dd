// The gateway's HTTP interface, as far as the page needs it.

import { askAfter, authorization } from './account.js';
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

// Whether a problem is one that another token or key could solve.
export function isRefusal({ status }) {
  return status === 401 || status === 403;
}

// Resolves with the answer once its head is there. Where it is refused for want of a better token or key, that is asked
// for; but a publish that is refused, as one from behind a proxy that rewrites Host, is told of beside the form.
export async function open(path, { headers, ...init } = {}) {
  const sent = authorization();
  const response = await fetch(new URL(path, base), { ...init, headers: { ...headers, ...sent } });
  if (response.ok) return response;
  const problem = problemOf(response, await response.text());
  if (isRefusal(problem) && (problem.status === 401 || !init.method)) askAfter(problem, sent);
  throw problem;
}

// The problem for which the gateway has ended a stream that was opened with `sent`. Where its token has ended, another one
// is asked for.
export function end(data, sent) {
  const { code, message } = JSON.parse(data);
  const isSignedOut = code === 'token_expired' || code === 'unauthorized';
  const problem = new Problem(isSignedOut ? 401 : 0, code, message);
  if (isSignedOut) askAfter(problem, sent);
  return problem;
}

export async function call(path, init) {
  const response = await open(path, { ...init, signal: AbortSignal.timeout(REQUEST_TIMEOUT) });
  return response.text();
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
