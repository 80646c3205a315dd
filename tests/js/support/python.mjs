// Python clients and suites, in virtual environments that are made once and kept.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './processes.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const cache = process.env.JOBCAST_TEST_CACHE ?? resolve(here, '../../../target/test-venv');

/** The folder of the programs of an environment that has these packages. */
export async function pythonPrograms(name, packages) {
  const environment = join(cache, name);
  const programs = join(environment, 'bin');
  const complete = join(environment, 'complete');
  const wanted = packages.join('\n');
  if (existsSync(complete) && readFileSync(complete, 'utf8') === wanted) return programs;
  mkdirSync(cache, { recursive: true });
  rmSync(environment, { recursive: true, force: true });
  for (const [command, args] of [
    ['python3', ['-m', 'venv', environment]],
    [join(programs, 'python'), ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...packages]],
  ]) {
    const { code, stdout, stderr } = await run(command, args);
    assert.equal(code, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  }
  writeFileSync(`${complete}.new`, wanted);
  renameSync(`${complete}.new`, complete);
  return programs;
}
