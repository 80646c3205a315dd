// What a gateway tells of itself.

import assert from 'node:assert/strict';
import { send } from './http.mjs';

/** The samples of `/metrics` by name and labels, as they stand there: `{'jobcast_sessions': 0, …}`. */
export async function metricsOf(gateway) {
  const answer = await send(gateway.url, 'GET', '/metrics', { fresh: true });
  assert.equal(answer.status, 200, answer.text);
  const samples = answer.text.split('\n').filter((line) => line && !line.startsWith('#'));
  return Object.fromEntries(
    samples.map((line) => {
      const space = line.lastIndexOf(' ');
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}
