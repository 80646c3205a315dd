import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { answer, Jobs, Refused } from './jobs.mjs';

process.env.NODE_ENV ??= 'production';

const MAX_BODY = 8 * 1024 * 1024;
const PROGRESS = /^\/api\/jobs\/([^/?]+)\/progress$/;

const server = createServer(async (request, response) => {
  const { status, body } = await answer(() => route(request));
  const json = JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(json) });
  response.end(json);
});
const jobs = new Jobs(new Server(server));

server.listen(process.env.PORT ?? 0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

async function route(request) {
  const { method, url } = request;
  const progress = PROGRESS.exec(url);
  if (method === 'POST' && url === '/api/events') return jobs.batch(JSON.parse(await read(request)));
  if (method === 'POST' && progress) {
    return jobs.progress(decodeURIComponent(progress[1]), JSON.parse(await read(request)));
  }
  throw new Refused(404, 'no such call');
}

function read(request) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    let size = 0;
    request.on('data', (chunk) => {
      size += chunk.length;
      if (size <= MAX_BODY) chunks.push(chunk);
      else reject(new Refused(413, 'at most 8 MiB'));
    });
    request.on('end', () => resolve(Buffer.concat(chunks).toString()));
    request.on('error', reject);
  });
}
