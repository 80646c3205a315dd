// Tokens and API keys on the command line, and what is wrong with their configuration.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { binary } from './support/gateway.mjs';
import { run, temporaryFolder } from './support/processes.mjs';

const SECRET = 'a secret of HS256 with 32 bytes!';

/** A folder with that config.toml. */
function folderWith(text) {
  const folder = temporaryFolder('tokens');
  if (text !== undefined) writeFileSync(join(folder, 'config.toml'), text);
  return folder;
}

/** Runs `jobcast` to its end in a folder, with an environment of its own. */
const jobcast = (args, { config, env = {} } = {}) =>
  run(binary(), args, { cwd: folderWith(config), env: { PATH: process.env.PATH, ...env }, timeout: 20_000 });

const withSecret = `[auth]\nmode = "jwt"\nsecret = "${SECRET}"\nissuer = "us"\naudience = "jobs"\n`;

/** The claims of a token, whose signature must be good. */
function claimsOf(token, secret = SECRET) {
  const [header, payload, signature] = token.split('.');
  const expected = createHmac('sha256', secret).update(`${header}.${payload}`).digest('base64url');
  assert.equal(signature, expected);
  assert.equal(JSON.parse(Buffer.from(header, 'base64url')).alg, 'HS256');
  return JSON.parse(Buffer.from(payload, 'base64url'));
}

describe('jobcast token', () => {
  it('prints a token of the configured secret alone, and its end aside', async () => {
    const args = 'token --sub ada --tenant acme --job a-* --job b --document d --scope jobs:publish --ttl 1h'.split(' ');
    const { code, stdout, stderr } = await jobcast(args, { config: withSecret });
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    const { jti, iat, exp, ...claims } = claimsOf(stdout.trim());
    assert.deepEqual(claims, {
      sub: 'ada',
      tenantId: 'acme',
      jobs: ['a-*', 'b'],
      documents: ['d'],
      scope: 'jobs:publish',
      iss: 'us',
      aud: ['jobs'],
    });
    assert.match(jti, /^[\w-]{22}$/);
    assert.ok(Math.abs(exp - iat - 3600) < 0.01 && Math.abs(iat - Date.now() / 1000) < 60);
    assert.equal(stderr, `good until ${new Date(Math.round(exp * 1000)).toISOString()}\n`);
  });

  it('takes the secret from the environment', async () => {
    const env = { JOBCAST_AUTH__MODE: 'jwt', JOBCAST_AUTH__SECRET: 'x'.repeat(40) };
    const { stdout } = await jobcast(['token', '--sub', 'ada'], { env });
    const { iat, exp } = claimsOf(stdout.trim(), 'x'.repeat(40));
    assert.ok(Math.abs(exp - iat - 900) < 0.01);
  });

  it('says what it needs', async () => {
    const cases = [
      [['token', '--sub', 'ada'], undefined, /auth\.mode = "jwt" and auth\.secret/],
      [['token'], withSecret, /give --sub, --tenant/],
      [['token', '--sub', 'a b'], withSecret, /may only contain/],
      [['token', '--job', 'a*b'], withSecret, /must be an id/],
      [['token', '--sub', 'ada', '--scope', 'root'], withSecret, /jobs:admin, jobs:publish/],
      [['token', '--sub', 'ada', '--ttl', '0s'], withSecret, /from 1s to 366d/],
      [['token', '--sub', 'ada', '--config', 'no.toml'], withSecret, /no\.toml: cannot be read/],
    ];
    for (const [args, config, problem] of cases) {
      const { code, stdout, stderr } = await jobcast(args, { config });
      assert.notEqual(code, 0, args.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, problem);
      assert.ok(!stderr.includes(SECRET));
    }
  });
});

describe('jobcast api-key', () => {
  it('prints a key once and its entry, which the configuration takes', async () => {
    const args = 'api-key reports --jobs report-* --jobs sum --tenant acme --expires 90d'.split(' ');
    const { code, stdout, stderr } = await jobcast(args);
    assert.equal(code, 0, stderr);
    const [key, empty, ...entry] = stdout.trimEnd().split('\n');
    assert.match(key, /^jc_[\w-]{43}$/);
    assert.equal(empty, '');
    const digest = createHash('sha256').update(key).digest('hex');
    assert.deepEqual(entry.slice(0, -1), [
      '[[auth.api_keys]]',
      'name = "reports"',
      `sha256 = "${digest}"`,
      'jobs = ["report-*", "sum"]',
      'tenants = ["acme"]',
    ]);
    const expires = Date.parse(/^expires = (\S+)$/.exec(entry.at(-1))[1]);
    assert.ok(Math.abs(expires - Date.now() - 90 * 86_400_000) < 60_000);
    const checked = await jobcast(['check'], { config: `[auth]\nmode = "jwt"\n${entry.join('\n')}\n` });
    assert.equal(checked.code, 0, checked.stderr);
  });

  it('has no bounds by default, and refuses what would be none', async () => {
    const { stdout } = await jobcast(['api-key', 'all']);
    assert.match(stdout, /^jc_[\w-]{43}\n\n\[\[auth\.api_keys\]\]\nname = "all"\nsha256 = "[0-9a-f]{64}"\n$/);
    for (const wrong of [['a b'], ['a', '--jobs', ''], ['a', '--expires', '2001-01-01T00:00:00Z'], ['a', '--expires', 'x']]) {
      const { code, stdout: out } = await jobcast(['api-key', ...wrong]);
      assert.notEqual(code, 0);
      assert.equal(out, '');
    }
  });
});

describe('the configuration of authentication', () => {
  it('is checked, with the file that was read', async () => {
    const named = await jobcast(['check'], { config: withSecret });
    assert.equal(named.stdout, 'the configuration is fine (config.toml)\n', named.stderr);
    const none = await jobcast(['check']);
    assert.equal(none.stdout, 'the configuration is fine (no config.toml here)\n');
  });

  it('tells everything that is wrong at once, and no secret', async () => {
    const config = '[auth]\nsecret = "hunter2"\nprevious_secret = "hunter2"\npublic_key_file = "no.pem"\njwks_url = "http://a:hunter2@b/"\n';
    const env = { JOBCAST_AUTH__API_KEYS: '[{"name": "a", "sha256": "hunter2"}]' };
    const { code, stderr } = await jobcast(['check'], { config, env });
    assert.equal(code, 1);
    for (const problem of [
      /config\.toml, line 2: auth\.secret: must be a good secret: it must have at least 32 bytes/,
      /config\.toml, line 3: auth\.previous_secret: /,
      /config\.toml, line 4: auth\.public_key_file: must be the path of a PEM file/,
      /config\.toml, line 5: auth\.jwks_url: must be an https:\/\/ URL/,
      /JOBCAST_AUTH__API_KEYS: auth\.api_keys: must be an array of keys; of key 1, "a", sha256 must be/,
    ]) {
      assert.match(stderr, problem);
    }
    assert.ok(!stderr.includes('hunter2') && !/panicked/.test(stderr), stderr);
  });
});
