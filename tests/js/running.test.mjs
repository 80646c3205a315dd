// The process as its operator meets it: where settings come from, what stops a start, how it ends, and the demo.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { Agent, get as httpGet } from 'node:http';
import { connect as openConnection, createServer } from 'node:net';
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  connect,
  eventually,
  httpClient,
  inTime,
  numbersBetween,
  openStream,
  send,
  sequenceNumbers,
  uniqueId,
} from './support/clients.mjs';
import { startGateway } from './support/gateway.mjs';
import { run, startProcess, temporaryFolder } from './support/processes.mjs';
import { startRedis } from './support/redis.mjs';
import { describeEachStore } from './support/stores.mjs';
import { apiKey, authSettings, token } from './support/tokens.mjs';

const GRACE_MS = 4_000;
const LISTENING = /^listening on (http:\/\/(\S+):(\d+))$/;
/** A port that nobody serves. */
const NOBODY = '127.0.0.1:1';

let gateway;
let binary;
before(async () => {
  gateway = await startGateway();
  binary = gateway.process.spawnfile;
});
after(async () => assert.equal(await gateway.stop(), 0, gateway.stderr()));

/** An environment that configures nothing, and `settings`. */
function environment(settings = {}) {
  const { PATH, TMPDIR } = process.env;
  return { PATH, ...(TMPDIR ? { TMPDIR } : {}), ...settings };
}

/** A folder with these files in it, by name. */
function folderWith(files = {}) {
  const folder = temporaryFolder('running');
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

/** Runs `jobcast` to its end: `{code, stdout, stderr}`; one that does not end by itself is ended, without a code. */
const jobcast = (args, { cwd = folderWith(), env } = {}) =>
  run(binary, args, { cwd, env: environment(env), timeout: 20_000, killSignal: 'SIGKILL' });

/** Starts the gateway in a folder: `{url, host, port, …}` and what `startProcess` answers. */
async function serve(t, { args = [], cwd = folderWith(), env } = {}) {
  const started = await startProcess(binary, args, {
    cwd,
    env: environment(env),
    ready: (line) => LISTENING.exec(line),
  });
  t.after(() => started.kill());
  const [, url, host, port] = started.answer;
  return { ...started, url, host, port: Number(port), api: httpClient(url) };
}

/** Expects a start that has failed, with one clear line on standard error, and answers that. */
function assertFailed({ code, stdout, stderr }, ...mentioned) {
  assert.equal(code, 1, stdout + stderr);
  assert.equal(stdout, '');
  assert.doesNotMatch(stderr, /panicked|RUST_BACKTRACE/);
  for (const mention of mentioned) {
    const found = mention instanceof RegExp ? mention.test(stderr) : stderr.includes(mention);
    assert.ok(found, `${mention} in ${stderr}`);
  }
  return stderr;
}

const listenOn = (host) => `[server]\nlisten = "${host}:0"\n[store]\npath = ":memory:"\n`;

describe('the first line', () => {
  it('tells the free port that was picked, once it is served', async (t) => {
    const { url, port, stdout, stop } = await serve(t, { args: ['serve', '--listen', '127.0.0.1:0'] });
    assert.equal((await send(url, 'GET', '/healthz', { fresh: true })).status, 200);
    assert.ok(port > 0);
    assert.equal(await stop(), 0);
    assert.equal(stdout(), `listening on ${url}\n`);
  });
});

describe('settings', () => {
  it('come from config.toml in the working directory, and serving is the default command', async (t) => {
    const cwd = folderWith({ 'config.toml': `${listenOn('127.0.0.2')}[history]\nmax_events = 3\n` });
    const { host, api } = await serve(t, { cwd });
    assert.equal(host, '127.0.0.2');
    const jobId = uniqueId('capped');
    for (let count = 0; count < 5; count += 1) await api.update(jobId);
    assert.equal((await api.history(jobId)).length, 3);
    assert.ok(!existsSync(join(cwd, 'data')));
  });

  it('come from the file that --config names, in place of that one', async (t) => {
    const cwd = folderWith({ 'config.toml': listenOn('127.0.0.2'), 'other.toml': listenOn('127.0.0.3') });
    assert.equal((await serve(t, { cwd, args: ['--config', 'other.toml'] })).host, '127.0.0.3');
    assert.equal((await serve(t, { cwd, args: ['serve', '--config', join(cwd, 'other.toml')] })).host, '127.0.0.3');
  });

  it('in flags win over the environment, and the environment wins over the file', async (t) => {
    const cwd = folderWith({ 'config.toml': listenOn('127.0.0.2') });
    const env = { JOBCAST_SERVER__LISTEN: '127.0.0.3:0' };
    assert.equal((await serve(t, { cwd, env })).host, '127.0.0.3');
    assert.equal((await serve(t, { cwd, env, args: ['--listen', '127.0.0.4:0'] })).host, '127.0.0.4');
    assert.equal((await serve(t, { cwd, args: ['serve', '--listen', '127.0.0.4:0'] })).host, '127.0.0.4');
    assert.equal((await serve(t, { cwd, env, args: ['--config', 'config.toml'] })).host, '127.0.0.3');
  });

  it('keep events in the folder data where none says otherwise', async (t) => {
    const cwd = folderWith();
    const args = ['--listen', '127.0.0.1:0'];
    const first = await serve(t, { cwd, args });
    const jobId = uniqueId('kept');
    const { seq } = await first.api.update(jobId);
    assert.equal(await first.stop(), 0);
    assert.ok(existsSync(join(cwd, 'data')));
    const second = await serve(t, { cwd, args });
    assert.deepEqual(sequenceNumbers(await second.api.history(jobId)), [seq]);
  });

  it('name Redis by REDIS_URL alone, whatever the file says', async (t) => {
    const redis = await startRedis();
    t.after(() => redis.stop());
    for (const file of ['', '[store]\nbackend = "embedded"\n[redis]\nurl = "redis://127.0.0.1:1"\n']) {
      const cwd = folderWith({ 'config.toml': file });
      const { api } = await serve(t, { cwd, args: ['--listen', '127.0.0.1:0'], env: { REDIS_URL: redis.url } });
      const jobId = uniqueId('shared');
      await api.update(jobId);
      assert.equal(await redis.client.llen(`job-history:${jobId}`), 1);
      assert.ok(!existsSync(join(cwd, 'data')));
    }
  });

  it('of the level of logs count, and RUST_LOG wins', async (t) => {
    const logged = async (env) => {
      const { stop, stderr } = await serve(t, {
        args: ['--listen', '127.0.0.1:0'],
        env: { JOBCAST_STORE__PATH: ':memory:', ...env },
      });
      assert.equal(await stop(), 0);
      return stderr();
    };
    assert.notEqual(await logged({}), '');
    assert.equal(await logged({ JOBCAST_LOG__LEVEL: 'off' }), '');
    assert.equal(await logged({ RUST_LOG: 'off' }), '');
    assert.notEqual(await logged({ JOBCAST_LOG__LEVEL: 'off', RUST_LOG: 'info' }), '');
  });
});

/** What a file or a variable can be wrong about: the text, and what the complaint mentions beside the place. */
const WRONG = {
  'an unknown key': ['[server]\nport = 3000\n', 'server', '`port`', '`listen`'],
  'an unknown section': ['[sever]\nlisten = "127.0.0.1:0"\n', '`sever`', '`server`'],
  'a text in place of a number': ['[history]\nmax_events = "many"\n', 'history.max_events', 'integer', 'many'],
  'a number in place of a section': ['history = 3\n', 'history'],
  'a number in place of a list': ['[cors]\norigins = 3\n', 'cors.origins'],
  'a word in place of a truth value': ['[auth]\nallow_anonymous = "perhaps"\n', 'auth.allow_anonymous', 'boolean'],
  'an address that is none': ['[server]\nlisten = "nowhere"\n', 'server.listen', 'nowhere', '127.0.0.1:3000'],
  'no events at all': ['[history]\nmax_events = 0\n', 'history.max_events', 'from 1 to'],
  'fewer than none': ['[history]\nmax_events = -1\n', 'history.max_events', '-1'],
  'a time that is none': ['[history]\nretention = "soon"\n', 'history.retention', 'soon', '24h'],
  'a time that is too short': ['[history]\nretention = "1ms"\n', 'history.retention', '1s'],
  'a size that is none': ['[server]\nmax_payload = "big"\n', 'server.max_payload', 'big', '128KiB'],
  'a store that there is not': ['[store]\nbackend = "mysql"\n', 'store.backend', 'mysql', '"embedded"', '"redis"'],
  'a format that there is not': ['[log]\nformat = "xml"\n', 'log.format', 'xml', '"text"', '"json"'],
  'a level that there is not': ['[log]\nlevel = "loud"\n', 'log.level', 'loud', 'debug'],
  'an origin with a path': ['[cors]\norigins = ["http://a.example/"]\n', 'cors.origins', 'http://a.example/'],
  'what is not TOML': ['[server\n', 'line 1'],
  'a number in place of all servers': ['server = 5\n', 'line 1', 'server', '[server]', '5'],
  'a text in place of a truth value': ['[cors]\ncredentials = "yes"\n', 'line 2', 'cors.credentials', 'boolean', '"yes"'],
  'a number in place of a truth value': ['[auth]\n\nallow_anonymous = 1\n', 'line 3', 'auth.allow_anonymous', 'boolean'],
  'a truth value in place of a number': ['[history]\nmax_events = true\n', 'line 2', 'history.max_events', 'integer'],
  'a part of an event': ['[history]\nmax_events = 50.5\n', 'line 2', 'history.max_events', 'integer', '50.5'],
  'a number as text': ['[history]\nmax_events = "50"\n', 'line 2', 'history.max_events', 'integer', '"50"'],
  'a truth value in place of a folder': ['[store]\npath = true\n', 'line 2', 'store.path', 'text'],
  'a number in place of a text': ['[redis]\nkey_prefix = 5\n', 'line 2', 'redis.key_prefix', 'text', '5'],
  'certificates that are not there': ['[redis]\nca_file = "nowhere.pem"\n', 'line 2', 'redis.ca_file', 'nowhere.pem'],
  'a notice of more than a quarter of the grace': [
    '[server]\nshutdown_grace = "1s"\ndrain_notice = "300ms"\n',
    'line 3',
    'server.drain_notice',
    'server.shutdown_grace',
    '"250ms"',
  ],
  'a window of more than half of the grace': [
    '[server]\nshutdown_grace = "1s"\ndrain_window = "20s"\n',
    'line 3',
    'server.drain_window',
    'server.shutdown_grace',
    '"500ms"',
  ],
};

describe('check', () => {
  it('accepts nothing at all, and the example with every key', async () => {
    const example = resolve(fileURLToPath(import.meta.url), '../../../config.toml');
    for (const [args, cwd] of [
      [['check'], folderWith()],
      [['check', '--config', example], folderWith()],
      [['check'], folderWith({ 'config.toml': readFileSync(example, 'utf8') })],
      // Nothing is opened: neither the server nor the folder have to be there.
      [['check'], folderWith({ 'config.toml': `[store]\nbackend = "redis"\n[redis]\nurl = "redis://${NOBODY}"\n` })],
    ]) {
      const { code, stderr } = await jobcast(args, { cwd });
      assert.equal(code, 0, stderr);
      assert.equal(stderr, '');
      assert.ok(!existsSync(join(cwd, 'data')));
    }
  });

  for (const [what, [text, ...mentioned]] of Object.entries(WRONG)) {
    it(`names the file, the key and what is right for ${what}, as serving does`, async () => {
      const cwd = folderWith({ 'config.toml': text });
      const complaint = assertFailed(await jobcast(['check'], { cwd }), 'config.toml', ...mentioned);
      assert.equal((await jobcast(['serve'], { cwd })).stderr, complaint);
      const named = await jobcast(['check', '--config', join(cwd, 'config.toml')]);
      assertFailed(named, join(cwd, 'config.toml'), ...mentioned);
      assert.ok(!existsSync(join(cwd, 'data')));
    });
  }

  it('names everything that is wrong at once, each in its place', async () => {
    const file = '[server]\nlisten = "0.0.0.0:1"\n[history]\nmax_events = true\n[sever]\nport = 1\n[log]\nlevl = "info"\n';
    const env = { JOBCAST_CORS__CREDENTIALS: 'yes' };
    const complaint = assertFailed(await jobcast(['check'], { cwd: folderWith({ 'config.toml': file }), env }));
    for (const place of [
      /line 2: server\.listen: /,
      /line 4: history\.max_events: /,
      /line 5: .*`sever`.*`server`/,
      /line 8: log: .*`levl`.*`level`/,
      /^ *JOBCAST_CORS__CREDENTIALS: cors\.credentials: .*"yes"/m,
    ]) {
      assert.match(complaint, place);
    }
    assert.equal(complaint.trimEnd().split('\n').length, 6, complaint);
  });

  it('takes numbers and truth values from variables, which are text', async () => {
    const env = { JOBCAST_HISTORY__MAX_EVENTS: '5', JOBCAST_CORS__CREDENTIALS: 'false', JOBCAST_REDIS__KEY_PREFIX: '5' };
    assert.equal((await jobcast(['check'], { env })).code, 0);
  });

  it('names the variable that is wrong, and not the file', async () => {
    const cwd = folderWith({ 'config.toml': '[history]\nmax_events = 5\n' });
    for (const [name, value, ...mentioned] of [
      ['JOBCAST_HISTORY__MAX_EVENTS', 'many', 'history.max_events', 'many'],
      ['JOBCAST_SERVER__LISTN', '127.0.0.1:0', '`listn`', '`listen`'],
      ['JOBCAST_LISTEN', '127.0.0.1:0', 'JOBCAST_SERVER__LISTEN'],
      ['JOBCAST_STORE__BACKEND', 'mysql', 'store.backend', '"embedded"'],
      ['REDIS_URL', 'http://127.0.0.1', 'redis.url', 'rediss://'],
    ]) {
      const complaint = assertFailed(await jobcast(['check'], { cwd, env: { [name]: value } }), name, ...mentioned);
      assert.ok(!complaint.includes('config.toml'), complaint);
    }
  });

  it('names a file that cannot be read', async () => {
    assertFailed(await jobcast(['check', '--config', 'missing.toml']), 'missing.toml', 'No such file');
    const cwd = folderWith({ 'latin.toml': Buffer.from('# caf\xe9\n', 'latin1') });
    assertFailed(await jobcast(['check', '--config', 'latin.toml'], { cwd }), 'latin.toml', 'UTF-8');
    mkdirSync(join(cwd, 'config.toml'));
    assertFailed(await jobcast(['check'], { cwd }), 'config.toml', 'directory');
    assertFailed(await jobcast(['serve'], { cwd }), 'config.toml', 'directory');
  });
});

describe('a start that cannot be', () => {
  it('is one for other addresses than loopback, unless that is meant', async (t) => {
    for (const address of ['0.0.0.0:0', '[::]:0', '192.0.2.1:0']) {
      const right = ['server.listen', address, '127.0.0.1', 'auth.allow_anonymous = true'];
      assertFailed(await jobcast(['serve', '--listen', address]), ...right);
      assertFailed(await jobcast(['check'], { env: { JOBCAST_SERVER__LISTEN: address } }), ...right);
    }
    const cwd = folderWith({ 'config.toml': '[auth]\nallow_anonymous = true\n[store]\npath = ":memory:"\n' });
    const { host, port } = await serve(t, { cwd, args: ['--listen', '0.0.0.0:0'] });
    assert.equal(host, '0.0.0.0');
    assert.equal((await send(`http://127.0.0.1:${port}`, 'GET', '/healthz', { fresh: true })).status, 200);
  });

  it('is one on a port in use', async () => {
    const address = `127.0.0.1:${gateway.port}`;
    const env = { JOBCAST_STORE__PATH: ':memory:' };
    assertFailed(await jobcast(['--listen', address], { env }), address, 'server.listen', 'in use');
    assert.equal((await send(gateway.url, 'GET', '/healthz')).status, 200);
  });

  it('is one without its Redis server, and the password is nowhere to be seen', async (t) => {
    const redis = await startRedis({ args: ['--requirepass', 'right-password'] });
    t.after(() => redis.stop());
    // Takes connections and whatever they send, and never answers.
    const silent = createServer((socket) => socket.resume().on('error', () => {})).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    t.after(() => silent.close());

    for (const [address, mention] of [
      [NOBODY, /refused/],
      [`127.0.0.1:${silent.address().port}`, /timed out/],
      [`127.0.0.1:${redis.port}`, /WRONGPASS|password/],
    ]) {
      for (const level of ['info', 'trace']) {
        const env = { REDIS_URL: `redis://anna:secret-word@${address}`, JOBCAST_LOG__LEVEL: level };
        const told = assertFailed(await jobcast(['--listen', '127.0.0.1:0'], { env }), 'redis.url', address, mention);
        assert.ok(!told.includes('secret-word'), told);
      }
    }
    const env = { REDIS_URL: `redis://:right-password@127.0.0.1:${redis.port}`, JOBCAST_LOG__LEVEL: 'trace' };
    const started = await serve(t, { args: ['--listen', '127.0.0.1:0'], env });
    await started.api.update(uniqueId('guarded'));
    assert.equal(await started.stop(), 0);
    assert.ok(!started.stderr().includes('right-password'), 'a password in the log');
  });

  it('is one on a folder that another process uses', async (t) => {
    const cwd = folderWith();
    const first = await serve(t, { cwd, args: ['--listen', '127.0.0.1:0'] });
    assertFailed(await jobcast(['--listen', '127.0.0.1:0'], { cwd }), 'folder data', 'in use by another process');
    const jobId = uniqueId('undisturbed');
    const { seq } = await first.api.update(jobId);
    assert.deepEqual(sequenceNumbers(await first.api.history(jobId)), [seq]);
    // Not even a process that was killed leaves it locked.
    await first.kill();
    const second = await serve(t, { cwd, args: ['--listen', '127.0.0.1:0'] });
    assert.deepEqual(sequenceNumbers(await second.api.history(jobId)), [seq]);
  });

  it('is one on a folder that is none', async () => {
    const cwd = folderWith({ taken: 'a file' });
    for (const path of ['taken', 'taken/data', join(cwd, 'taken')]) {
      const env = { JOBCAST_STORE__PATH: path };
      assertFailed(await jobcast(['--listen', '127.0.0.1:0'], { cwd, env }), `folder ${path}: `);
    }
    assert.equal(readFileSync(join(cwd, 'taken'), 'utf8'), 'a file');
  });
});

/** Sends the signal and expects a good end within the grace. */
async function assertEnds(running, signal) {
  const start = Date.now();
  running.process.kill(signal);
  assert.equal(await inTime(running.exited, `the end after ${signal}`, 2 * GRACE_MS), 0, running.stderr());
  const took = Date.now() - start;
  assert.ok(took < GRACE_MS, `took ${took} ms of ${GRACE_MS}\n${running.stderr()}`);
}

const STOP = { JOBCAST_SERVER__SHUTDOWN_GRACE: `${GRACE_MS}ms` };

describeEachStore('a signal', (context) => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    it(`${signal} ends the process in time, whoever is connected`, async (t) => {
      const running = await context.another(t, { env: STOP });
      const jobId = uniqueId('open');
      for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
        await (await connect(t, running, { transports })).subscribe({ jobId });
      }
      for (const path of [`/api/jobs/${jobId}/events`, '/api/events']) await openStream(t, running, path);
      // One that has been served and is kept open for more, and one that has not said a word.
      const agent = new Agent({ keepAlive: true });
      t.after(() => agent.destroy());
      const kept = new Promise((resolve) => agent.once('free', resolve));
      httpGet(`${running.url}/healthz`, { agent }, (response) => response.resume());
      await inTime(kept, 'the idle connection');
      const silent = openConnection(running.port, '127.0.0.1').on('error', () => {});
      t.after(() => silent.destroy());
      await once(silent, 'connect');
      await running.api.update(jobId);

      await assertEnds(running, signal);
    });

    it(`${signal} and a start on the same port cost clients nothing`, async (t) => {
      const env = { ...STOP, JOBCAST_HISTORY__MAX_EVENTS: '10000' };
      let running = await context.another(t, { env });
      const { api } = running;
      const jobId = uniqueId('restarted');
      const published = [(await api.update(jobId)).seq];

      const ways = [
        [4, ['websocket']],
        [4, ['polling']],
        [4, ['polling', 'websocket']],
        [3, ['websocket']],
      ];
      const clients = await Promise.all(
        ways.map(async ([client, transports]) => {
          const options = { client, transports, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
          const watcher = await connect(t, running, options);
          const one = { watcher, reasons: [], resumed: [], back: 0 };
          const resume = async () => {
            const since = watcher.jobEvents(jobId).at(-1)?.seq ?? published[0] - 1;
            one.resumed.push((await watcher.subscribe({ jobId, since })).recovered);
            one.back += 1;
          };
          await resume();
          watcher.socket.on('disconnect', (reason) => one.reasons.push(reason));
          // Where that fails, the client never counts as back.
          watcher.socket.on('connect', () => resume().catch(() => {}));
          return one;
        }),
      );

      // A publisher that repeats what was not answered, until it is.
      let stopped = false;
      t.after(() => {
        stopped = true;
      });
      const publishing = (async () => {
        for (let step = 0; !stopped; step += 1) {
          const headers = { 'idempotency-key': `${jobId}-${step}` };
          const accepted = await eventually(async () => {
            const answer = await api
              .post(`/api/jobs/${jobId}/progress`, { progress: 50, message: `step ${step}` }, headers)
              .catch(() => undefined);
            if (!answer || answer.status >= 500) return undefined;
            assert.equal(answer.status, 200, answer.text);
            return answer.json;
          }, `step ${step} to be accepted`);
          published.push(accepted.seq);
        }
      })();
      publishing.catch(() => {});

      for (let restarts = 1; restarts <= 2; restarts += 1) {
        const goal = published.length + 20;
        await eventually(() => published.length >= goal, '20 more events');
        await assertEnds(running, signal);
        running = await running.again({ env });
        await eventually(() => clients.every(({ back }) => back > restarts), 'all clients to be back');
      }
      const goal = published.length + 20;
      await eventually(() => published.length >= goal, '20 more events');
      stopped = true;
      await publishing;

      assert.deepEqual(published, numbersBetween(published[0], published.at(-1)));
      for (const [index, { watcher, reasons, resumed }] of clients.entries()) {
        const where = `client ${ways[index].join(' ')}`;
        const seen = sequenceNumbers(await watcher.through({ jobId, seq: published.at(-1) }));
        assert.deepEqual(seen, published, where);
        assert.deepEqual(
          watcher.log.items.filter(({ name }) => name === 'job:gap'),
          [],
          where,
        );
        assert.ok(reasons.length >= 2, `${reasons} of ${where}`);
        assert.ok(!reasons.includes('io server disconnect'), `${reasons} of ${where}`);
        assert.ok(resumed.every(Boolean), where);
      }
    });
  }
});

describe('log.format = "json"', () => {
  it('writes one object a line, whatever happens, and nothing else on standard output', async (t) => {
    const env = { JOBCAST_LOG__FORMAT: 'json', JOBCAST_LOG__LEVEL: 'debug', JOBCAST_STORE__PATH: ':memory:' };
    const running = await serve(t, { args: ['--listen', '127.0.0.1:0'], env });
    const watcher = await connect(t, running);
    const jobId = uniqueId('line');
    await watcher.subscribe({ jobId });
    await watcher.through(await running.api.update(jobId, { status: 'one\ntwo\r\n"three"' }));
    await running.api.post(`/api/jobs/${jobId}/progress`, 'not\nJSON');
    await running.api.get('/no%0Awhere');
    watcher.socket.emit('no such event', {});
    await watcher.next('exception');
    assert.equal(await running.stop(), 0);

    const lines = running.stderr().split('\n');
    assert.equal(lines.pop(), '');
    assert.ok(lines.length >= 2, running.stderr());
    for (const line of lines) {
      const entry = JSON.parse(line);
      assert.equal(typeof entry.level, 'string', line);
      assert.ok(Math.abs(Date.now() - Date.parse(entry.timestamp)) < 60_000, line);
    }
    assert.equal(running.stdout(), `listening on ${running.url}\n`);
  });
});

describe('jobcast demo', () => {
  it('publishes jobs that end, of which one in four fails', async () => {
    const api = httpClient(gateway.url);
    const known = (await api.get('/api/jobs?limit=1000')).json.jobs.length;
    const { code, stdout, stderr } = await jobcast(['demo', '--rate', '100', '--jobs', '4', '--url', gateway.url]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, new RegExp(gateway.url));
    const { jobs } = (await api.get('/api/jobs?limit=1000')).json;
    assert.equal(jobs.length - known, 4);
    const ended = jobs.slice(0, 4);
    assert.deepEqual(ended.map(({ status }) => status).sort(), ['completed', 'completed', 'completed', 'failed']);
    for (const { jobId, status, userId } of ended) {
      assert.ok(stdout.includes(`${jobId} ${status}\n`), stdout);
      assert.ok(userId);
      const history = await api.history(jobId);
      assert.deepEqual(sequenceNumbers(history), numbersBetween(history[0].seq, history.at(-1).seq));
      const progress = history.filter(({ event }) => event === 'job:progress').map((event) => event.progress);
      assert.ok(progress.length > 10);
      assert.deepEqual(
        progress,
        progress.toSorted((a, b) => a - b),
      );
    }
  });

  it('finds the gateway by JOBCAST_URL', async () => {
    const env = { JOBCAST_URL: gateway.url };
    const { code, stdout, stderr } = await jobcast(['demo', '--rate', '1000', '--jobs', '1'], { env });
    assert.equal(code, 0, stderr);
    assert.match(stdout, /completed/);
  });

  it('shows its key or token', async (t) => {
    const key = apiKey('demo');
    const asking = await startGateway({ env: authSettings({ keys: [key] }) });
    t.after(() => asking.kill());
    const demo = (...args) => jobcast(['demo', '--rate', '1000', '--jobs', '1', '--url', asking.url, ...args]);
    for (const args of [['--api-key', key.key], ['--token', token({ scope: 'jobs:publish' })]]) {
      const { code, stdout, stderr } = await demo(...args);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /completed/);
    }
    const { code, stderr } = await demo();
    assert.equal(code, 1);
    assert.match(stderr, /401.*needs a token or an API key/);
  });

  it('says so where no gateway runs', async () => {
    const url = `http://${NOBODY}`;
    const { code, stderr } = await jobcast(['demo', '--jobs', '2', '--url', url]);
    assert.equal(code, 1);
    for (const mention of [url, '--url', 'jobcast serve']) assert.ok(stderr.includes(mention), stderr);
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
  });

  it('refuses what is not possible', async () => {
    for (const args of [
      ['--jobs', '0'],
      ['--rate', '0'],
      ['--jobs', 'many'],
      ['--url', 'nowhere'],
    ]) {
      const { code, stderr } = await jobcast(['demo', ...args]);
      assert.equal(code, 2, stderr);
      assert.ok(stderr.includes(args[0]), stderr);
    }
  });
});

describe('the command line', () => {
  it('explains itself', async () => {
    for (const [args, ...mentioned] of [
      [['--help'], 'serve', 'check', 'demo', '--config', '--listen'],
      [['help'], 'serve', 'check', 'demo'],
      [['serve', '--help'], '--config', '--listen'],
      [['check', '--help'], '--config'],
      [['demo', '--help'], '--url', '--jobs', '--rate'],
    ]) {
      const { code, stdout, stderr } = await jobcast(args);
      assert.equal(code, 0, stderr);
      assert.equal(stderr, '');
      for (const mention of mentioned) assert.ok(stdout.includes(mention), `${mention} in ${stdout}`);
    }
  });

  it('tells its version', async () => {
    const manifest = readFileSync(resolve(fileURLToPath(import.meta.url), '../../../Cargo.toml'), 'utf8');
    const [, version] = /^version = "(.+)"$/m.exec(manifest);
    const { code, stdout } = await jobcast(['--version']);
    assert.equal(code, 0);
    assert.equal(stdout, `jobcast ${version}\n`);
  });

  it('refuses what it does not know, and says what that was', async () => {
    for (const [args, mention] of [
      [['sevre'], 'sevre'],
      [['--lisen', '127.0.0.1:0'], '--lisen'],
      [['--listen', 'nowhere'], 'nowhere'],
      [['serve', 'more'], 'more'],
      [['check', '--listen', '127.0.0.1:0'], '--listen'],
    ]) {
      const { code, stdout, stderr } = await jobcast(args);
      assert.equal(code, 2, stderr);
      assert.equal(stdout, '');
      assert.ok(stderr.includes(mention), stderr);
    }
  });
});
