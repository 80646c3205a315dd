// Server-sent events, read by fetch: unlike EventSource it sends the token or key in a header, and tells what was refused.

import { authorization } from './account.js';
import { end, open } from './api.js';

// Reads a stream to its end. `onEvent` takes `{name, data, id}`, and `onRetry` how long to stay away afterwards. Rejects
// where the gateway ends it for a reason.
export async function readStream(path, { signal, onOpen, onEvent, onRetry }) {
  const sent = authorization();
  const response = await open(path, { headers: { Accept: 'text/event-stream' }, signal, cache: 'no-store' });
  onOpen();
  const take = parser({
    onRetry,
    onEvent(event) {
      if (event.name === 'exception') throw end(event.data, sent);
      onEvent(event);
    },
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    take(value);
  }
}

// As the HTML standard says, section 9.2.6. Takes the text in whatever pieces it comes.
export function parser({ onEvent, onRetry }) {
  let rest = '';
  let id = '';
  let event = { name: 'message', data: [] };
  const fields = {
    event: (value) => { event.name = value || 'message'; },
    data: (value) => { event.data.push(value); },
    id: (value) => { if (!value.includes('\0')) id = value; },
    retry: (value) => { if (/^\d+$/.test(value)) onRetry(Number(value)); },
  };
  const takeLine = (line) => {
    if (line === '') {
      const { name, data } = event;
      event = { name: 'message', data: [] };
      if (data.length) onEvent({ name, data: data.join('\n'), id });
      return;
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (Object.hasOwn(fields, name)) fields[name](value);
  };
  return (text) => {
    // A \r at the end may be half of \r\n.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    lines.forEach(takeLine);
  };
}
