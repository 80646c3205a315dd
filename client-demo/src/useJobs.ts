import { useEffect, useState } from 'react';
import { applyEvent, isFinished, type Job } from './job';
import type { Jobcast } from './jobcast/client';
import { targetKey, type JobGap, type Target } from './jobcast/protocol';
import type { CaughtUp, WatchStatus } from './jobcast/watch';
import { throttle } from './throttle';

export interface Jobs {
  /** The job that turned up last comes first; it keeps its place from then on. */
  jobs: readonly Job[];
  status: WatchStatus;
  gaps: readonly JobGap[];
  /** How the last reconnect went. */
  caughtUp?: CaughtUp;
}

const MAX_JOBS = 200;
const MAX_GAPS = 20;
const EMPTY: Jobs = { jobs: [], status: { state: 'waiting' }, gaps: [] };

/** Watches a job, a user's jobs, or all jobs for as long as the component is there. */
export function useJobs(client: Jobcast, target: Target): Jobs {
  const key = targetKey(target);
  const [view, setView] = useState<Jobs & { key: string }>({ ...EMPTY, key });

  useEffect(() => {
    // A Map and not an object: a job may be called __proto__.
    const jobs = new Map<string, Job>();
    let latest: Jobs = EMPTY;
    const render = throttle(() => {
      setView({ ...latest, key, jobs: [...jobs.values()].reverse() });
    });
    const change = (changed: Partial<Jobs>) => {
      latest = { ...latest, ...changed };
      render.call();
    };

    const watch = client.watch(target, {
      onEvent(event) {
        jobs.set(event.jobId, applyEvent(jobs.get(event.jobId), event));
        if (jobs.size > MAX_JOBS) jobs.delete(leastWanted(jobs));
        render.call();
      },
      onGap: (gap) => change({ gaps: [...latest.gaps, gap].slice(-MAX_GAPS) }),
      onCaughtUp: (caughtUp) => change({ caughtUp }),
      onStatus: (status) => change({ status }),
    });

    return () => {
      watch.stop();
      render.cancel();
    };
    // The key says all there is to know of the target, which may be a new object at every render.
  }, [client, key]);

  return view.key === key ? view : EMPTY;
}

function leastWanted(jobs: Map<string, Job>): string {
  let oldest = '';
  for (const job of jobs.values()) {
    if (isFinished(job)) return job.jobId;
    oldest ||= job.jobId;
  }
  return oldest;
}
