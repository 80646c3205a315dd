// A disk that can be filled: a small file system in memory, in a mount namespace of its own. It needs no root where
// the system lets users have namespaces, and is gone with its holder, whatever becomes of the test.

import { closeSync, existsSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { run, startProcess, temporaryFolder } from './processes.mjs';

const BLOCK = Buffer.alloc(4096, 'x');

/**
 * `{path, seen, enter, fill, free, remount, end}`: `path` is where processes that were started by the command `enter`
 * have it, `seen` where this process does. Or `{skip}` with a reason where this machine cannot have such a disk.
 */
export async function smallDisk({ mebibytes = 16 } = {}) {
  const path = temporaryFolder('disk');
  const root = process.getuid() === 0;
  const script = `mount -t tmpfs -o size=${mebibytes}m,mode=777 tmpfs ${path} && echo mounted && exec sleep infinity`;
  const namespaces = root ? ['-m'] : ['-Urm'];
  let holder;
  try {
    holder = await startProcess('unshare', [...namespaces, 'sh', '-c', script], {
      ready: (line) => line === 'mounted',
    });
  } catch (error) {
    return { skip: `no disk to fill: ${error.message.trim().split('\n').join(' ')}` };
  }
  const { pid } = holder.child;
  const seen = `/proc/${pid}/root${path}`;
  const enter = ['nsenter', '-t', `${pid}`, '-m', ...(root ? [] : ['-U', '--preserve-credentials'])];
  const filler = join(seen, 'filler');
  return {
    path,
    seen,
    enter,
    /** Takes all the space that is left. */
    fill() {
      const file = openSync(filler, 'a');
      try {
        for (;;) writeSync(file, BLOCK);
      } catch (error) {
        if (error.code !== 'ENOSPC') throw error;
      } finally {
        fsyncSync(file);
        closeSync(file);
      }
    },
    /** Gives it back. */
    free() {
      if (existsSync(filler)) rmSync(filler);
    },
    async remount(options) {
      const [command, ...args] = enter;
      const { code, stderr } = await run(command, [...args, 'mount', '-o', `remount,${options}`, path]);
      if (code !== 0) throw new Error(stderr);
    },
    end: () => holder.kill(),
  };
}
