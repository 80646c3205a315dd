// The client demo, and so its client, before a gateway that asks for tokens.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { after, before, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launchBrowser } from './support/browser.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { run, startProcess, temporaryFolder } from './support/processes.mjs';
import { apiKey, authSettings, bearer, token } from './support/tokens.mjs';
import { Collector, uniqueId } from './support/waiting.mjs';

const demo = resolve(fileURLToPath(import.meta.url), '../../../client-demo');
const vite = join(demo, 'node_modules/vite/bin/vite.js');
const key = apiKey('backend');
const publisher = bearer(key.key);

let backend;
let browser;
let gateway;
let web;
let api;
/** What the backend answers next, before it goes on with good tokens. */
const answers = [];

/** A backend that hands out tokens for ada. */
async function startBackend() {
  const server = createServer((request, response) => {
    response.setHeader('access-control-allow-origin', '*');
    const answer = answers.shift() ?? { token: token({ sub: 'ada' }) };
    response.writeHead(answer.status ?? 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

before(async () => {
  if (!existsSync(vite)) {
    const installed = await run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: demo });
    assert.equal(installed.code, 0, installed.stderr);
  }
  const env = { ...authSettings({ keys: [key] }), JOBCAST_CORS__ORIGINS: '["*"]', JOBCAST_CORS__CREDENTIALS: 'false' };
  gateway = await startGateway({ env });
  api = httpClient(gateway.url);
  backend = await startBackend();
  const built = temporaryFolder('client-demo');
  const settings = { VITE_JOBCAST_URL: gateway.url, VITE_JOBCAST_TOKEN_URL: `${backend.url}/token` };
  const options = { cwd: demo, env: { ...process.env, NO_COLOR: '1', ...settings } };
  const build = await run(process.execPath, [vite, 'build', '--outDir', built, '--emptyOutDir'], options);
  assert.equal(build.code, 0, build.stdout + build.stderr);
  web = await startProcess(process.execPath, [vite, 'preview', '--outDir', built, '--port', '0'], {
    ...options,
    ready: (line) => /http:\/\/localhost:\d+/.exec(line),
  });
  browser = await launchBrowser();
});

after(async () => {
  await browser?.close();
  backend?.close();
  await web?.stop();
  await gateway?.stop();
});

it('fetches tokens, renews them in time, and tries again while there are none', async () => {
  // First the backend is down, then its token is about to expire.
  answers.push({ status: 503 }, { token: token({ sub: 'ada', exp: Date.now() / 1000 + 20 }) });
  const jobId = uniqueId('build');
  await api.update(jobId, { status: 'queued', userId: 'ada' }, publisher);
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  const frames = new Collector();
  page.on('websocket', (socket) => {
    socket.on('framesent', ({ payload }) => frames.push(`> ${payload}`));
    socket.on('framereceived', ({ payload }) => frames.push(`< ${payload}`));
  });
  await page.goto(`${web.answer[0]}/#user/ada`);
  await page.locator(`[data-testid="job"][data-job="${jobId}"]`).waitFor();
  assert.ok(frames.items.some((frame) => frame.includes('unauthorized')));
  const [, id] = await frames.until((items) =>
    items.map((frame) => /^> 42\/jobs,(\d+)\["auth:refresh"/.exec(frame)).find(Boolean),
  );
  await frames.find((frame) => frame.startsWith(`< 43/jobs,${id}[{"success":true,"expiresAt"`));
  await api.progress(jobId, 40, publisher);
  await page.locator(`[data-job="${jobId}"][data-progress="40"]`).waitFor();
});

it('comes back with another token when its own is revoked', async () => {
  answers.push({ token: token({ sub: 'ada', iat: Date.now() / 1000 - 10 }) });
  const jobId = uniqueId('build');
  await api.update(jobId, { status: 'queued', userId: 'ada' }, publisher);
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(`${web.answer[0]}/#user/ada`);
  await page.locator(`[data-testid="job"][data-job="${jobId}"]`).waitFor();
  const admin = bearer(token({ sub: 'root', scope: 'jobs:admin' }));
  const revoked = await api.post('/api/revocations', { sub: 'ada' }, admin);
  assert.equal(revoked.status, 200, revoked.text);
  await page.locator('[data-testid="connection"][data-state="reconnecting"]').waitFor();
  await api.progress(jobId, 55, publisher);
  await page.locator(`[data-job="${jobId}"][data-progress="55"]`).waitFor();
});
