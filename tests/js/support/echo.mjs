// The echo server on the gateway's own accept loop (tests/echo), for the suites of protocols.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { binary } from './gateway.mjs';
import { startProcess } from './processes.mjs';

/** Starts it: `{url, port, kill}`. */
export async function startEcho(t) {
  // Cargo puts examples beside the program.
  const program = join(dirname(binary()), 'examples', 'echo');
  if (!existsSync(program)) throw new Error(`build the echo server first (cargo build --example echo): ${program}`);
  const started = await startProcess(program, [], { ready: (line) => /^listening on (http:\/\/\S+:(\d+))$/.exec(line) });
  t?.after(() => started.kill());
  const [, url, port] = started.answer;
  return { url, port: Number(port), kill: started.kill };
}
