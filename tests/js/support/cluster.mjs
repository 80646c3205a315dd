// A real Redis Cluster of masters, alone on free ports.

import { Cluster } from 'ioredis';
import { freePort, startRedis } from './redis.mjs';
import { eventually } from './waiting.mjs';

const SLOTS = 16_384;
const PATIENCE_MS = 60_000;

/**
 * Starts `masters` servers that share the slots evenly, and waits until all of them agree.
 *
 * - `urls`: of each server; `url`: all of them as one `REDIS_URL`
 * - `servers`: as `startRedis` answers them
 * - `client`: an ioredis client of the whole cluster
 * - `keys(pattern)`: of all servers; `onEach(command, ...args)`: what each of them answers
 */
export async function startCluster({ masters = 3 } = {}) {
  const buses = [];
  const start = async () => {
    for (let attempt = 1; ; attempt += 1) {
      const bus = await freePort();
      const args = ['--cluster-enabled', 'yes', '--cluster-port', String(bus), '--cluster-node-timeout', '5000'];
      try {
        const server = await startRedis({ args });
        buses.push([server, bus]);
        return server;
      } catch (error) {
        if (attempt === 3) throw error;
      }
    }
  };
  const servers = await Promise.all(Array.from({ length: masters }, start));
  const busOf = new Map(buses);

  const first = servers[0];
  for (const server of servers.slice(1)) {
    await server.client.call('CLUSTER', 'MEET', '127.0.0.1', first.port, busOf.get(first));
  }
  for (const [place, server] of servers.entries()) {
    const [from, to] = [place, place + 1].map((edge) => Math.floor((SLOTS * edge) / masters));
    await server.client.call('CLUSTER', 'ADDSLOTSRANGE', from, to - 1);
  }
  const agrees = async ({ client }) => {
    const info = await client.call('CLUSTER', 'INFO');
    return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${masters}`);
  };
  for (const server of servers) await eventually(() => agrees(server), 'the cluster to agree', PATIENCE_MS);

  const client = new Cluster(servers.map(({ port }) => ({ host: '127.0.0.1', port })));
  client.on('error', () => {});
  const urls = servers.map(({ url }) => url);
  const onEach = (command, ...args) => Promise.all(servers.map((server) => server.client.call(command, ...args)));
  return {
    urls,
    url: urls.join(','),
    servers,
    client,
    onEach,
    keys: async (pattern = '*') => (await onEach('KEYS', pattern)).flat(),
    async stop() {
      client.disconnect();
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}
