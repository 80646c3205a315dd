// How a URL is spoken to: HTTP, or HTTPS with the authorities that a test trusts.

import http from 'node:http';
import https from 'node:https';

const trusted = [];
const agents = { 'http:': new http.Agent({ keepAlive: true }), 'https:': new https.Agent({ keepAlive: true }) };

/** Trusts an authority, whose certificate is PEM, from here on. */
export function trust(ca) {
  trusted.push(ca);
}

/** `{request, agent, options}` for a URL: Node's function, an agent that keeps connections, further options. */
export function speak(url) {
  const { protocol } = new URL(url);
  const secure = protocol === 'https:';
  return { request: (secure ? https : http).request, agent: agents[protocol], options: secure ? { ca: trusted } : {} };
}
