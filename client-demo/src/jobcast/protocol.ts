// What is sent and received: the types, and the checks of what comes in.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

interface EventBase {
  jobId: string;
  /** Grows from event to event of a job; a jump in it is no loss, only a gap is. */
  seq: number;
  timestamp: string;
  userId?: string;
  tenantId?: string;
}

export interface JobUpdate extends EventBase {
  event: 'job:update';
  status: string;
  data: Json;
}

export interface JobProgress extends EventBase {
  event: 'job:progress';
  status: 'in_progress';
  progress: number;
  message?: string;
}

export interface JobCompleted extends EventBase {
  event: 'job:completed';
  status: 'completed';
  result: Json;
}

export interface JobFailed extends EventBase {
  event: 'job:error';
  status: 'failed';
  error: string;
}

export type JobEvent = JobUpdate | JobProgress | JobCompleted | JobFailed;

/** Events that were missed and are no longer kept; both numbers included. */
export interface JobGap {
  jobId: string;
  from: number;
  to: number;
}

/** Where an event stands in shared rooms (a user's, a tenant's, that of all jobs), by the rooms' names. */
export type Positions = Readonly<Record<string, string>>;

export type Target = { jobId: string } | { userId: string } | { tenantId: string } | 'all';

export type ErrorCode =
  | 'invalid_payload'
  | 'unauthorized'
  | 'forbidden'
  | 'rate_limited'
  | 'limit_reached'
  | 'unavailable'
  | 'unknown_event'
  | 'job_finished'
  | 'owner_mismatch'
  | 'idempotency_conflict'
  | 'token_expired'
  // the two that this client adds
  | 'timeout'
  | 'connection';

export class JobcastError extends Error {
  override readonly name = 'JobcastError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface RoomPayload {
  jobId?: string;
  userId?: string;
  tenantId?: string;
  /** For a job the `seq` of the last event, for other rooms a position. */
  since?: number | string;
}

export interface Refusal {
  success: false;
  error: { code: ErrorCode; message: string };
}

type Ack<T> = (answer: ({ success: true } & T) | Refusal) => void;

export interface Subscribed {
  room: string;
  latest: unknown;
  /** Where the subscription to a shared room begins. */
  position?: string;
  recovered?: boolean;
  /** How many events come next that were asked for by `since`. */
  replaying?: number;
}

export interface ClientEvents {
  'subscribe:jobs': (payload: RoomPayload, ack: Ack<Subscribed>) => void;
  'unsubscribe:jobs': (payload: RoomPayload, ack: Ack<{ room: string }>) => void;
  'history:jobs': (
    payload: { jobId: string; limit?: number; since?: number },
    ack: Ack<{ jobId: string; events: unknown }>,
  ) => void;
  'auth:refresh': (payload: { token: string }, ack: Ack<{ expiresAt: string }>) => void;
}

// `unknown` on purpose: whoever may publish a job decides what is in it, so that nothing reaches
// the page's code before parseJobEvent has looked at it.
export interface ServerEvents {
  'job:update': (event: unknown, positions?: unknown) => void;
  'job:progress': (event: unknown, positions?: unknown) => void;
  'job:completed': (event: unknown, positions?: unknown) => void;
  'job:error': (event: unknown, positions?: unknown) => void;
  'job:gap': (gap: unknown, positions?: unknown) => void;
  'auth:expiring': (end: unknown) => void;
}

export const JOB_EVENTS = ['job:update', 'job:progress', 'job:completed', 'job:error'] as const;

/**
 * Throws where an id is missing: JSON has no `undefined`, so that `{ jobId: undefined }` would reach the
 * gateway as `{}`, which asks for the jobs of everybody.
 */
export function checkTarget(target: Target): void {
  if (target === 'all') return;
  const ids = isRecord(target) ? Object.values(target) : [];
  if (ids.length === 1 && typeof ids[0] === 'string' && ids[0] !== '') return;
  throw new JobcastError('invalid_payload', 'The id of the job, user or tenant is missing.');
}

export function targetKey(target: Target): string {
  if (target === 'all') return 'all-jobs';
  if ('jobId' in target) return `job:${target.jobId}`;
  if ('userId' in target) return `user:${target.userId}`;
  return `tenant:${target.tenantId}`;
}

export function roomPayload(target: Target): RoomPayload {
  return target === 'all' ? {} : { ...target };
}

export function isJob(target: Target): target is { jobId: string } {
  return target !== 'all' && 'jobId' in target;
}

export function matches(target: Target, event: JobEvent): boolean {
  if (target === 'all') return true;
  if ('jobId' in target) return event.jobId === target.jobId;
  if ('userId' in target) return event.userId === target.userId;
  return event.tenantId === target.tenantId;
}

export function isTransient({ code }: JobcastError): boolean {
  return ['rate_limited', 'limit_reached', 'unavailable', 'timeout', 'connection'].includes(code);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Undefined for what is no job event. `data` and `result` may hold anything: show them as text. */
export function parseJobEvent(value: unknown): JobEvent | undefined {
  if (!isRecord(value)) return undefined;
  const { event, jobId, seq, timestamp, status, userId, tenantId } = value;
  if (typeof jobId !== 'string' || typeof status !== 'string') return undefined;
  if (typeof seq !== 'number' || !Number.isSafeInteger(seq)) return undefined;
  if (typeof timestamp !== 'string' || Number.isNaN(Date.parse(timestamp))) return undefined;

  const base: EventBase = { jobId, seq, timestamp };
  if (typeof userId === 'string') base.userId = userId;
  if (typeof tenantId === 'string') base.tenantId = tenantId;

  switch (event) {
    case 'job:update':
      return { ...base, event, status, data: (value['data'] ?? null) as Json };
    case 'job:progress': {
      const { progress, message } = value;
      if (typeof progress !== 'number') return undefined;
      const parsed: JobProgress = { ...base, event, status: 'in_progress', progress };
      if (typeof message === 'string') parsed.message = message;
      return parsed;
    }
    case 'job:completed':
      return { ...base, event, status: 'completed', result: (value['result'] ?? null) as Json };
    case 'job:error':
      return typeof value['error'] === 'string'
        ? { ...base, event, status: 'failed', error: value['error'] }
        : undefined;
    default:
      return undefined;
  }
}

export function parseJobEvents(value: unknown): JobEvent[] {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.map(parseJobEvent).filter((event) => event !== undefined);
}

export function parseJobGap(value: unknown): JobGap | undefined {
  if (!isRecord(value)) return undefined;
  const { jobId, from, to } = value;
  return typeof jobId === 'string' && typeof from === 'number' && typeof to === 'number'
    ? { jobId, from, to }
    : undefined;
}

/** No event without a shared room has any. */
export function parsePositions(value: unknown): Positions {
  if (!isRecord(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}

export function parseError(value: unknown): JobcastError {
  const { code, message } = isRecord(value) ? value : {};
  return new JobcastError(
    (typeof code === 'string' ? code : 'unavailable') as ErrorCode,
    typeof message === 'string' ? message : 'The gateway reported a failure.',
  );
}

/** A refusal reads `code: text`; anything else is socket.io's own word for an unreachable server. */
export function connectError(message: string): JobcastError {
  const [, code, text] = /^([a-z]+(?:_[a-z]+)*): (.+)$/s.exec(message) ?? [];
  return code && text
    ? new JobcastError(code as ErrorCode, text)
    : new JobcastError('connection', message);
}
