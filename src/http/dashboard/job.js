// What a job is, folded from its events.

import { shorten } from './dom.js';
import { payload } from './event.js';
import { duration } from './time.js';

const MAX_NOTE = 300;

const TONES = [
  ['waiting', /^(queued?|waiting|pending|delayed|scheduled|created|paused|stalled)$/i],
  ['running', /^(in[_ -]?progress|active|running|started|processing|working|resumed)$/i],
  ['completed', /^(completed?|done|succeeded|success|finished)$/i],
  ['failed', /^(failed|failure|error|errored)$/i],
];

export function toneOf(event) {
  if (event.event === 'job:completed') return 'completed';
  if (event.event === 'job:error') return 'failed';
  if (event.event === 'job:progress') return 'running';
  return TONES.find(([, words]) => words.test(event.status))?.[0] ?? 'other';
}

// A job's first `seq` is the Unix time in milliseconds and mostly grows by one per event, so any later one tells
// nearly when the job began, without its history. After a jump it tells when that was.
function beginning(event, at) {
  const month = 31 * 86_400_000;
  return event.seq > at - month && event.seq < at ? event.seq : at;
}

export function newJob(event) {
  const at = Date.parse(event.timestamp);
  return { id: String(event.jobId), seq: -1, progress: null, startedAt: beginning(event, at), tone: null };
}

export function fold(job, event) {
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

export function hasEnded(job) {
  return job.tone === 'completed' || job.tone === 'failed';
}

export function elapsed(job) {
  return duration((hasEnded(job) ? job.at : Date.now()) - job.startedAt);
}

export function elapsedText(job) {
  if (!hasEnded(job)) return `${elapsed(job)} elapsed`;
  return job.at > job.startedAt ? `took ${elapsed(job)}` : '';
}

export function stateText(job) {
  return job.status.replaceAll('_', ' ') || 'unknown';
}

export function percent(job) {
  if (job.progress === null) return '';
  return `${Math.floor(job.progress * 10) / 10} %`;
}

export function noteOf(job) {
  const { latest } = job;
  return shorten(String(latest.error ?? latest.message ?? payload(latest)), MAX_NOTE);
}

export function ownersOf(job) {
  return [['user', job.userId], ['tenant', job.tenantId]].filter(([, id]) => id !== undefined && id !== null);
}

export function linkTo(id) {
  return `#/jobs/${encodeURIComponent(id)}`;
}
