// The dashboard's reader of server-sent events, in whatever pieces they come.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parser } from '../../src/http/dashboard/stream.js';

const TEXT = [
  'retry: 250\n: a comment\n\nid: 7-1\nevent: job:update\ndata: {"a":\ndata: "ü"}\n\n',
  'data:no space\r\n\r\n: alive\r\rid:8\rdata:  two\r\rid\ndata\n\n',
  'retry: soon\nevent: job:gap\nunknown: x\n\ndata: unfinished',
].join('');

const EXPECTED = [
  250,
  { name: 'job:update', data: '{"a":\n"ü"}', id: '7-1' },
  { name: 'message', data: 'no space', id: '7-1' },
  { name: 'message', data: ' two', id: '8' },
  { name: 'message', data: '', id: '' },
];

function read(pieces) {
  const heard = [];
  const take = parser({ onEvent: (event) => heard.push(event), onRetry: (wait) => heard.push(wait) });
  pieces.forEach(take);
  return heard;
}

it('reads a stream the same wherever it is cut', () => {
  assert.deepEqual(read([TEXT]), EXPECTED);
  assert.deepEqual(read([...TEXT]), EXPECTED);
  for (let at = 0; at <= TEXT.length; at += 1) {
    assert.deepEqual(read([TEXT.slice(0, at), TEXT.slice(at)]), EXPECTED, `cut at ${at}`);
  }
});
