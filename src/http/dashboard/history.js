// The history of one job, kept live while it is open.

import { call, describe } from './api.js';
import { $, element, inNextFrame, setAttribute, setText, shorten } from './dom.js';
import { payload, readEvents } from './event.js';
import { elapsed, fold, hasEnded, newJob, ownersOf, percent, stateText, toneOf } from './job.js';
import { absoluteTime, clockMillis, fullTime, relativeTime } from './time.js';

const MAX_HISTORY = 200;
const MAX_PAYLOAD = 6000;

const panel = { id: null, job: null, items: new Map(), arrived: [], request: 0 };
const schedule = inNextFrame(paint);

// Shows the history of a job, or with `null` none.
export function showHistory(id) {
  Object.assign(panel, { id, job: null, arrived: [] });
  panel.items.clear();
  $('history-events').replaceChildren();
  $('history-facts').replaceChildren();
  setText($('history-state'), '');
  $('history-state').hidden = true;
  $('history').removeAttribute('data-tone');
  $('history').hidden = id === null;
  setText($('history-title'), id ?? '');
  setText($('history-note'), 'Loading…');
  refreshHistory();
}

export async function refreshHistory() {
  const { id } = panel;
  const request = ++panel.request;
  if (id === null) return;
  try {
    const events = readEvents(await call(`api/jobs/${encodeURIComponent(id)}/history`), 'events');
    if (request !== panel.request) return;
    setText($('history-note'), events.length ? '' : 'No history: the job is not known, or its history has expired.');
    panel.arrived.unshift(...events);
    schedule();
  } catch (error) {
    if (request === panel.request) setText($('history-note'), describe(error));
  }
}

// Takes whatever the stream brings; events of other jobs are none of its business.
export function addToHistory(event) {
  if (panel.id !== String(event.jobId)) return;
  panel.arrived.push(event);
  if (panel.arrived.length > 2 * MAX_HISTORY) panel.arrived.splice(0, MAX_HISTORY);
  schedule();
}

export function addGapToHistory({ jobId, from, to }) {
  addToHistory({ gap: true, jobId, seq: to, from, to });
}

function paint() {
  if (panel.id === null || !panel.arrived.length) return;
  const list = $('history-events');
  for (const event of panel.arrived.slice(-MAX_HISTORY)) insertItem(list, event);
  panel.arrived = [];
  while (list.childElementCount > MAX_HISTORY) {
    panel.items.delete(list.lastElementChild.dataset.key);
    list.lastElementChild.remove();
  }
  if (list.childElementCount) setText($('history-note'), '');
  paintFacts();
}

function insertItem(list, event) {
  const key = event.gap ? `gap ${event.from}` : String(event.seq ?? event.text);
  if (panel.items.has(key)) return;
  const order = event.seq ?? 0;
  const item = event.gap ? gapItem(event) : historyItem(event);
  panel.items.set(key, order);
  item.dataset.key = key;
  let below = list.firstElementChild;
  while (below && panel.items.get(below.dataset.key) > order) below = below.nextElementSibling;
  list.insertBefore(item, below);
  if (event.gap) return;
  panel.job ??= newJob(event);
  fold(panel.job, event);
}

function gapItem({ from, to }) {
  return element('li', 'timeline-gap', `Events ${from} to ${to} are no longer kept.`);
}

const KINDS = { 'job:update': 'Update', 'job:progress': 'Progress', 'job:completed': 'Completed', 'job:error': 'Error' };

function historyItem(event) {
  const at = Date.parse(event.timestamp);
  const time = element('time', '', Number.isFinite(at) ? clockMillis.format(at) : '');
  if (Number.isFinite(at)) time.title = `${fullTime.format(at)}, seq ${event.seq ?? 'unknown'}`;
  const kind = element('b', '', KINDS[event.event] ?? String(event.event));
  const item = element('li', 'timeline-item', element('div', 'timeline-head', kind, headline(event)), time);
  item.dataset.tone = toneOf(event);
  const note = event.error ?? event.message;
  if (note !== undefined) item.append(element('p', event.error === undefined ? '' : 'is-error', String(note)));
  const text = payload(event, 2);
  if (text) item.append(...payloadBlock(text));
  return item;
}

function headline(event) {
  if (event.event === 'job:progress') return element('span', '', `${event.progress} %`);
  return element('span', '', event.event === 'job:update' ? String(event.status) : '');
}

function payloadBlock(text) {
  const block = element('pre', 'payload', shorten(text, MAX_PAYLOAD));
  block.tabIndex = 0;
  if (text.length <= MAX_PAYLOAD) return [block];
  const more = element('button', 'link-button', `Show all ${text.length.toLocaleString()} characters`);
  more.type = 'button';
  more.addEventListener('click', () => {
    block.textContent = text;
    more.remove();
    block.focus();
  });
  return [block, more];
}

export function paintFacts() {
  const { job } = panel;
  if (!job) return;
  const facts = [
    ['Progress', percent(job) || '–'],
    [hasEnded(job) ? 'Took' : 'Elapsed', elapsed(job)],
    ['Began', absoluteTime(job.startedAt)],
    ['Last event', relativeTime(job.at)],
    ['Last seq', job.latest.seq === undefined ? '–' : String(job.latest.seq)],
    ...ownersOf(job).map(([kind, id]) => [kind === 'user' ? 'User' : 'Tenant', String(id)]),
  ];
  const list = $('history-facts');
  if (list.childElementCount !== facts.length) {
    list.replaceChildren(...facts.map(() => element('div', '', element('dt'), element('dd'))));
  }
  facts.forEach(([name, value], index) => {
    const [dt, dd] = list.children[index].children;
    setText(dt, name);
    setText(dd, value);
  });
  $('history-state').hidden = false;
  setText($('history-state'), stateText(job));
  setAttribute($('history'), 'data-tone', job.tone);
  $('history-bar').firstElementChild.style.setProperty('--value', (job.progress ?? 0) / 100);
}
