import { useEffect, useState } from 'react';
import { applyEvent, type Job } from './job';
import type { Jobcast } from './jobcast/client';
import type { JobcastError, JobEvent, JobGap } from './jobcast/protocol';
import type { Source } from './jobcast/watch';
import { throttle } from './throttle';

export interface LoggedEvent {
  event: JobEvent;
  /** `history`: asked for. The others: what the watch brought, and how. */
  source: Source | 'history';
}

export interface JobView {
  job?: Job;
  /** Oldest first: what is kept of the job, and everything since. */
  log: readonly LoggedEvent[];
  gaps: readonly JobGap[];
  loading: boolean;
  error?: JobcastError | undefined;
}

const MAX_LOG = 500;
const EMPTY: JobView = { log: [], gaps: [], loading: true };

/** One job: its history, and what happens to it from now on. */
export function useJob(client: Jobcast, jobId: string): JobView {
  const [view, setView] = useState<JobView & { jobId: string }>({ ...EMPTY, jobId });

  useEffect(() => {
    const bySeq = new Map<number, LoggedEvent>();
    let latest: JobView = EMPTY;
    let gone = false;

    const render = throttle(() => {
      const all = [...bySeq.values()].sort((a, b) => a.event.seq - b.event.seq);
      const log = all.slice(-MAX_LOG);
      for (const { event } of all.slice(0, -MAX_LOG)) bySeq.delete(event.seq);
      let job: Job | undefined;
      for (const { event } of log) job = applyEvent(job, event);
      setView({ ...latest, jobId, log, ...(job && { job }) });
    });
    const change = (changed: Partial<JobView>) => {
      latest = { ...latest, ...changed };
      render.call();
    };
    let live = false;
    let history: 'missing' | 'asked for' | 'there' = 'missing';
    const loadHistory = async () => {
      history = 'asked for';
      try {
        const events = await client.history(jobId);
        history = 'there';
        for (const event of events) {
          if (!bySeq.has(event.seq)) bySeq.set(event.seq, { event, source: 'history' });
        }
        if (!gone) change({ loading: false, error: undefined });
      } catch (error) {
        history = 'missing';
        // With the connection lost as well, it will be asked for again once that is back.
        if (!gone && live) change({ loading: false, error: error as JobcastError });
      }
    };

    const watch = client.watch(
      { jobId },
      {
        onEvent(event, source) {
          bySeq.set(event.seq, { event, source });
          render.call();
        },
        onGap: (gap) => change({ gaps: [...latest.gaps, gap] }),
        onStatus(status) {
          live = status.state === 'live';
          if (status.state === 'refused') change({ loading: false, error: status.error });
          // Asked for once the watch is on, so that no event can fall between the two.
          if (live && history === 'missing') void loadHistory();
        },
      },
    );

    return () => {
      gone = true;
      watch.stop();
      render.cancel();
    };
  }, [client, jobId]);

  return view.jobId === jobId ? view : EMPTY;
}
