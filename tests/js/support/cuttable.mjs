// A way to a server that can be cut, and opened again.

import net from 'node:net';

/** Starts a proxy to a port of this machine: `{port, cut, restore}`. */
export async function startCuttable(t, port) {
  const open = new Set();
  let isCut = false;
  const proxy = net.createServer((client) => {
    if (isCut) return client.destroy();
    const server = net.connect(port, '127.0.0.1');
    for (const [from, to] of [
      [client, server],
      [server, client],
    ]) {
      open.add(from);
      from.on('data', (data) => to.write(data));
      from.on('error', () => {});
      from.on('close', () => {
        open.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    isCut = true;
    for (const socket of open) socket.destroy();
  };
  t.after(() => {
    proxy.close();
    cut();
  });
  return {
    port: proxy.address().port,
    cut,
    restore: () => {
      isCut = false;
    },
  };
}
