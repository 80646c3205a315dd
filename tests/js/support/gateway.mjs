// The real gateway, as its operator would start it.

import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startProcess, temporaryFolder } from './processes.mjs';

const repository = resolve(fileURLToPath(import.meta.url), '../../../..');

/** The path of the gateway's binary. */
export function binary() {
  if (process.env.JOBCAST_BIN) return resolve(process.env.JOBCAST_BIN);
  const built = ['debug', 'release'].map((profile) => join(repository, 'target', profile, 'jobcast'));
  const found = built.find((path) => existsSync(path));
  if (!found) throw new Error('build the gateway first (cargo build), or name it by JOBCAST_BIN');
  return found;
}

/** The caller's environment without what would configure the gateway behind the test's back. */
function neutralEnvironment() {
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('JOBCAST_') && name !== 'REDIS_URL' && name !== 'RUST_LOG',
  );
  return Object.fromEntries(kept);
}

function storeEnvironment(store, path) {
  if (store === 'memory' || store === 'embedded') {
    return { JOBCAST_STORE__BACKEND: 'embedded', JOBCAST_STORE__PATH: path };
  }
  const { redisUrl, keyPrefix } = store;
  return {
    REDIS_URL: redisUrl,
    ...(keyPrefix === undefined ? {} : { JOBCAST_REDIS__KEY_PREFIX: keyPrefix }),
  };
}

/**
 * Starts `jobcast serve` in an empty folder of its own and resolves once it listens; rejects with its
 * standard error when it exits first.
 *
 * - `store`: `'memory'`, `'embedded'` (on disk, in `path` or a fresh folder) or `{redisUrl, keyPrefix?}`
 * - `path`: the embedded store's folder, to start a second gateway on what a first one left
 * - `env`: further settings, `JOBCAST_…`
 * - `args`: further arguments of `serve`
 * - `cwd`: where it runs, in place of a folder of its own
 * - `deadline`: the milliseconds after which it is killed where it does not listen yet
 * - `within`: a command with arguments that runs it, in place of running it directly
 */
export async function startGateway({
  store = 'memory',
  env = {},
  listen = '127.0.0.1:0',
  path,
  args = [],
  within = [],
  cwd,
  deadline,
} = {}) {
  const folder = temporaryFolder('gateway');
  const storePath = path ?? (store === 'memory' ? ':memory:' : join(folder, 'data'));
  const [command, ...rest] = [...within, binary(), 'serve', '--listen', listen, ...args];
  const started = await startProcess(command, rest, {
    cwd: cwd ?? folder,
    deadline,
    env: { ...neutralEnvironment(), ...storeEnvironment(store, storePath), ...env },
    ready: (line) => /^listening on (https?:\/\/\S+:(\d+))$/.exec(line),
  });
  const [, url, port] = started.answer;
  return {
    url,
    port: Number(port),
    path: typeof store === 'string' ? storePath : undefined,
    pid: started.child.pid,
    process: started.child,
    stop: started.stop,
    kill: started.kill,
    exited: started.exited,
    stdout: started.stdout,
    stderr: started.stderr,
    logged: started.logged,
  };
}
