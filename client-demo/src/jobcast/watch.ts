// One watch: what it has seen, what it still has to catch up on, and where it resumes.

import {
  isJob,
  isTransient,
  matches,
  parseJobEvents,
  targetKey,
  type JobcastError,
  type JobEvent,
  type JobGap,
  type Positions,
  type Subscribed,
  type Target,
} from './protocol';

/** `latest`: how things stood when the watch began. `replay`: caught up on. `live`: as it happens. */
export type Source = 'latest' | 'replay' | 'live';

/** How coming back after a lost connection went. */
export interface CaughtUp {
  /** How many events there were to catch up on, not counting what had been seen already. */
  missed: number;
  /** False where something between is no longer kept. */
  recovered: boolean;
}

export type WatchStatus =
  | { state: 'waiting'; error?: JobcastError }
  | { state: 'live' }
  | { state: 'refused'; error: JobcastError };

export interface WatchHandlers {
  onEvent?(event: JobEvent, source: Source): void;
  onGap?(gap: JobGap): void;
  onCaughtUp?(report: CaughtUp): void;
  onStatus?(status: WatchStatus): void;
}

const MAX_JOBS_REMEMBERED = 10_000;
const MAX_RETRY_MS = 30_000;

interface Replay extends CaughtUp {
  /** How many events are still to come; unknown until the gateway has answered. */
  left?: number;
  /** The newest number of each job, as far as it is still to come. */
  upTo: Map<string, number>;
}

/** What a watch has seen of one job. */
interface SeenJob {
  /** The newest number that has come in order: what is older has come, or is not this watch's. */
  last: number;
  /** Newer ones that came before their turn: another watch on this connection brought them. */
  early: Set<number>;
}

export class ActiveWatch {
  readonly target: Target;
  readonly room: string;
  attempt = 0;
  stopped = false;
  retry: ReturnType<typeof setTimeout> | undefined;

  readonly #handlers: WatchHandlers;
  readonly #jobs = new Map<string, SeenJob>();
  /** Where a shared room is resumed. */
  #position: string | undefined;
  #live = false;
  #wasLive = false;
  #failures = 0;
  #replay: Replay | undefined;

  constructor(target: Target, handlers: WatchHandlers) {
    this.target = target;
    this.room = targetKey(target);
    this.#handlers = handlers;
  }

  begin(): number {
    clearTimeout(this.retry);
    return ++this.attempt;
  }

  suspend(): void {
    clearTimeout(this.retry);
    this.attempt++;
    this.#live = false;
    // Until this watch is caught up, whatever arrives counts as caught up on, also what another
    // watch's replay brings sooner.
    this.#replay = this.#wasLive
      ? { missed: this.#replay?.missed ?? 0, recovered: true, upTo: new Map() }
      : undefined;
    this.#report({ state: 'waiting' });
  }

  /** The `since` of the next subscription; undefined for a watch that begins now. */
  resumeFrom(): number | string | undefined {
    if (!this.#wasLive) return undefined;
    return isJob(this.target) ? this.#seenOf(this.target.jobId).last : this.#position;
  }

  accept(answer: Subscribed, resumed: boolean): void {
    this.#live = this.#wasLive = true;
    this.#failures = 0;
    if (answer.position !== undefined) this.#position = answer.position;
    this.#report({ state: 'live' });

    const latest = parseJobEvents(answer.latest);
    if (!resumed) {
      this.#acceptLatest(latest);
      return;
    }
    const unseen = latest.filter((event) => !this.#hasAllUpTo(event));
    this.#replay = {
      missed: this.#replay?.missed ?? 0,
      recovered: answer.recovered !== false,
      left: answer.replaying ?? 0,
      upTo: new Map(unseen.map(({ jobId, seq }) => [jobId, seq])),
    };
    this.#endReplayIfDone();
  }

  /** Returns after how many milliseconds to try again, or undefined where that is of no use. */
  refuse(error: JobcastError): number | undefined {
    if (!isTransient(error)) {
      this.#report({ state: 'refused', error });
      return undefined;
    }
    this.#report({ state: 'waiting', error });
    return Math.min(MAX_RETRY_MS, 1_000 * 2 ** this.#failures++) * (0.75 + Math.random() / 2);
  }

  receive(event: JobEvent, positions: Positions): void {
    if (!matches(this.target, event)) return;
    const unseen = this.#see(event);
    const replay = this.#replay;
    if (unseen && replay) replay.missed++;
    if (unseen) this.#tell((to) => to.onEvent?.(event, replay ? 'replay' : 'live'));
    // The answer has counted the events, and not what is lost.
    if (replay?.left !== undefined && (positions[this.room] !== undefined || isJob(this.target))) replay.left--;
    this.#advance(event.jobId, event.seq, positions);
  }

  receiveGap(gap: JobGap, positions: Positions): void {
    const { jobId, to } = gap;
    const known = this.#jobs.get(jobId);
    // A gap does not say whose job it is, but in which shared rooms it is.
    const ours = isJob(this.target) ? this.target.jobId === jobId : positions[this.room] !== undefined;
    if (!ours) return;
    if (to > (known?.last ?? 0)) {
      if (this.#live) this.#seenOf(jobId).last = to;
      this.#tell((handlers) => handlers.onGap?.(gap));
    }
    this.#advance(jobId, to, positions);
  }

  /** Notes an event. Returns whether it is new to this watch. */
  #see({ jobId, seq }: JobEvent): boolean {
    const job = this.#seenOf(jobId);
    if (seq <= job.last || job.early.has(seq)) {
      if (this.#live && seq > job.last) this.#reach(job, seq);
      return false;
    }
    // Before the gateway has answered, what comes has overtaken what is still to be replayed.
    if (this.#live) this.#reach(job, seq);
    else job.early.add(seq);
    return true;
  }

  /** Whether nothing of a job is to come any more: another watch on this connection may have brought it. */
  #hasAllUpTo({ jobId, seq }: JobEvent): boolean {
    const job = this.#jobs.get(jobId);
    if (!job) return false;
    return seq <= job.last || (job.early.has(seq) && job.early.size >= seq - job.last);
  }

  #reach(job: SeenJob, seq: number): void {
    job.last = seq;
    for (const early of job.early) if (early <= seq) job.early.delete(early);
  }

  #advance(jobId: string, seq: number, positions: Positions): void {
    if (!this.#live) return;
    const position = positions[this.room];
    if (position !== undefined) this.#position = position;
    const replay = this.#replay;
    if (!replay) return;
    if (seq >= (replay.upTo.get(jobId) ?? Infinity)) replay.upTo.delete(jobId);
    this.#endReplayIfDone();
  }

  #acceptLatest(latest: JobEvent[]): void {
    // Newest first on the wire, oldest first to the handlers like everything else.
    for (const event of latest.reverse()) {
      const job = this.#seenOf(event.jobId);
      const unseen = event.seq > job.last && !job.early.has(event.seq);
      // What came before is not this watch's: a resumed subscription must not bring it up.
      this.#reach(job, Math.max(job.last, event.seq));
      if (unseen) this.#tell((to) => to.onEvent?.(event, 'latest'));
    }
  }

  /** The count alone would not do: what another room has brought does not come again by this one. */
  #endReplayIfDone(): void {
    const replay = this.#replay;
    if (replay?.left === undefined || (replay.left > 0 && replay.upTo.size > 0)) return;
    this.#replay = undefined;
    const { missed, recovered } = replay;
    this.#tell((to) => to.onCaughtUp?.({ missed, recovered }));
  }

  #seenOf(jobId: string): SeenJob {
    const job = this.#jobs.get(jobId) ?? { last: 0, early: new Set<number>() };
    // Put back at the end, which makes the first key the job that has been silent for longest.
    this.#jobs.delete(jobId);
    this.#jobs.set(jobId, job);
    if (this.#jobs.size > MAX_JOBS_REMEMBERED) {
      for (const oldest of this.#jobs.keys()) {
        this.#jobs.delete(oldest);
        break;
      }
    }
    return job;
  }

  #report(status: WatchStatus): void {
    this.#tell((to) => to.onStatus?.(status));
  }

  #tell(call: (to: WatchHandlers) => void): void {
    if (!this.stopped) safely(() => call(this.#handlers));
  }
}

/** A handler that throws is reported like any uncaught error, and keeps no event from the others. */
export function safely(call: () => void): void {
  try {
    call();
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}
