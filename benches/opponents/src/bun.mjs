import { Server as Engine } from '@socket.io/bun-engine';
import { Server } from 'socket.io';
import { answer, Jobs } from './jobs.mjs';

process.env.NODE_ENV ??= 'production';

const engine = new Engine({ path: '/socket.io/' });
// The engine leaves it out, and socket.io's handshake has it from here.
engine.on('connection', (connection, request, server) => {
  connection.remoteAddress = server.requestIP(request)?.address;
});
const io = new Server();
io.bind(engine);
const jobs = new Jobs(io);

const server = Bun.serve({
  ...engine.handler(),
  hostname: '127.0.0.1',
  port: process.env.PORT ?? 0,
  development: false,
  maxRequestBodySize: 8 * 1024 * 1024,
  routes: {
    '/api/events': { POST: (request) => respond(async () => jobs.batch(await request.json())) },
    '/api/jobs/:jobId/progress': {
      POST: (request) => respond(async () => jobs.progress(request.params.jobId, await request.json())),
    },
  },
});
console.log(`listening on http://127.0.0.1:${server.port}`);

async function respond(call) {
  const { status, body } = await answer(call);
  return Response.json(body, { status });
}
