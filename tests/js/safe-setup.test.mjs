// README, "From nothing to a safe set-up": each block as it stands there, in a fresh folder, with the real binary, a real
// browser and a real proxy. Only addresses are others: see `adapt`.

import assert from 'node:assert/strict';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, before, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launchBrowser } from './support/browser.mjs';
import { binary } from './support/gateway.mjs';
import { assertProblem, httpClient } from './support/http.mjs';
import { anyPort, run, startProcess, temporaryFolder } from './support/processes.mjs';
import { connect } from './support/socketio.mjs';
import { bearer } from './support/tokens.mjs';
import { trust } from './support/trust.mjs';
import { Collector, eventually } from './support/waiting.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const FENCE = /^```(\w+)\n(.*?)^```$/gms;
const FILE_NAME = /^(?:#|\/\/|<!--) ([\w.]+\.\w+)/m;
const PATIENCE_MS = 20_000;

const section = readFileSync(resolve(here, '../../README.md'), 'utf8')
  .split(/^## /m)
  .find((text) => text.startsWith('From nothing to a safe set-up'));
const blocks = [...section.matchAll(FENCE)].map(([, kind, text]) => ({ kind, text }));

const folder = temporaryFolder('safe-setup');
const path = (name) => join(folder, name);
const lasting = [];
let ports;
let api;

/** The ports are free ones, and what belongs to the system is in the folder. */
const adapt = (text) =>
  text
    .replaceAll('127.0.0.1:3000', `127.0.0.1:${ports.gateway}`)
    .replaceAll('5173', ports.app)
    .replaceAll('listen 443', `listen 127.0.0.1:${ports.proxy}`)
    .replaceAll('/etc/jobcast/', `${folder}/`)
    .replaceAll('/var/log/nginx/', `${folder}/`);

/** The next block: it has this in it. */
function next(mention) {
  const block = blocks.shift();
  assert.ok(block?.text.includes(mention), `the next block of the section should have "${mention}": ${block?.text}`);
  return { kind: block.kind, text: adapt(block.text) };
}

function environment() {
  const { PATH, HOME } = process.env;
  return { PATH: `${path('bin')}:${PATH}`, HOME, JOBCAST_SERVER__LISTEN: `127.0.0.1:${ports.gateway}` };
}

/** Writes the next block, which is a file. */
function write(name) {
  const { text } = next(name);
  assert.equal(FILE_NAME.exec(text)?.[1], name);
  writeFileSync(path(name), text);
}

/** Runs the next block, which is commands, to its end: what it prints. */
async function execute(mention) {
  const { kind, text } = next(mention);
  assert.equal(kind, 'sh');
  const { code, stdout, stderr } = await run('bash', ['-euo', 'pipefail', '-c', text], { cwd: folder, env: environment() });
  assert.equal(code, 0, `${text}\n${stdout}\n${stderr}`);
  return stdout;
}

/** Starts the next block, which is commands of which the last one goes on, and waits for a line of its output. */
async function start(mention, ready) {
  const { text } = next(mention);
  const started = await startProcess('bash', ['-c', text.replace(/(\S+=\S*\$\(.*\) )?(\S.*)\n$/, 'export $1\nexec $2')], {
    cwd: folder,
    env: environment(),
    ready: (line) => ready.exec(line),
  });
  lasting.push(started);
  return started;
}

before(async () => {
  const [gateway, app, proxy] = [await anyPort(), await anyPort(), await anyPort()];
  ports = { gateway, app, proxy };
  const bin = temporaryFolder('bin');
  symlinkSync(binary(), join(bin, 'jobcast'));
  symlinkSync(bin, path('bin'));
});

after(async () => {
  for (const started of lasting.reverse()) await started.kill();
});

/** The page of the section, its list of events, and its WebSockets' frames. */
async function openPage() {
  const browser = await launchBrowser();
  lasting.push({ kill: () => browser.close() });
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.route('https://cdn.socket.io/**', (route) =>
    route.fulfill({ path: join(here, 'node_modules/socket.io-client/dist/socket.io.esm.min.js') }),
  );
  const frames = new Collector();
  page.on('websocket', (socket) => {
    frames.push('opened');
    socket.on('framesent', ({ payload }) => frames.push(`> ${payload}`));
    socket.on('framereceived', ({ payload }) => frames.push(`< ${payload}`));
  });
  const sees = (text) => page.locator('#events', { hasText: text }).waitFor();
  return { page, frames, sees };
}

const count = (frames, match) => frames.items.filter((frame) => match.test(frame)).length;

it('leads to a gateway that only those may use who should', async (t) => {
  let key;
  let gateway;
  let token;

  await t.test('a secret, a key, and a configuration with both', async () => {
    await execute('openssl rand -hex 32');
    assert.match(readFileSync(path('secret'), 'utf8'), /^[0-9a-f]{64}\n$/);
    key = readFileSync(path('key'), 'utf8').split('\n')[0];
    write('config.toml');
    assert.match(await execute('jobcast check'), /^the configuration is fine \(config\.toml\)\n$/);
    assert.ok(!readFileSync(path('config.toml'), 'utf8').includes(key));
  });

  await t.test('a gateway that asks who calls', async () => {
    gateway = await start('jobcast', /^listening on (http:\S+)$/);
    api = httpClient(gateway.answer[1]);
    assertProblem(await api.get('/api/jobs'), 401, { code: 'unauthorized' });
    assertProblem(await api.post('/api/jobs/j/update', { status: 'queued' }), 401, { code: 'unauthorized' });
  });

  await t.test('a backend that publishes with its key', async () => {
    const { jobId, seq } = JSON.parse(await execute('import-7'));
    assert.equal(jobId, 'import-7');
    assert.ok(seq > 0);
  });

  await t.test('a token that is good for what is its user’s, for 15 minutes', async () => {
    const minted = JSON.parse(await execute('api/tokens'));
    token = minted.token;
    const left = Date.parse(minted.expiresAt) - Date.now();
    assert.ok(left > 14 * 60_000 && left < 16 * 60_000, `${left}`);
    assert.equal((await api.get('/api/jobs?userId=ada', bearer(token))).json.jobs[0].jobId, 'import-7');
    assertProblem(await api.get('/api/jobs?userId=bob', bearer(token)), 403, { code: 'forbidden' });
    assertProblem(await api.get('/api/jobs', bearer(token)), 403, { code: 'forbidden' });
    const publishing = await api.post('/api/jobs/import-7/update', { status: 'queued' }, bearer(token));
    assertProblem(publishing, 403, { code: 'forbidden' });
  });

  const { page, frames, sees } = await openPage();
  const publish = (status) => api.update('import-7', { status }, bearer(key));

  await t.test('a page that watches with a token, and gets another one in time', async () => {
    write('app.mjs');
    write('index.html');
    const app = await start('node app.mjs', /^open (http:\S+)$/);
    // The first token is about to expire; the second is the backend's own.
    const fulfil = async (route) => {
      const short = await api.post('/api/tokens', { sub: 'ada', ttl: '20s' }, bearer(key));
      await route.fulfill({ json: short.json });
    };
    await page.route('**/token', fulfil, { times: 1 });
    await page.goto(app.answer[1]);
    await sees('import-7 queued');
    await frames.find((frame) => /^< 42\/jobs,\["auth:expiring"/.test(frame));
    await frames.find((frame) => /^> 42\/jobs,\["auth:refresh"/.test(frame));
    await publish('started');
    await sees('import-7 started');
    const refusals = frames.items.filter((frame) => /"success":false|"exception"/.test(frame));
    assert.deepEqual(refusals, []);
  });

  await t.test('a revocation, from which the page comes back with a new token', async () => {
    const { before: time } = JSON.parse(await execute('api/revocations'));
    assert.ok(Date.parse(time) <= Date.now());
    assertProblem(await api.get('/api/jobs?userId=ada', bearer(token)), 401, { code: 'unauthorized', mention: 'revoked' });
    await frames.find((frame) => /^< 42\/jobs,\["exception".*"unauthorized"/.test(frame));
    await publish('while away');
    await sees('import-7 while away');
    await eventually(() => count(frames, /^opened$/) === 2);
  });

  await t.test('a proxy that keeps tokens out of its log and metrics to itself', async () => {
    const conf = next('jobcast.conf').text;
    // It needs the certificate, which is made in the next block.
    await execute('openssl req -x509');
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder};`);
    writeFileSync(path('jobcast.conf'), conf);
    writeFileSync(path('nginx.conf'), `
      daemon off; master_process off; pid ${path('nginx.pid')}; error_log stderr notice; events {}
      http { ${temporary.join(' ')} include ${path('jobcast.conf')}; }`);
    const nginx = await startProcess('bash', ['-c', `exec nginx -e stderr -c ${path('nginx.conf')} 2>&1`], {
      cwd: folder,
      env: { PATH: `${process.env.PATH}:/usr/sbin` },
      ready: (line) => line.includes('event method'),
    });
    lasting.push(nginx);

    const url = `https://127.0.0.1:${ports.proxy}`;
    const ca = readFileSync(path('tls.crt'));
    trust(ca);
    const proxied = httpClient(url);
    const fresh = (await api.post('/api/tokens', { sub: 'ada' }, bearer(key))).json.token;
    assert.equal((await proxied.get(`/api/jobs/import-7?token=${fresh}`)).status, 200);
    assertProblem(await proxied.get('/api/jobs/import-7'), 401);
    assert.equal((await proxied.get('/metrics')).status, 404);
    // As the dashboard does.
    await proxied.update('import-7', { status: 'proxied' }, { ...bearer(key), origin: url });
    const extraHeaders = { 'x-forwarded-for': '203.0.113.9' };
    const auth = { token: fresh, clientId: 'proxied' };
    const watcher = await connect(t, { url }, { transports: ['websocket'], ca, auth, extraHeaders });
    await watcher.subscribe({ userId: 'ada' });
    const operator = bearer(readFileSync(path('operator'), 'utf8').trim().split(' ').pop());
    const client = await eventually(async () => {
      const { status, json } = await api.get('/api/clients/proxied', operator);
      return status === 200 && json;
    });
    // The proxy is trusted, and so is this machine, where its client is.
    assert.match(client.address, /^203\.0\.113\.9/);
    watcher.close();
    const log = readFileSync(path('jobcast.log'), 'utf8');
    assert.ok(log.includes('"GET /api/jobs/import-7" 200') && !log.includes(fresh), log);
  });

  await t.test('TLS by the gateway itself', async () => {
    assert.equal(await gateway.stop(), 0, gateway.stderr());
    const again = await start('TLS_CERT_FILE', /^listening on (https:\S+)$/);
    const snapshot = JSON.parse(await execute('curl --cacert tls.crt'));
    assert.equal(snapshot.status, 'proxied');
    assert.equal(await again.stop(), 0, again.stderr());
  });

  assert.deepEqual(blocks, [], 'blocks that nothing has run');
});
