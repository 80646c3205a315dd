// The live dashboard: the jobs of a gateway as they happen, one job's history, and a form that publishes.
//
// Job data is untrusted: it reaches the page through textContent and attributes only, never as markup.

const LIST_LIMIT = 100;
const MAX_JOBS = 300;
const MAX_HISTORY = 200;
const MAX_NOTE = 300;
const MAX_PAYLOAD = 6000;
const REQUEST_TIMEOUT = 15_000;
const RETRY_FIRST = 500;
const RETRY_MOST = 10_000;
// Events may be stored in a slightly different order than they were stamped; what comes twice is dropped by `seq`.
const SINCE_SLACK = 2_000;
const JOB_EVENTS = ['job:update', 'job:progress', 'job:completed', 'job:error'];

const $ = (id) => document.getElementById(id);
const base = new URL('.', import.meta.url);
const narrow = matchMedia('(max-width: 999px)');

// ---- Small DOM helpers -------------------------------------------------------------------------------------

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function shorten(text, most) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

// ---- Time --------------------------------------------------------------------------------------------------

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const clockMillis = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23',
});
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23',
});
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });

function isToday(at) {
  return new Date(at).toDateString() === new Date().toDateString();
}

function absoluteTime(at) {
  if (!Number.isFinite(at)) return 'unknown time';
  return isToday(at) ? clock.format(at) : dayAndClock.format(at);
}

function duration(ms) {
  if (!Number.isFinite(ms)) return '–';
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 10) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} m` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function relativeTime(at) {
  const seconds = Math.floor((Date.now() - at) / 1_000);
  if (!Number.isFinite(seconds)) return '';
  if (seconds < 2) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} m ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

// ---- JSON that keeps its digits ----------------------------------------------------------------------------

const LONG_NUMBER = /\d[\d.]{14}|\d[eE]/;

function keepDigits(_key, value, context) {
  if (typeof value !== 'number' || !context?.source || String(value) === context.source) return value;
  return JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

// For showing and for writing out again, not for computing: a number may come back as an opaque raw one.
function parseExact(text) {
  return LONG_NUMBER.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text);
}

// An event keeps the text it came as, so that its payload is formatted only when it is shown, with every digit.
function readEvent(text) {
  return { ...JSON.parse(text), text };
}

function readEvents(body, field) {
  return parseExact(body)[field].map((event) => readEvent(JSON.stringify(event)));
}

function payload(event, indent) {
  const { data, result } = parseExact(event.text);
  const value = data ?? result ?? null;
  return value === null ? '' : JSON.stringify(value, null, indent);
}

// ---- HTTP --------------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function problemOf(response, text) {
  try {
    const { title, detail, code } = JSON.parse(text);
    return new Problem(response.status, code, detail || title || response.statusText);
  } catch {
    return new Problem(response.status, '', shorten(text.trim(), 200) || response.statusText);
  }
}

async function call(path, { headers = {}, ...init } = {}) {
  const credentials = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(new URL(path, base), {
    ...init,
    headers: { ...headers, ...credentials },
    signal: AbortSignal.timeout(REQUEST_TIMEOUT),
  });
  const text = await response.text();
  if (!response.ok) throw problemOf(response, text);
  return text;
}

function describe(error) {
  if (!(error instanceof Problem)) return `The gateway does not answer (${error.message}).`;
  return error.code ? `${error.message} (${error.status} ${error.code})` : `${error.message} (${error.status})`;
}

function randomName() {
  return [...crypto.getRandomValues(new Uint32Array(2))].map((n) => n.toString(36)).join('');
}

// ---- The token, where the gateway asks for one -------------------------------------------------------------

let token = takeToken();

function takeToken() {
  const url = new URL(location.href);
  const given = url.searchParams.get('token');
  try {
    if (!given) return sessionStorage.getItem('jobcast.token') ?? '';
    sessionStorage.setItem('jobcast.token', given);
  } catch {
    return given ?? '';
  }
  url.searchParams.delete('token');
  history.replaceState(null, '', url);
  return given;
}

function askForToken(error) {
  $('sign-in').hidden = false;
  setText($('sign-in-error'), token ? describe(error) : '');
  showConnection('reconnecting', 'Token needed');
}

function useToken(submission) {
  submission.preventDefault();
  token = $('token').value.trim();
  try {
    sessionStorage.setItem('jobcast.token', token);
  } catch {
    // Without storage the token lasts until the page is reloaded.
  }
  connect();
}

// ---- What a job is, folded from its events -----------------------------------------------------------------

const TONES = [
  ['waiting', /^(queued?|waiting|pending|delayed|scheduled|created|paused|stalled)$/i],
  ['running', /^(in[_ -]?progress|active|running|started|processing|working|resumed)$/i],
  ['completed', /^(completed?|done|succeeded|success|finished)$/i],
  ['failed', /^(failed|failure|error|errored)$/i],
];

function toneOf(event) {
  if (event.event === 'job:completed') return 'completed';
  if (event.event === 'job:error') return 'failed';
  if (event.event === 'job:progress') return 'running';
  return TONES.find(([, words]) => words.test(event.status))?.[0] ?? 'other';
}

// A job's first `seq` is the Unix time in milliseconds and grows by one per event, so any later one tells
// nearly when the job began, without its history.
function beginning(event, at) {
  const month = 31 * 86_400_000;
  return event.seq > at - month && event.seq < at ? event.seq : at;
}

function newJob(event) {
  const at = Date.parse(event.timestamp);
  return { id: String(event.jobId), seq: -1, progress: null, startedAt: beginning(event, at), tone: null };
}

function fold(job, event) {
  if (event.seq <= job.seq) return false;
  const tone = toneOf(event);
  job.at = Date.parse(event.timestamp);
  if (hasEnded(job) && event.event === 'job:update' && tone !== job.tone) {
    job.progress = null;
    job.startedAt = job.at;
  }
  if (event.event === 'job:progress') job.progress = event.progress;
  if (event.event === 'job:completed') job.progress = 100;
  job.seq = event.seq ?? job.seq;
  job.tone = tone;
  job.status = String(event.status ?? '');
  job.userId = event.userId ?? job.userId;
  job.tenantId = event.tenantId ?? job.tenantId;
  job.latest = event;
  return true;
}

function hasEnded(job) {
  return job.tone === 'completed' || job.tone === 'failed';
}

function elapsed(job) {
  return duration((hasEnded(job) ? job.at : Date.now()) - job.startedAt);
}

function elapsedText(job) {
  if (!hasEnded(job)) return `${elapsed(job)} elapsed`;
  return job.at > job.startedAt ? `took ${elapsed(job)}` : '';
}

function stateText(job) {
  return job.status.replaceAll('_', ' ') || 'unknown';
}

function percent(job) {
  if (job.progress === null) return '';
  return `${Math.floor(job.progress * 10) / 10} %`;
}

function noteOf(job) {
  const { latest } = job;
  return shorten(String(latest.error ?? latest.message ?? payload(latest)), MAX_NOTE);
}

function ownersOf(job) {
  return [['user', job.userId], ['tenant', job.tenantId]].filter(([, id]) => id !== undefined && id !== null);
}

function linkTo(id) {
  return `#/jobs/${encodeURIComponent(id)}`;
}

// ---- The jobs on the page ----------------------------------------------------------------------------------

const jobs = new Map();
const dirty = new Set();
let loaded = false;
let touches = 0;
let reorder = true;
let scheduled = false;

function receive(event) {
  let job = jobs.get(String(event.jobId));
  if (!job) {
    job = newJob(event);
    jobs.set(job.id, job);
    // Frames do not come while the tab is hidden, so the bound is kept here too.
    if (jobs.size > 2 * MAX_JOBS) forgetOldest();
  }
  const { startedAt } = job;
  if (!fold(job, event)) return;
  job.touched = ++touches;
  reorder ||= !job.row || job.startedAt !== startedAt;
  dirty.add(job);
  schedule();
}

function forget(job) {
  jobs.delete(job.id);
  dirty.delete(job);
  job.row?.root.remove();
  reorder = true;
}

function forgetOldest() {
  const oldest = [...jobs.values()].sort((a, b) => a.touched - b.touched);
  oldest.slice(0, jobs.size - MAX_JOBS).forEach(forget);
}

async function loadJobs() {
  const before = touches;
  const listed = readEvents(await call(`api/jobs?limit=${LIST_LIMIT}`), 'jobs');
  const known = new Set(listed.map((event) => String(event.jobId)));
  listed.reverse().forEach(receive);
  // A shorter list is all there is: what it lacks has expired, or went with a store that keeps nothing.
  if (listed.length < LIST_LIMIT) {
    [...jobs.values()].filter((job) => job.touched <= before && !known.has(job.id)).forEach(forget);
  }
  loaded = true;
  schedule();
  return listed.reduce((newest, event) => Math.max(newest, Date.parse(event.timestamp) || 0), 0);
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(paint);
}

function paint() {
  scheduled = false;
  if (jobs.size > MAX_JOBS) forgetOldest();
  for (const job of dirty) paintRow(job);
  if (dirty.size || reorder) paintCounts();
  dirty.clear();
  if (reorder) placeRows();
  paintEmptiness();
  paintHistory();
}

// ---- One row of the list -----------------------------------------------------------------------------------

function createRow(job) {
  const link = element('a', 'job-id', job.id);
  link.href = linkTo(job.id);
  const row = {
    link,
    badge: element('span', 'badge'),
    note: element('p', 'job-note'),
    fill: element('div', 'bar-fill'),
    percent: element('span', 'job-percent'),
    owners: element('div', 'job-owners'),
    time: element('time'),
    ago: element('span'),
    elapsed: element('span', 'job-elapsed'),
  };
  row.bar = element('div', 'bar', row.fill);
  row.bar.setAttribute('role', 'progressbar');
  row.bar.setAttribute('aria-valuemin', '0');
  row.bar.setAttribute('aria-valuemax', '100');
  row.bar.setAttribute('aria-label', `Progress of ${job.id}`);
  row.root = element('li', 'job',
    element('div', 'job-main', element('div', 'job-head', link, row.badge), row.note),
    element('div', 'job-progress', row.bar, row.percent),
    row.owners,
    element('div', 'job-times', row.time, row.ago, row.elapsed));
  row.root.dataset.job = job.id;
  return row;
}

function paintRow(job) {
  job.row ??= createRow(job);
  const { row } = job;
  setAttribute(row.root, 'data-status', job.status);
  setAttribute(row.root, 'data-tone', job.tone);
  setText(row.badge, stateText(job));
  setText(row.note, noteOf(job));
  row.note.classList.toggle('is-data', job.latest.error === undefined && job.latest.message === undefined);
  paintBar(row.bar, row.fill, job);
  setText(row.percent, percent(job));
  paintOwners(row.owners, job);
  setText(row.time, absoluteTime(job.at));
  setAttribute(row.time, 'datetime', Number.isFinite(job.at) ? new Date(job.at).toISOString() : null);
  paintAges(job);
  markRow(job);
  filterRow(job);
}

function markRow(job) {
  setAttribute(job.row.link, 'aria-current', job.id === panel.id ? 'true' : null);
}

function paintBar(bar, fill, job) {
  bar.classList.toggle('is-unknown', job.progress === null);
  setAttribute(bar, 'aria-valuenow', job.progress);
  setAttribute(bar, 'aria-valuetext', job.progress === null ? stateText(job) : `${percent(job)}, ${stateText(job)}`);
  fill.style.setProperty('--value', (job.progress ?? 0) / 100);
}

function paintOwners(owners, job) {
  const wanted = ownersOf(job);
  if (owners.dataset.of === wanted.join()) return;
  owners.dataset.of = wanted.join();
  owners.replaceChildren(...wanted.map(([kind, id]) => {
    const chip = element('span', 'chip', element('span', 'chip-kind', kind), element('span', 'chip-id', String(id)));
    chip.title = `${kind} ${id}`;
    return chip;
  }));
}

function paintAges(job) {
  setText(job.row.ago, relativeTime(job.at));
  setText(job.row.elapsed, elapsedText(job));
}

function placeRows() {
  reorder = false;
  // By beginning, not by latest event: rows must not jump under the reader's eyes.
  const order = [...jobs.values()].sort((a, b) => b.startedAt - a.startedAt || (a.id < b.id ? -1 : 1));
  let next = $('job-list').firstElementChild;
  for (const { row } of order) {
    if (row.root === next) next = next.nextElementSibling;
    else $('job-list').insertBefore(row.root, next);
  }
}

// ---- Filters, counts, emptiness ----------------------------------------------------------------------------

const filter = { tone: 'all', words: [] };

function matches(job) {
  if (filter.tone !== 'all' && filter.tone !== job.tone) return false;
  if (!filter.words.length) return true;
  const text = [job.id, job.status, job.userId, job.tenantId, job.row.note.textContent].join(' ').toLowerCase();
  return filter.words.every((word) => text.includes(word));
}

function filterRow(job) {
  job.row.root.hidden = !matches(job);
}

function applyFilter() {
  filter.words = $('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const button of $('filters').children) {
    button.setAttribute('aria-pressed', button.dataset.filter === filter.tone);
  }
  for (const job of jobs.values()) if (job.row) filterRow(job);
  schedule();
}

function clearFilter() {
  filter.tone = 'all';
  $('search').value = '';
  applyFilter();
  $('search').focus();
}

function paintCounts() {
  const counts = { all: jobs.size };
  for (const { tone } of jobs.values()) counts[tone] = (counts[tone] ?? 0) + 1;
  for (const button of $('filters').children) {
    setText(button.firstElementChild, String(counts[button.dataset.filter] ?? 0));
  }
  document.title = counts.running ? `${counts.running} running · Jobcast` : 'Jobcast';
}

function paintEmptiness() {
  const shown = [...jobs.values()].filter((job) => job.row && !job.row.root.hidden).length;
  $('empty').hidden = !loaded || jobs.size > 0;
  $('no-match').hidden = jobs.size === 0 || shown > 0;
  $('job-list').hidden = shown === 0;
  setText($('list-note'), jobs.size >= MAX_JOBS ? `The ${MAX_JOBS} most recently active jobs are shown.` : '');
}

function tick() {
  for (const job of jobs.values()) if (job.row) paintAges(job);
  if (panel.job) paintFacts();
  paintRate();
}

// ---- The live stream ---------------------------------------------------------------------------------------

const stream = { source: null, attempt: 0, failures: 0, timer: 0 };

function showConnection(state, ...text) {
  setAttribute($('connection'), 'data-state', state);
  $('connection-text').replaceChildren(...text);
}

function showLost() {
  if ($('connection').dataset.state !== 'live') return;
  showConnection('reconnecting', 'Reconnecting', element('span', 'since', ` since ${clock.format()}`));
}

function hangUp() {
  clearTimeout(stream.timer);
  stream.source?.close();
  stream.source = null;
}

async function connect() {
  hangUp();
  const attempt = ++stream.attempt;
  try {
    const newest = await loadJobs();
    if (attempt !== stream.attempt) return;
    $('sign-in').hidden = true;
    follow(Math.max(0, newest - SINCE_SLACK));
  } catch (error) {
    if (attempt !== stream.attempt) return;
    if (error.status === 401 || error.status === 403) askForToken(error);
    else connectLater();
  }
}

function connectLater() {
  showLost();
  const wait = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** stream.failures++);
  stream.timer = setTimeout(connect, wait * (0.75 + Math.random() / 2));
}

function follow(since) {
  const url = new URL(`api/events?since=${since}`, base);
  if (token) url.searchParams.set('token', token);
  const source = new EventSource(url);
  stream.source = source;
  let opens = 0;
  source.onopen = () => opened(++opens);
  source.onerror = () => dropped(source);
  for (const name of JOB_EVENTS) source.addEventListener(name, heard);
  source.addEventListener('job:gap', ({ data }) => hearGap(JSON.parse(data)));
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

function heard({ data }) {
  const event = readEvent(data);
  rate.now += 1;
  receive(event);
  if (panel.id === String(event.jobId)) addToHistory(event);
}

function hearGap({ jobId, from, to }) {
  if (panel.id === String(jobId)) addToHistory({ gap: true, seq: to, from, to });
}

// ---- Events per second -------------------------------------------------------------------------------------

const rate = { now: 0, seconds: new Array(60).fill(0) };

function paintRate() {
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

// ---- The history of one job --------------------------------------------------------------------------------

const panel = { id: null, job: null, items: new Map(), arrived: [], request: 0 };

function route() {
  const [, encoded] = /^#\/jobs\/(.+)$/.exec(location.hash) ?? [];
  let id = null;
  try {
    id = encoded ? decodeURIComponent(encoded) : null;
  } catch {
    // Not a link of ours.
  }
  if (id !== panel.id) openHistory(id);
}

function openHistory(id) {
  const before = panel.id;
  Object.assign(panel, { id, job: null, arrived: [] });
  panel.items.clear();
  $('history-events').replaceChildren();
  $('history-facts').replaceChildren();
  setText($('history-state'), '');
  $('history-state').hidden = true;
  $('history').removeAttribute('data-tone');
  $('history').hidden = id === null;
  for (const job of [jobs.get(before), jobs.get(id)]) if (job?.row) markRow(job);
  arrangeSheets();
  if (id === null) return jobs.get(before)?.row?.link.focus();
  setText($('history-title'), id);
  setText($('history-note'), 'Loading…');
  $('history').focus({ preventScroll: true });
  refreshHistory();
}

function closeHistory() {
  // Drops the fragment without leaving a bare "#", and without scrolling to the top.
  history.pushState(null, '', location.pathname + location.search);
  route();
}

async function refreshHistory() {
  const { id } = panel;
  if (id === null) return;
  const request = ++panel.request;
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

function addToHistory(event) {
  panel.arrived.push(event);
  if (panel.arrived.length > 2 * MAX_HISTORY) panel.arrived.splice(0, MAX_HISTORY);
}

function paintHistory() {
  if (panel.id === null || !panel.arrived.length) return;
  const list = $('history-events');
  for (const event of panel.arrived.slice(-MAX_HISTORY)) insertItem(list, event);
  panel.arrived = [];
  while (list.childElementCount > MAX_HISTORY) {
    panel.items.delete(list.lastElementChild.dataset.key);
    list.lastElementChild.remove();
  }
  if (list.childElementCount) setText($('history-note'), '');
  if (panel.job) paintFacts();
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

function paintFacts() {
  const { job } = panel;
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

// ---- Panels: beside the list, or sheets over it on a small screen ------------------------------------------

function arrangeSheets() {
  const publishing = !$('publish-panel').hidden;
  const reading = !$('history').hidden;
  $('jobs').inert = narrow.matches && (publishing || reading);
  $('history').inert = narrow.matches && publishing;
  document.body.classList.toggle('has-history', reading);
  document.body.classList.toggle('has-publish', publishing);
  setAttribute($('publish-toggle'), 'aria-expanded', publishing);
}

function showPublish(open) {
  $('publish-panel').hidden = !open;
  arrangeSheets();
}

function togglePublish() {
  showPublish($('publish-panel').hidden);
  if (!$('publish-panel').hidden) $('publish').elements.job.focus();
}

function closePublish() {
  showPublish(false);
  $('publish-toggle').focus();
}

function closeByEscape({ key, target, defaultPrevented }) {
  if (key !== 'Escape' || defaultPrevented || target === $('search')) return;
  if (narrow.matches && !$('publish-panel').hidden) closePublish();
  else if (panel.id !== null) closeHistory();
}

// ---- Publishing --------------------------------------------------------------------------------------------

const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const FIELD_AS_JSON = {
  status: JSON.stringify,
  message: JSON.stringify,
  error: JSON.stringify,
  userId: JSON.stringify,
  tenantId: JSON.stringify,
  progress: (text) => (JSON_NUMBER.test(text.trim()) ? text.trim() : JSON.stringify(text)),
  data: checkedJson,
  result: checkedJson,
};

// Passed on as it was typed, so that its numbers keep their digits.
function checkedJson(text, name) {
  try {
    JSON.parse(text);
    return text;
  } catch (error) {
    throw new Problem(0, '', `${name} is not JSON: ${error.message}. Plain text goes in quotation marks.`);
  }
}

function bodyOf(form) {
  const members = Object.entries(FIELD_AS_JSON)
    .filter(([name]) => fieldApplies(form.elements[name]) && form.elements[name].value.trim() !== '')
    .map(([name, write]) => `${JSON.stringify(name)}:${write(form.elements[name].value, name)}`);
  return `{${members.join(',')}}`;
}

function fieldApplies(input) {
  return !input.closest('.field').hidden;
}

function showFieldsOfKind() {
  const { kind } = $('publish').elements;
  for (const field of $('publish').querySelectorAll('[data-kinds]')) {
    field.hidden = field.dataset.kinds !== kind.value;
  }
}

async function publish(job, kind, body, key = randomName()) {
  const answer = await call(`api/jobs/${encodeURIComponent(job)}/${kind}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    body,
  });
  return JSON.parse(answer);
}

// Nobody knows what became of a call that was cut off: pressing again repeats it under the same key.
const unanswered = { call: '', key: '' };

function keyFor(call) {
  if (unanswered.call !== call) Object.assign(unanswered, { call, key: randomName() });
  return unanswered.key;
}

async function submitPublish(submission) {
  submission.preventDefault();
  const form = $('publish');
  if (form.ariaBusy === 'true') return;
  showPublishOutcome(form, '', null);
  try {
    form.ariaBusy = 'true';
    const job = form.elements.job.value.trim();
    const kind = form.elements.kind.value;
    if (!job) throw new Problem(0, '', 'job: say which job this event is about.');
    const body = bodyOf(form);
    const { seq } = await publish(job, kind, body, keyFor(`${job} ${kind} ${body}`));
    unanswered.call = '';
    showPublishOutcome(form, `Accepted: ${kind} of ${job}, seq ${seq}.`, null);
  } catch (error) {
    if (error instanceof Problem && error.status < 500) unanswered.call = '';
    showPublishOutcome(form, '', error);
  } finally {
    form.ariaBusy = 'false';
  }
}

function showPublishOutcome(form, text, error) {
  const message = !error ? '' : error.status === 0 ? error.message : describe(error);
  setText($('publish-result'), text);
  setText($('publish-error'), message);
  const named = error?.status === 0 || error?.status === 422 ? fieldNamedBy(form, error.message) : null;
  for (const input of form.elements) {
    if (!input.name) continue;
    setAttribute(input, 'aria-invalid', input === named ? 'true' : null);
    setAttribute(input, 'aria-describedby', input === named ? 'publish-error' : null);
  }
  named?.focus();
}

function fieldNamedBy(form, message) {
  const words = message.match(/[A-Za-z]+/g) ?? [];
  const names = words.map((word) => (word === 'jobId' ? 'job' : word));
  const name = names.find((word) => (Object.hasOwn(FIELD_AS_JSON, word) || word === 'job') && fieldApplies(form.elements[word]));
  return name ? form.elements[name] : null;
}

// ---- The sample job ----------------------------------------------------------------------------------------

const SAMPLE_STEPS = [
  [4, 'Opening orders-2024.csv'],
  [13, 'Reading rows 1 to 1,600'],
  [27, 'Reading rows 1,601 to 3,400'],
  [41, 'Reading rows 3,401 to 5,100'],
  [58, 'Checking addresses'],
  [72, 'Checking prices'],
  [86, 'Writing to the warehouse'],
  [97, 'Counting once more'],
];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function runSample() {
  const job = `sample-${randomName().slice(0, 5)}`;
  const say = (kind, event) => publish(job, kind, JSON.stringify(event));
  setText($('sample-error'), '');
  try {
    await say('update', { status: 'queued', data: { file: 'orders-2024.csv' }, userId: 'dashboard' });
    for (const [progress, message] of SAMPLE_STEPS) {
      await pause(700);
      await say('progress', { progress, message });
    }
    await pause(700);
    await say('completed', { result: { rows: 5100, rejected: 3 } });
  } catch (error) {
    setText($('sample-error'), describe(error));
    showPublish(true);
  }
}

// ---- The first steps, for whoever has no jobs yet ----------------------------------------------------------

function writeCurl() {
  const lines = [
    `curl -X POST ${new URL('api/jobs/hello/progress', base)}`,
    ...(token ? ['-H "Authorization: Bearer $TOKEN"'] : []),
    "-H 'Content-Type: application/json'",
    `-d '{"progress": 42, "message": "Hello, Jobcast"}'`,
  ];
  setText($('curl'), lines.join(' \\\n  '));
  // Browsers offer the clipboard to secure origins only.
  $('copy').hidden = !navigator.clipboard;
}

async function copyCurl() {
  try {
    await navigator.clipboard.writeText($('curl').textContent);
    setText($('copy'), 'Copied');
  } catch {
    setText($('copy'), 'Not allowed');
  }
  setTimeout(() => setText($('copy'), 'Copy'), 2_000);
}

// ---- Start -------------------------------------------------------------------------------------------------

function start() {
  $('filters').addEventListener('click', ({ target }) => {
    filter.tone = target.closest('[data-filter]')?.dataset.filter ?? filter.tone;
    applyFilter();
  });
  $('search').addEventListener('input', applyFilter);
  $('clear-filter').addEventListener('click', clearFilter);
  $('publish').addEventListener('submit', submitPublish);
  $('publish').elements.kind.addEventListener('change', showFieldsOfKind);
  $('publish-toggle').addEventListener('click', togglePublish);
  $('publish-close').addEventListener('click', closePublish);
  $('history-close').addEventListener('click', closeHistory);
  $('sign-in').addEventListener('submit', useToken);
  $('copy').addEventListener('click', copyCurl);
  for (const button of document.querySelectorAll('[data-sample]')) button.addEventListener('click', runSample);
  document.addEventListener('keydown', closeByEscape);
  narrow.addEventListener('change', arrangeSheets);
  addEventListener('hashchange', route);
  addEventListener('popstate', route);
  addEventListener('offline', showLost);
  addEventListener('online', connect);

  writeCurl();
  showFieldsOfKind();
  showPublish(!narrow.matches);
  route();
  paintRate();
  setInterval(tick, 1_000);
  connect();
}

start();
