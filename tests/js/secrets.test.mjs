// What must be secret is in no log, at whatever level, and in no answer: tokens, keys, secrets, passwords.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, it } from 'node:test';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { connect } from './support/socketio.mjs';
import { openStream } from './support/sse.mjs';
import { apiKey, authSettings, bearer, SECRET, token } from './support/tokens.mjs';
import { uniqueId } from './support/waiting.mjs';

const key = apiKey('worker');
const sub = uniqueId('ada');
const admin = token({ sub: 'root', scope: 'jobs:admin' });
const good = token({ sub, iat: Date.now() / 1000 - 10 });
const better = token({ sub, iat: Date.now() / 1000 + 0.5 });
const bad = token({ sub }, 'another secret, of thirty-two bytes');
const expired = token({ sub, exp: 5 });
const wrongKey = apiKey('nobody').key;
const credentials = { admin, good, better, bad, expired, key: key.key, wrongKey, SECRET };

let gateway;
let api;

before(async () => {
  const env = { ...authSettings({ keys: [key] }), RUST_LOG: 'trace' };
  gateway = await startGateway({ env });
  api = httpClient(gateway.url);
});
after(() => gateway.kill());

it('no token, key or secret is in the log at its most talkative, nor in an answer', async (t) => {
  const answers = [];
  for (const credential of Object.values(credentials)) {
    answers.push(await api.get('/api/jobs', bearer(credential)));
    answers.push(await api.get('/api/jobs', { 'x-api-key': credential }));
    answers.push(await api.get('/api/jobs', { authorization: `Basic ${credential}` }));
    answers.push(await api.get(`/api/jobs?token=${credential}`));
    answers.push(await api.get(`/no/such/path?token=${credential}`));
    answers.push(await api.get(`/api/jobs?token=${credential}&limit=x`));
    answers.push(await api.get(`/api/jobs?token=${credential}&token=${credential}`));
    answers.push(await api.get(`/socket.io/?EIO=3&transport=polling&token=${credential}`));
    for (const auth of [{ token: credential }, { tokn: credential }, { token: [credential] }]) {
      for (const transports of [['polling'], ['websocket']]) {
        await connect(t, gateway, { auth, transports }).then(
          (watcher) => watcher.close(),
          (error) => answers.push({ text: error.message }),
        );
      }
    }
  }
  const watcher = await connect(t, gateway, { auth: { token: good } });
  await watcher.subscribe({ userId: sub });
  for (const payload of [{ token: bad }, { tokn: good }, { token: [good] }, good]) {
    answers.push({ text: JSON.stringify(await watcher.ask('auth:refresh', payload)) });
  }
  assert.equal((await watcher.ask('auth:refresh', { token: better })).success, true);
  const stream = await openStream(t, gateway, `/api/users/${sub}/events?token=${good}`);
  const revoked = await api.post('/api/revocations', { sub }, bearer(admin));
  assert.equal(revoked.status, 200, revoked.text);
  await stream.closed;
  const broken = await api.post('/api/revocations', `{"sub": "${good}`, bearer(admin));
  answers.push(broken, await api.post('/api/tokens', { sub: good }, bearer(key.key)));

  // All of the log is there when the process has ended.
  assert.equal(await gateway.stop(), 0);
  assert.match(gateway.stderr(), /DEBUG jobcast\S*: an API key was refused/);
  const text = gateway.stderr() + gateway.stdout() + answers.map((answer) => answer.text).join('\n');
  const digest = createHash('sha256').update(key.key).digest('hex');
  for (const [name, credential] of Object.entries({ ...credentials, digest })) {
    // Its end is enough: the beginning of a token is the same for all.
    const end = credential.slice(-20);
    const at = text.indexOf(end);
    assert.equal(at, -1, `${name} is in: ${text.slice(Math.max(0, at - 400), at + 60)}`);
  }
});
