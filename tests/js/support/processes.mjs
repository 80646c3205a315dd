// Processes and folders that must not outlive the test process, however it ends.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Collector } from './waiting.mjs';

const STOP_DEADLINE_MS = 20_000;

const running = new Set();
const folders = new Set();

function cleanUp() {
  for (const child of running) child.kill('SIGKILL');
  for (const folder of folders) {
    try {
      rmSync(folder, { recursive: true, force: true });
    } catch {
      // A process that is still dying may write into it; the system's own cleaning takes it then.
    }
  }
}

process.on('exit', cleanUp);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    cleanUp();
    process.kill(process.pid, signal);
  });
}

export function temporaryFolder(name) {
  const folder = mkdtempSync(join(tmpdir(), `jobcast-${name}-`));
  folders.add(folder);
  return folder;
}

/**
 * Starts a process and waits for the first line of its standard output that `ready` answers with
 * something; rejects with what it said when it exits before, or takes longer than `deadline`.
 */
export async function startProcess(command, args, { cwd, env, ready, deadline = 20_000 }) {
  const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let errors = '';
  let output = '';
  const told = new Collector();
  child.stderr.setEncoding('utf8').on('data', (text) => {
    errors += text;
    told.push(text);
  });
  const exited = new Promise((resolve) => {
    child.once('error', (error) => {
      errors += error.message;
      running.delete(child);
      resolve(null);
    });
    child.once('close', (code) => {
      running.delete(child);
      resolve(code);
    });
  });

  const found = new Promise((resolve, reject) => {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, deadline);
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => {
      output += `${line}\n`;
      const answer = ready(line, output);
      if (answer) {
        clearTimeout(timer);
        resolve(answer);
      }
    });
    exited.then((code) => {
      clearTimeout(timer);
      const end = `exited with ${child.signalCode ?? `code ${code}`}`;
      const how = late ? `was not ready within ${deadline} ms` : end;
      reject(Object.assign(new Error(`${command} ${how}\n${output}${errors}`), { code }));
    });
  });
  const answer = await found;

  // A forgotten process must not keep the test process alive; the exit handler ends it.
  const holdLoop = (hold) => {
    for (const handle of [child, child.stdout, child.stderr]) hold ? handle.ref() : handle.unref();
  };
  holdLoop(false);

  async function end(signal) {
    holdLoop(true);
    if (signal && child.exitCode === null && child.signalCode === null) child.kill(signal);
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(new Error(`${command} did not end within ${STOP_DEADLINE_MS} ms of ${signal ?? 'waiting'}\n${errors}`));
      }, STOP_DEADLINE_MS);
    });
    try {
      return await Promise.race([exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    answer,
    child,
    exited,
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    /** Waits for it to end by itself, and answers its exit code. */
    finished: () => end(),
    stdout: () => output,
    stderr: () => errors,
    /** Waits until standard error matches: what a process logs arrives a moment after what it does. */
    logged: (pattern) => told.until(() => pattern.test(errors), `${pattern} in ${command}'s log`),
  };
}

/** A port of localhost that is free now, for a server that cannot pick one. */
export function anyPort() {
  return new Promise((settle) => {
    const server = createServer();
    server.listen(0, 'localhost', () => {
      const { port } = server.address();
      server.close(() => settle(port));
    });
  });
}

/** Runs a command to its end: `{code, stdout, stderr}`. */
export async function run(command, args, options = {}) {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  try {
    const [code] = await once(child, 'close');
    return { code, stdout, stderr };
  } finally {
    running.delete(child);
  }
}
