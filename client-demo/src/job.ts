import type { JobEvent, Json } from './jobcast/protocol';

/** A job as its events so far add up to it. */
export interface Job {
  jobId: string;
  status: string;
  phase: Phase;
  seq: number;
  timestamp: string;
  /** 0 to 100; undefined until the job has said. */
  progress?: number;
  message?: string;
  data?: Json;
  result?: Json;
  error?: string;
  userId?: string;
  tenantId?: string;
}

export type Phase = 'waiting' | 'running' | 'completed' | 'failed';

export function applyEvent(job: Job | undefined, event: JobEvent): Job {
  if (job && event.seq <= job.seq) return job;
  const { jobId, status, seq, timestamp, userId, tenantId } = event;
  const next: Job = { ...job, jobId, status, seq, timestamp, phase: phaseOf(event) };
  if (userId !== undefined) next.userId = userId;
  if (tenantId !== undefined) next.tenantId = tenantId;

  switch (event.event) {
    case 'job:update':
      // An update to a finished job opens it again: a new run, with nothing left of the last one.
      if (job && isFinished(job)) {
        delete next.progress;
        delete next.message;
        delete next.result;
        delete next.error;
      }
      next.data = event.data;
      break;
    case 'job:progress':
      next.progress = Math.min(100, Math.max(0, event.progress));
      if (event.message === undefined) delete next.message;
      else next.message = event.message;
      break;
    case 'job:completed':
      next.progress = 100;
      next.result = event.result;
      break;
    case 'job:error':
      next.error = event.error;
      break;
  }
  return next;
}

export function isFinished({ phase }: Job): boolean {
  return phase === 'completed' || phase === 'failed';
}

const WAITING = new Set(['queued', 'waiting', 'pending', 'created', 'scheduled', 'delayed']);

function phaseOf(event: JobEvent): Phase {
  switch (event.event) {
    case 'job:completed':
      return 'completed';
    case 'job:error':
      return 'failed';
    case 'job:progress':
      return 'running';
    case 'job:update':
      return WAITING.has(event.status.toLowerCase()) ? 'waiting' : 'running';
  }
}
