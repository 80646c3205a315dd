// Autobahn's cases, against a WebSocket echo on the gateway's own accept loop, upgrade and connection queue.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { startEcho } from './support/echo.mjs';
import { run, temporaryFolder } from './support/processes.mjs';
import { pythonPrograms } from './support/python.mjs';

const packages = ['kosoku==0.1.0'];

/** Compression (RFC 7692) is not offered, so its cases are not run. */
const compression = ['12.*', '13.*'];

it('a WebSocket does what RFC 6455 says', async (t) => {
  const echo = await startEcho(t);
  const folder = temporaryFolder('autobahn');
  const excluded = compression.flatMap((cases) => ['-x', cases]);
  const kosoku = join(await pythonPrograms('autobahn', packages), 'kosoku');
  const args = ['-p', '2', '-o', folder, ...excluded, `127.0.0.1:${echo.port}/echo`];
  const { code, stdout, stderr } = await run(kosoku, args);
  assert.equal(code, 0, `${stdout}${stderr}`);
  const [cases] = Object.values(JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8')));
  const passed = Object.entries(cases);
  assert.equal(passed.length, 301);
  const fine = ['OK', 'NON-STRICT', 'INFORMATIONAL'];
  const failed = passed.filter(([, { behavior, behaviorClose }]) => ![behavior, behaviorClose].every((it) => fine.includes(it)));
  assert.deepEqual(failed, []);
});
