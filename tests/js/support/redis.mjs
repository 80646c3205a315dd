// A real Redis server, alone on a free port.

import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { Redis } from 'ioredis';
import { startProcess, temporaryFolder } from './processes.mjs';

/**
 * A free port below those that the system gives to outgoing connections: a server that is started again must find
 * its port free.
 */
export async function freePort() {
  for (;;) {
    const port = randomInt(15_000, 32_000);
    const server = createServer().listen(port, '127.0.0.1');
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!free) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/**
 * Starts `redis-server` without persistence, with TLS where `tls` says how a client does it; `args` come after the defaults and win, so
 * `['--appendonly', 'yes']` makes what it holds survive `kill` and `restart`.
 *
 * `client` is an ioredis client; `restart()` ends the server where it still runs and starts it again on
 * the same port and folder.
 */
export async function startRedis({ args = [], tls } = {}) {
  const folder = temporaryFolder('redis');
  const start = (port) =>
    startProcess(
      'redis-server',
      [tls ? '--tls-port' : '--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no', ...args],
      { cwd: folder, ready: (line) => line.includes('Ready to accept connections') },
    );

  let server;
  let port;
  for (let attempt = 1; !server; attempt += 1) {
    port = await freePort();
    server = await start(port).catch((error) => {
      // Somebody else may have taken the port in between.
      if (attempt === 3) throw error;
    });
  }

  const client = new Redis({ port, host: '127.0.0.1', tls, maxRetriesPerRequest: null, retryStrategy: () => 100 });
  // A server that is down on purpose is no failure of the test.
  client.on('error', () => {});

  return {
    url: `${tls ? 'rediss' : 'redis'}://127.0.0.1:${port}`,
    port,
    client,
    async stop() {
      client.disconnect();
      return server.stop();
    },
    async kill() {
      return server.kill();
    },
    async restart() {
      await server.stop();
      server = await start(port);
    },
  };
}
