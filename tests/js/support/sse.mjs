// A reader of Server-Sent Events that keeps everything: fields, comments and the raw data.

import assert from 'node:assert/strict';
import { speak } from './trust.mjs';
import { Collector, inTime } from './waiting.mjs';

function parseBlock(block, { events, comments, retries }) {
  const event = {};
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon === 0) {
      comments.push(line.slice(1).trim());
      continue;
    }
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data' && 'data' in event) event.data += `\n${value}`;
    else if (field !== '') event[field] = value;
  }
  if ('retry' in event) retries.push(Number(event.retry));
  if ('data' in event) events.push(event);
}

/**
 * Opens a stream and resolves once its headers are there, from when on nothing may be missed:
 * `{headers, events, comments, retries, closed, close, stall, resume, through}`. `events` collects `{id, event, data}`
 * with
 * the data as text.
 */
export async function openStream(t, gateway, path, headers = {}) {
  const { request: ask, options } = speak(gateway.url);
  const accepting = { accept: 'text/event-stream', ...headers };
  const request = ask(gateway.url + path, { ...options, headers: accepting, agent: false });
  request.end();
  const close = () => request.destroy();
  t.after(close);
  const response = await inTime(
    new Promise((resolve, reject) => request.once('response', resolve).once('error', reject)),
    `the headers of ${path}`,
  );
  request.on('error', () => {});
  assert.equal(response.statusCode, 200);

  const events = new Collector();
  const comments = new Collector();
  const retries = [];
  let rest = '';
  response.setEncoding('utf8').on('data', (text) => {
    const blocks = (rest + text.replaceAll('\r\n', '\n')).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) parseBlock(block, { events, comments, retries });
  });
  const closed = new Promise((resolve) => response.once('close', resolve));
  response.on('error', () => {});

  return {
    headers: response.headers,
    events,
    comments,
    retries,
    closed,
    close,
    /** Stops reading. */
    stall: () => response.pause(),
    /** Reads on. */
    resume: () => response.resume(),
    /** Waits for the job event of that number and answers all job events so far, parsed. */
    async through(jobId, seq) {
      const matches = ({ data }) => {
        const event = JSON.parse(data);
        return event.jobId === jobId && event.seq === seq;
      };
      await events.find(matches, `event ${seq} of ${jobId} on ${path}`);
      return events.items.map(({ data }) => JSON.parse(data)).filter((event) => 'seq' in event);
    },
  };
}
