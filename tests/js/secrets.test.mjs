// Tokens, keys and secrets are in no log, whatever is logged, and in no answer.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { startGateway } from './support/gateway.mjs';
import { httpClient, send } from './support/http.mjs';
import { connect } from './support/socketio.mjs';
import { openStream } from './support/sse.mjs';
import { SECRET, apiKey, authSettings, bearer, token } from './support/tokens.mjs';

it('no credential is logged, good or bad, however it comes', async (t) => {
  const worker = apiKey('worker');
  const env = { ...authSettings({ keys: [worker] }), RUST_LOG: 'trace' };
  const gateway = await startGateway({ env });
  t.after(() => gateway.kill());
  const api = httpClient(gateway.url);
  const wrong = 'x'.repeat(43);
  const good = token({ sub: 'ada' });
  const expired = token({ sub: 'ada', exp: 1 });
  const forged = token({ sub: 'ada' }, wrong);
  const unknown = `jc_${wrong}`;
  const credentials = [good, expired, forged, unknown, worker.key, `${good}x`, 'no-token-at-all'];
  const answers = [];

  for (const credential of credentials) {
    for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
      for (const options of [
        { auth: { token: credential } },
        { query: { token: credential } },
        { extraHeaders: bearer(credential) },
      ]) {
        const watcher = await connect(t, gateway, { transports, ...options }).catch((error) => {
          answers.push(error.message);
        });
        if (!watcher) continue;
        answers.push(JSON.stringify(await watcher.ask('auth:refresh', { token: forged })));
        await watcher.ask('auth:refresh', { token: credential });
        answers.push(JSON.stringify(await watcher.ask('subscribe:jobs', { userId: credential.slice(0, 128) })));
        watcher.close();
      }
    }
    for (const [path, headers] of [
      [`/api/jobs/x?token=${credential}`, {}],
      ['/api/jobs/x', bearer(credential)],
      ['/api/jobs/x', { 'x-api-key': credential }],
      [`/nowhere?token=${credential}`, {}],
      [`/socket.io/?EIO=4&transport=nothing&token=${credential}`, {}],
    ]) {
      answers.push((await api.get(path, headers)).text);
    }
    answers.push((await api.post('/api/jobs/x/update', { status: 's' }, bearer(credential))).text);
    answers.push((await send(gateway.url, 'POST', `/api/events?token=${credential}`, { body: '[' })).text);
  }
  const stream = await openStream(t, gateway, `/api/users/ada/events?token=${good}`);
  stream.close();
  const minted = await api.post('/api/tokens', { sub: 'ada' }, bearer(worker.key));
  assert.equal(minted.status, 200, minted.text);
  assert.equal(await gateway.stop(), 0);

  const log = gateway.stderr();
  assert.match(log, /TRACE|DEBUG/);
  // The middle of a token is what it says, the end its signature.
  const parts = [...credentials, minted.json.token].flatMap((text) => text.split('.')).filter((text) => text.length > 20);
  for (const secret of [SECRET, worker.key, unknown, ...parts]) {
    // A header of a token is the same for all, and no secret.
    if (Buffer.from(secret, 'base64url').toString().startsWith('{"alg"')) continue;
    const place = log.indexOf(secret);
    assert.ok(place < 0, `in the log: ${log.slice(Math.max(0, place - 300), place + 100)}`);
    const answer = answers.find((text) => text.includes(secret) && !text.includes('user:'));
    assert.equal(answer, undefined);
  }
});
