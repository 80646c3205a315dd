// The live stream: keeps it open, hands on what it brings, and shows how it stands.

import { base } from './api.js';
import { $, element, setAttribute, setText } from './dom.js';
import { readEvent } from './event.js';
import { addGapToHistory, addToHistory, refreshHistory } from './history.js';
import { loadJobs, receive } from './list.js';
import { clock } from './time.js';

const JOB_EVENTS = ['job:update', 'job:progress', 'job:completed', 'job:error'];
const RETRY_FIRST = 500;
const RETRY_MOST = 10_000;

// `position`: where in the room of all jobs the stream has come to, once it has brought anything.
const stream = { source: null, attempt: 0, failures: 0, timer: 0, position: '' };

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
  stream.source?.close();
  stream.source = null;
}

export async function connect() {
  hangUp();
  const attempt = ++stream.attempt;
  try {
    const newest = await loadJobs();
    if (attempt !== stream.attempt) return;
    // From the time of the newest job on, or from where the stream was lost; what comes twice is dropped by `seq`.
    follow(stream.position || newest);
  } catch {
    if (attempt === stream.attempt) connectLater();
  }
}

function connectLater() {
  showLost();
  const wait = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** stream.failures++);
  stream.timer = setTimeout(connect, wait * (0.75 + Math.random() / 2));
}

function follow(since) {
  const source = new EventSource(new URL(`api/events?since=${since}`, base));
  stream.source = source;
  let opens = 0;
  source.onopen = () => opened(++opens);
  source.onerror = () => dropped(source);
  for (const name of JOB_EVENTS) source.addEventListener(name, heard);
  source.addEventListener('job:gap', missed);
}

function opened(times) {
  // The browser resumes the stream by itself; what expired or was lost with the server shows in the list only.
  if (times > 1) loadJobs().catch(() => {});
  stream.failures = 0;
  showConnection('live', 'Live');
  refreshHistory();
}

function dropped(source) {
  showLost();
  if (source.readyState === EventSource.CLOSED && source === stream.source) connectLater();
}

function missed({ data, lastEventId }) {
  stream.position = lastEventId;
  addGapToHistory(JSON.parse(data));
}

function heard({ data, lastEventId }) {
  stream.position = lastEventId;
  const event = readEvent(data);
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
