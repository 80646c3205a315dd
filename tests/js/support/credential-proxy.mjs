// A proxy before a gateway that lets nobody at its API without a credential.

import http from 'node:http';
import { once } from 'node:events';

const FREE = /^\/(dashboard.*|favicon\.ico|healthz|readyz)?$/;

/**
 * `{url, credentials, seen, revoke, close}`. `credentials` says what each may: `'everything'`, `'read'`, or `'nothing'`, which
 * is known and has no access. `seen` is all that was asked for: `{path, authorization}`.
 */
export async function startCredentialProxy(gateway, credentials) {
  const seen = [];
  const streams = new Map();
  const refuse = (response, status, detail) => {
    const code = status === 401 ? 'unauthorized' : 'forbidden';
    const problem = { type: 'about:blank', title: http.STATUS_CODES[status], status, detail, code };
    const headers = { 'content-type': 'application/problem+json', ...(status === 401 && { 'www-authenticate': 'Bearer' }) };
    response.writeHead(status, headers).end(JSON.stringify(problem));
  };
  const server = http.createServer((request, response) => {
    const { url: path, method, headers } = request;
    const credential = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1];
    seen.push({ path, authorization: headers.authorization });
    if (!FREE.test(path)) {
      const may = credentials[credential];
      if (!credential) return refuse(response, 401, 'a token or an API key is needed');
      if (!may) return refuse(response, 401, 'the token has expired');
      if (may === 'nothing') return refuse(response, 403, 'all-jobs: it needs the scope jobs:admin');
      if (may === 'read' && method === 'POST') return refuse(response, 403, 'publishing needs an API key');
    }
    const target = new URL(path, gateway.url);
    const onward = http.request(target, { method, headers, agent: false });
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
    if (!streams.has(credential)) streams.set(credential, new Set());
    streams.get(credential).add(response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    credentials,
    seen,
    /** Forgets a credential, and ends what came with it. */
    revoke(credential) {
      delete credentials[credential];
      for (const response of streams.get(credential) ?? []) response.destroy();
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
