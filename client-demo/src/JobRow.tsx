import { memo } from 'react';
import { clip, clock, oneLine, statusLabel } from './format';
import type { Job } from './job';
import { Progress } from './Progress';

interface Props {
  job: Job;
  selected: boolean;
  onSelect: (jobId: string) => void;
}

export const JobRow = memo(function JobRow({ job, selected, onSelect }: Props) {
  return (
    <li
      className="job"
      data-testid="job"
      data-job={job.jobId}
      data-status={job.status}
      data-progress={job.progress}
      data-selected={selected}
    >
      <div className="job-head">
        <button
          className="job-id"
          aria-pressed={selected}
          title={job.jobId}
          onClick={() => onSelect(job.jobId)}
        >
          {job.jobId}
        </button>
        {job.userId !== undefined && <span className="owner">{job.userId}</span>}
        <span className="status" data-phase={job.phase}>
          {statusLabel(job.status)}
        </span>
      </div>
      <Progress job={job} />
      <div className="job-foot">
        <JobText job={job} />
        <time dateTime={job.timestamp}>{clock(job.timestamp)}</time>
      </div>
    </li>
  );
});

function JobText({ job }: { job: Job }) {
  if (job.phase === 'failed') {
    return (
      <bdi className="text bad" data-testid="job-error">
        {clip(job.error ?? '', 300)}
      </bdi>
    );
  }
  if (job.phase === 'completed') {
    return (
      <bdi className="text" data-testid="job-result">
        {job.result === undefined || job.result === null ? 'Done' : oneLine(job.result)}
      </bdi>
    );
  }
  return (
    <bdi className="text" data-testid="job-message">
      {job.message === undefined ? oneLine(job.data ?? '') : clip(job.message, 300)}
    </bdi>
  );
}
