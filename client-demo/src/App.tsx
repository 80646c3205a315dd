import { useState } from 'react';
import { ConnectionBadge } from './ConnectionBadge';
import { count } from './format';
import { client, GATEWAY_URL } from './gateway';
import type { Job, Phase } from './job';
import type { Connection } from './jobcast/client';
import { targetKey, type Target } from './jobcast/protocol';
import { JobDetail } from './JobDetail';
import { JobRow } from './JobRow';
import { Notice } from './Notice';
import { randomJobId, simulate } from './simulate';
import { useConnection } from './useConnection';
import { useJobs, type Jobs } from './useJobs';
import { useTarget } from './useTarget';
import { WatchBar } from './WatchBar';

export function App() {
  const connection = useConnection(client);
  const [target, setTarget] = useTarget();
  const key = targetKey(target);

  return (
    <div className="page">
      <header className="top">
        <span className="brand">
          <img src="/icon.svg" alt="" width="28" height="28" />
          <span>
            Jobcast <span className="quiet">client demo</span>
          </span>
        </span>
        <ConnectionBadge connection={connection} url={GATEWAY_URL} />
      </header>
      <WatchBar key={`watch ${key}`} target={target} onChoose={setTarget} />
      <Board key={`board ${key}`} target={target} connection={connection} />
    </div>
  );
}

function Board({ target, connection }: { target: Target; connection: Connection }) {
  const jobs = useJobs(client, target);
  const [selected, setSelected] = useState<string>();
  const [problem, setProblem] = useState<string>();
  const refused = connection.state === 'refused' || jobs.status.state === 'refused';

  const play = (fails: boolean) => {
    setProblem(undefined);
    simulate(GATEWAY_URL, { ...simulatedJob(target), fails }).catch((error: unknown) => {
      setProblem(error instanceof Error ? error.message : String(error));
    });
  };

  return (
    <main className={selected === undefined ? 'board' : 'board with-detail'}>
      <section className="list" aria-label="Jobs">
        <div className="list-head">
          <div>
            <h1>{heading(target)}</h1>
            <Tally jobs={jobs.jobs} />
          </div>
          <div className="actions">
            <button data-testid="simulate" className="primary" onClick={() => play(false)}>
              Simulate a job
            </button>
            <button data-testid="simulate-failure" onClick={() => play(true)}>
              One that fails
            </button>
          </div>
        </div>

        <Notices
          jobs={jobs}
          connection={connection}
          problem={problem}
          onDismiss={() => setProblem(undefined)}
        />

        {jobs.jobs.length > 0 ? (
          <ul className="jobs" aria-busy={connection.state !== 'connected'}>
            {jobs.jobs.map((job) => (
              <JobRow
                key={job.jobId}
                job={job}
                selected={job.jobId === selected}
                onSelect={setSelected}
              />
            ))}
          </ul>
        ) : (
          !refused && <Empty target={target} waiting={jobs.status.state === 'waiting'} />
        )}
      </section>

      {selected !== undefined && (
        <JobDetail
          key={selected}
          client={client}
          jobId={selected}
          onClose={() => setSelected(undefined)}
        />
      )}
    </main>
  );
}

function Notices({
  jobs,
  connection,
  problem,
  onDismiss,
}: {
  jobs: Jobs;
  connection: Connection;
  problem: string | undefined;
  onDismiss: () => void;
}) {
  const [dismissed, setDismissed] = useState<object>();
  const { caughtUp, gaps, status } = jobs;
  const lost = gaps.at(-1);
  const offline = connection.state === 'reconnecting';

  return (
    <div className="notices" aria-live="polite">
      {problem !== undefined && (
        <Notice kind="bad" testId="problem" onDismiss={onDismiss}>
          {problem}
        </Notice>
      )}
      {connection.state === 'refused' && (
        <Notice kind="bad" testId="refused">
          <b>The gateway refuses the connection.</b> {connection.error.message}
        </Notice>
      )}
      {status.state === 'refused' && (
        <Notice kind="bad" testId="refused">
          <b>The gateway refuses this watch.</b> {status.error.message}
        </Notice>
      )}
      {offline && (
        <Notice kind="warn" testId="offline">
          <b>Connection lost.</b> What happens until it is back will be caught up on.
        </Notice>
      )}
      {!offline && caughtUp && caughtUp !== dismissed && (
        <Notice
          kind={caughtUp.recovered ? 'good' : 'warn'}
          testId="caught-up"
          data={{ 'data-missed': caughtUp.missed, 'data-recovered': caughtUp.recovered }}
          onDismiss={() => setDismissed(caughtUp)}
        >
          {caughtUp.missed === 0 ? (
            <>
              <b>Back online.</b> Nothing happened in between.
            </>
          ) : (
            <>
              <b>Caught up: {count(caughtUp.missed, 'event')}</b>{' '}
              {caughtUp.recovered
                ? 'replayed, none lost.'
                : 'replayed; others are no longer kept.'}
            </>
          )}
        </Notice>
      )}
      {lost && lost !== dismissed && (
        <Notice kind="warn" testId="gap" onDismiss={() => setDismissed(lost)}>
          <b>A gap in {lost.jobId}.</b> {describeGap(lost.from, lost.to)}
        </Notice>
      )}
    </div>
  );
}

const PHASES: Array<[Phase, string]> = [
  ['waiting', 'waiting'],
  ['running', 'running'],
  ['completed', 'completed'],
  ['failed', 'failed'],
];

function Tally({ jobs }: { jobs: readonly Job[] }) {
  return (
    <p className="tally">
      {jobs.length === 0
        ? 'No jobs yet'
        : PHASES.map(([phase, label]) => {
            const number = jobs.filter((job) => job.phase === phase).length;
            return (
              number > 0 && (
                <span key={phase} data-phase={phase}>
                  {number} {label}
                </span>
              )
            );
          })}
    </p>
  );
}

function Empty({ target, waiting }: { target: Target; waiting: boolean }) {
  const jobId = target !== 'all' && 'jobId' in target ? target.jobId : 'build-42';
  const owner = target !== 'all' && 'userId' in target ? `, "userId": "${target.userId}"` : '';
  return (
    <div className="empty" data-testid="empty">
      <p className="empty-title">{waiting ? 'Waiting for the gateway…' : 'Nothing here yet'}</p>
      <p>
        {waiting
          ? 'The list fills as soon as it answers.'
          : 'The first event shows up here by itself. Simulate a job, or publish one:'}
      </p>
      {!waiting && (
        <pre>
          {`curl ${GATEWAY_URL}/api/jobs/${jobId}/progress \\\n  -H 'Content-Type: application/json' \\\n  -d '{"progress": 40, "message": "Linking"${owner}}'`}
        </pre>
      )}
    </div>
  );
}

function heading(target: Target): string {
  if (target === 'all') return 'All jobs';
  if ('jobId' in target) return `Job ${target.jobId}`;
  return `Jobs of ${'userId' in target ? target.userId : target.tenantId}`;
}

function simulatedJob(target: Target): { jobId: string; userId?: string } {
  if (target === 'all' || 'tenantId' in target) return { jobId: randomJobId(), userId: 'demo' };
  return 'jobId' in target ? target : { jobId: randomJobId(), userId: target.userId };
}

function describeGap(from: number, to: number): string {
  // Numbers start at the Unix time in milliseconds: a span from nothing to there says nothing.
  const missing = to - from + 1;
  return missing > 1_000_000
    ? 'Earlier events are no longer kept.'
    : `${count(missing, 'event')} can no longer be replayed.`;
}
