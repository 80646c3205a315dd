// The list: the jobs on the page, a row for each, and the filters above it.

import { call } from './api.js';
import { $, element, inNextFrame, setAttribute, setText } from './dom.js';
import { readEvents } from './event.js';
import { elapsedText, fold, linkTo, newJob, noteOf, ownersOf, percent, stateText } from './job.js';
import { absoluteTime, relativeTime } from './time.js';

const LIST_LIMIT = 100;
const MAX_JOBS = 300;

const jobs = new Map();
const dirty = new Set();
let loaded = false;
let touches = 0;
let selected = null;
let reorder = true;
const schedule = inNextFrame(paint);

export function receive(event) {
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

export function forgetJobs() {
  loaded = false;
  [...jobs.values()].forEach(forget);
  schedule();
}

function forgetOldest() {
  const oldest = [...jobs.values()].sort((a, b) => a.touched - b.touched);
  oldest.slice(0, jobs.size - MAX_JOBS).forEach(forget);
}

export async function loadJobs(signal) {
  const before = touches;
  const listed = readEvents(await call(`api/jobs?limit=${LIST_LIMIT}`), 'jobs');
  // Whoever asked may have signed out meanwhile.
  signal.throwIfAborted();
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

function paint() {
  if (jobs.size > MAX_JOBS) forgetOldest();
  for (const job of dirty) paintRow(job);
  if (dirty.size || reorder) paintCounts();
  dirty.clear();
  if (reorder) placeRows();
  paintEmptiness();
}

// ---- One row ----

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
  setAttribute(job.row.link, 'aria-current', job.id === selected ? 'true' : null);
}

// Marks the row of the job whose history is open.
export function select(id) {
  const changed = [selected, id].map((either) => jobs.get(either));
  selected = id;
  for (const job of changed) if (job?.row) markRow(job);
}

export function focusRow(id) {
  jobs.get(id)?.row?.link.focus();
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

// ---- Filters, counts, emptiness ----

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

export function paintAllAges() {
  for (const job of jobs.values()) if (job.row) paintAges(job);
}

export function startFilters() {
  $('filters').addEventListener('click', ({ target }) => {
    filter.tone = target.closest('[data-filter]')?.dataset.filter ?? filter.tone;
    applyFilter();
  });
  $('search').addEventListener('input', applyFilter);
  $('clear-filter').addEventListener('click', clearFilter);
}
