import { useEffect, useRef, type ReactNode } from 'react';
import { clip, clock, count, describe, percent, pretty, statusLabel } from './format';
import type { Jobcast } from './jobcast/client';
import type { JobEvent } from './jobcast/protocol';
import { Notice } from './Notice';
import { Progress } from './Progress';
import { useJob, type LoggedEvent } from './useJob';

interface Props {
  client: Jobcast;
  jobId: string;
  onClose: () => void;
}

export function JobDetail({ client, jobId, onClose }: Props) {
  const { job, log, loading, error, gaps } = useJob(client, jobId);
  const title = useRef<HTMLHeadingElement>(null);

  useEffect(() => {
    title.current?.focus({ preventScroll: true });
    const close = (event: KeyboardEvent) => {
      if (event.key === 'Escape') onClose();
    };
    addEventListener('keydown', close);
    return () => removeEventListener('keydown', close);
    // Once, when the panel opens: a new onClose at every render must not pull the focus back.
  }, []);

  return (
    <aside className="detail" data-testid="detail" data-job={jobId} aria-label={`Job ${jobId}`}>
      <div className="detail-head">
        <h2 ref={title} tabIndex={-1}>
          {jobId}
        </h2>
        <button className="plain" aria-label="Close" data-testid="close-detail" onClick={onClose}>
          ×
        </button>
      </div>

      {job && (
        <>
          <Progress job={job} />
          <dl className="facts">
            <Fact name="Status">
              <span className="status" data-phase={job.phase}>
                {statusLabel(job.status)}
              </span>
            </Fact>
            {job.userId !== undefined && <Fact name="User">{job.userId}</Fact>}
            {job.tenantId !== undefined && <Fact name="Tenant">{job.tenantId}</Fact>}
            <Fact name="Updated">
              <time dateTime={job.timestamp}>{clock(job.timestamp)}</time>
            </Fact>
          </dl>
          {job.error !== undefined && (
            <Block name="Error" bad>
              {clip(job.error)}
            </Block>
          )}
          {job.result !== undefined && job.result !== null && (
            <Block name="Result">{pretty(job.result)}</Block>
          )}
          {job.data !== undefined && job.data !== null && (
            <Block name="Data">{pretty(job.data)}</Block>
          )}
        </>
      )}

      <div className="history-head">
        <h3>History</h3>
        <span className="quiet">{loading ? 'loading…' : `${count(log.length, 'event')}, newest first`}</span>
      </div>
      {error && (
        <Notice kind="bad" testId="history-error">
          {error.message}
        </Notice>
      )}
      {gaps.length > 0 && <p className="quiet">Some events in between are no longer kept.</p>}
      <ol className="history" data-testid="history" data-loading={loading}>
        {log.toReversed().map((entry) => (
          <HistoryEntry key={entry.event.seq} entry={entry} />
        ))}
      </ol>
    </aside>
  );
}

function HistoryEntry({ entry: { event, source } }: { entry: LoggedEvent }) {
  const text = describe(event);
  return (
    <li
      data-testid="history-event"
      data-event={event.event}
      data-seq={event.seq}
      data-source={source}
      title={`seq ${event.seq}`}
    >
      <time dateTime={event.timestamp}>{clock(event.timestamp)}</time>
      <span className="what">
        <span className="kind">{kind(event)}</span>
        {source === 'replay' && <span className="replayed">caught up</span>}
        {text !== '' && <bdi>{text}</bdi>}
      </span>
    </li>
  );
}

function kind(event: JobEvent): string {
  return event.event === 'job:progress' ? percent(event.progress) : statusLabel(event.status);
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Block({ name, bad = false, children }: { name: string; bad?: boolean; children: string }) {
  return (
    <section className={bad ? 'block bad' : 'block'}>
      <h3>{name}</h3>
      <pre data-testid={`detail-${name.toLowerCase()}`} tabIndex={0}>
        {children}
      </pre>
    </section>
  );
}
