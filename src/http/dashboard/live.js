// The live stream: keeps it open, hands on what it brings, and shows how it stands.

import { accepted } from './account.js';
import { isRefusal } from './api.js';
import { $, element, setAttribute, setText } from './dom.js';
import { readEvent } from './event.js';
import { addGapToHistory, addToHistory, refreshHistory } from './history.js';
import { loadJobs, receive } from './list.js';
import { readStream } from './stream.js';
import { clock } from './time.js';

const JOB_EVENTS = ['job:update', 'job:progress', 'job:completed', 'job:error'];
const RETRY_FIRST = 500;
const RETRY_MOST = 10_000;

// `position`: where in the room of all jobs the stream has come to, once it has brought anything. `retry`: how long the
// gateway wants the page to stay away after this stream.
const stream = { controller: new AbortController(), failures: 0, timer: 0, position: '', retry: null };

function showConnection(state, ...text) {
  setAttribute($('connection'), 'data-state', state);
  $('connection-text').replaceChildren(...text);
}

export function showLost() {
  if ($('connection').dataset.state !== 'live') return;
  showConnection('reconnecting', 'Reconnecting', element('span', 'since', ` since ${clock.format()}`));
}

function hangUp() {
  clearTimeout(stream.timer);
  stream.controller.abort();
}

// Ends the stream, and forgets where it was.
export function disconnect() {
  hangUp();
  stream.position = '';
  showConnection('reconnecting', 'Signed out');
}

export async function connect() {
  hangUp();
  const controller = new AbortController();
  const { signal } = controller;
  stream.controller = controller;
  try {
    const newest = await loadJobs(signal);
    // From the time of the newest job on, or from where the stream was lost; what comes twice is dropped by `seq`.
    await follow(stream.position || newest, signal);
    if (!signal.aborted) connectLater();
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
}

function failed(error) {
  if (isRefusal(error)) showConnection('reconnecting', 'Not signed in');
  else connectLater();
}

function connectLater() {
  showLost();
  const wait = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** stream.failures++) * (0.75 + Math.random() / 2);
  stream.timer = setTimeout(connect, stream.retry ?? wait);
  stream.retry = null;
}

function follow(since, signal) {
  return readStream(`api/events?since=${since}`, {
    signal,
    onOpen: opened,
    onEvent: heard,
    onRetry: (wait) => { stream.retry = wait; },
  });
}

function opened() {
  accepted();
  stream.failures = 0;
  showConnection('live', 'Live');
  refreshHistory();
}

function heard({ name, data, id }) {
  if (name === 'job:gap') addGapToHistory(JSON.parse(data));
  else if (JOB_EVENTS.includes(name)) take(readEvent(data));
  else return;
  stream.position = id;
}

function take(event) {
  rate.now += 1;
  receive(event);
  addToHistory(event);
}

// ---- Events per second ----

const rate = { now: 0, seconds: new Array(60).fill(0) };

export function paintRate() {
  rate.seconds.shift();
  rate.seconds.push(rate.now);
  rate.now = 0;
  setText($('rate'), String(rate.seconds.at(-1)));
  const top = Math.max(5, ...rate.seconds);
  const points = rate.seconds.map((count, second) => `${second},${(19 - (count / top) * 18).toFixed(1)}`);
  const [area, line] = $('sparkline').children;
  line.setAttribute('d', `M${points.join('L')}`);
  area.setAttribute('d', `M0,20L${points.join('L')}L59,20Z`);
}
