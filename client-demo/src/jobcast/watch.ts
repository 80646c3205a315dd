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

// Replaying from a little before the last known time costs nothing, since repeats are dropped,
// and covers events of other jobs that were stamped by another node's clock.
const OVERLAP_MS = 5_000;
const MAX_JOBS_REMEMBERED = 10_000;
const MAX_RETRY_MS = 30_000;

interface Replay extends CaughtUp {
  /** The last number of each job that is still to be replayed; unknown until the gateway has answered. */
  upTo?: Map<string, number>;
}

export class ActiveWatch {
  readonly target: Target;
  readonly room: string;
  attempt = 0;
  stopped = false;
  retry: ReturnType<typeof setTimeout> | undefined;

  readonly #handlers: WatchHandlers;
  readonly #seen = new Map<string, SeenSeqs>();
  readonly #gapsOfUnknownJobs = new Map<string, JobGap>();
  #newestTime: number | undefined;
  #newestTimeInReplay = 0;
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
      ? { missed: this.#replay?.missed ?? 0, recovered: true }
      : undefined;
    this.#newestTimeInReplay = 0;
    this.#report({ state: 'waiting' });
  }

  /** The `since` of the next subscription; undefined for a watch that begins now. */
  resumeFrom(): number | undefined {
    if (!this.#wasLive) return undefined;
    if (isJob(this.target)) return this.#seenOf(this.target.jobId).completeUpTo;
    return Math.max(0, (this.#newestTime ?? 0) - OVERLAP_MS);
  }

  accept(answer: Subscribed, since: number | undefined): void {
    this.#live = this.#wasLive = true;
    this.#failures = 0;
    this.#report({ state: 'live' });

    const latest = parseJobEvents(answer.latest);
    if (since === undefined) {
      this.#acceptLatest(latest);
      return;
    }
    this.#replay = {
      missed: this.#replay?.missed ?? 0,
      recovered: answer.recovered !== false,
      upTo: answer.replaying ? this.#toReplay(latest, since) : new Map(),
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

  receive(event: JobEvent): void {
    if (!matches(this.target, event)) return;
    const unseen = this.#seenOf(event.jobId).add(event.seq);
    const heldGap = this.#gapsOfUnknownJobs.get(event.jobId);
    if (heldGap) {
      this.#gapsOfUnknownJobs.delete(event.jobId);
      this.receiveGap(heldGap);
    }

    const replay = this.#replay;
    const time = Date.parse(event.timestamp);
    // A replay goes through one job after the other. If it is cut short, the next one has to
    // begin where this one did, not at the newest event that came through; nor at one that
    // another watch on this connection brought before this watch was back.
    if (replay) this.#newestTimeInReplay = Math.max(this.#newestTimeInReplay, time);
    else if (this.#live) this.#newestTime = Math.max(this.#newestTime ?? 0, time);

    const upTo = replay?.upTo;
    const end = upTo?.get(event.jobId);
    // Not a matter of counting: another watch's replay may bring the same events, and live ones
    // of other jobs come in between.
    const replayed = replay !== undefined && (!upTo || (end !== undefined && event.seq <= end));
    if (unseen) {
      if (replayed) replay.missed++;
      this.#tell((to) => to.onEvent?.(event, replayed ? 'replay' : 'live'));
    }
    if (end !== undefined && event.seq >= end) {
      upTo?.delete(event.jobId);
      this.#endReplayIfDone();
    }
  }

  receiveGap(gap: JobGap): void {
    if (isJob(this.target)) {
      if (this.target.jobId !== gap.jobId) return;
    } else if (this.target !== 'all' && !this.#seen.has(gap.jobId)) {
      // A gap does not say whose job it is; that of a job not heard of yet waits for its events.
      this.#gapsOfUnknownJobs.set(gap.jobId, gap);
      return;
    }
    this.#seenOf(gap.jobId).add(gap.from, gap.to);
    this.#tell((to) => to.onGap?.(gap));
  }

  #acceptLatest(latest: JobEvent[]): void {
    if (isJob(this.target) && latest.length === 0) this.#seenOf(this.target.jobId).add(0);
    this.#newestTime ??= 0;
    // Newest first on the wire, oldest first to the handlers like everything else.
    for (const event of latest.reverse()) {
      const seen = this.#seenOf(event.jobId);
      const unseen = seen.add(event.seq);
      // What came before is not this watch's: a resumed subscription must not bring it up.
      seen.add(0, event.seq);
      this.#newestTime = Math.max(this.#newestTime, Date.parse(event.timestamp));
      if (unseen) this.#tell((to) => to.onEvent?.(event, 'latest'));
    }
  }

  #toReplay(latest: JobEvent[], since: number): Map<string, number> {
    const active = latest.filter(
      ({ timestamp }) => isJob(this.target) || Date.parse(timestamp) >= since,
    );
    return new Map(active.map(({ jobId, seq }) => [jobId, seq]));
  }

  #endReplayIfDone(): void {
    const replay = this.#replay;
    if (replay?.upTo?.size !== 0) return;
    this.#replay = undefined;
    this.#newestTime = Math.max(this.#newestTime ?? 0, this.#newestTimeInReplay);
    const { missed, recovered } = replay;
    this.#tell((to) => to.onCaughtUp?.({ missed, recovered }));
  }

  #seenOf(jobId: string): SeenSeqs {
    const seen = this.#seen.get(jobId) ?? new SeenSeqs();
    // Put back at the end, which makes the first key the job that has been silent for longest.
    this.#seen.delete(jobId);
    this.#seen.set(jobId, seen);
    if (this.#seen.size > MAX_JOBS_REMEMBERED) {
      for (const oldest of this.#seen.keys()) {
        this.#seen.delete(oldest);
        break;
      }
    }
    return seen;
  }

  #report(status: WatchStatus): void {
    this.#tell((to) => to.onStatus?.(status));
  }

  #tell(call: (to: WatchHandlers) => void): void {
    if (!this.stopped) safely(() => call(this.#handlers));
  }
}

/**
 * The numbers of one job that have been seen, as ranges. A single highest number would not do: on a
 * shared connection a live event, there for another watch, may overtake this watch's replay, and
 * the replayed events below it must still be let through.
 */
class SeenSeqs {
  #ranges: Array<{ from: number; to: number }> = [];

  /** The end of the first unbroken range: everything up to here has been seen. */
  get completeUpTo(): number {
    return this.#ranges[0]?.to ?? 0;
  }

  /** Returns whether any of them is new. */
  add(from: number, to: number = from): boolean {
    if (this.#ranges.some((range) => range.from <= from && to <= range.to)) return false;
    const merged = { from, to };
    const apart = this.#ranges.filter((range) => {
      if (range.to < from - 1 || to + 1 < range.from) return true;
      merged.from = Math.min(merged.from, range.from);
      merged.to = Math.max(merged.to, range.to);
      return false;
    });
    this.#ranges = [...apart, merged].sort((a, b) => a.from - b.from);
    return true;
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
