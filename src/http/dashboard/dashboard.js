// The live dashboard: the jobs of a gateway as they happen, one job's history, and a form that publishes.
// This file puts its parts together.

import { startAccount } from './dashboard/account.js';
import { $, setAttribute } from './dashboard/dom.js';
import { runSample, startFirstSteps, writeCurl } from './dashboard/first-steps.js';
import { paintFacts, showHistory } from './dashboard/history.js';
import { focusRow, forgetJobs, paintAllAges, select, startFilters } from './dashboard/list.js';
import { connect, disconnect, paintRate, showLost } from './dashboard/live.js';
import { startForm } from './dashboard/publish.js';

const narrow = matchMedia('(max-width: 999px)');

// ---- Which job's history is open: what the address says ----

let opened = null;

function route() {
  const id = idInAddress();
  if (id === opened) return;
  const before = opened;
  opened = id;
  select(id);
  showHistory(id);
  arrangeSheets();
  if (id === null) focusRow(before);
  else $('history').focus({ preventScroll: true });
}

function idInAddress() {
  const [, encoded] = /^#\/jobs\/(.+)$/.exec(location.hash) ?? [];
  try {
    return encoded ? decodeURIComponent(encoded) : null;
  } catch {
    // Not a link of ours.
    return null;
  }
}

function closeHistory() {
  // Drops the fragment without leaving a bare "#", and without scrolling to the top.
  history.pushState(null, '', location.pathname + location.search);
  route();
}

// ---- Panels: beside the list, or sheets over it on a small screen ----

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
  if (key !== 'Escape' || defaultPrevented || target === $('search') || $('sign-in').open) return;
  if (narrow.matches && !$('publish-panel').hidden) closePublish();
  else if (opened !== null) closeHistory();
}

// ---- Signing in and out ----

function signIn() {
  writeCurl();
  connect();
}

function signOut() {
  disconnect();
  // Whoever comes next to this screen sees nothing.
  if (opened !== null) closeHistory();
  forgetJobs();
}

// ---- Start ----

async function startSample() {
  if (!(await runSample())) showPublish(true);
}

function tick() {
  paintAllAges();
  paintFacts();
  paintRate();
}

function start() {
  $('publish-toggle').addEventListener('click', togglePublish);
  $('publish-close').addEventListener('click', closePublish);
  $('history-close').addEventListener('click', closeHistory);
  for (const button of document.querySelectorAll('[data-sample]')) button.addEventListener('click', startSample);
  document.addEventListener('keydown', closeByEscape);
  narrow.addEventListener('change', arrangeSheets);
  addEventListener('hashchange', route);
  addEventListener('popstate', route);
  addEventListener('offline', showLost);
  addEventListener('online', connect);

  startFilters();
  startForm();
  startAccount({ onSignIn: signIn, onSignOut: signOut });
  startFirstSteps();
  writeCurl();
  showPublish(!narrow.matches);
  route();
  paintRate();
  setInterval(tick, 1_000);
  connect();
}

start();
