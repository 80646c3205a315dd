import { percent } from './format';
import type { Job } from './job';

export function Progress({ job }: { job: Job }) {
  const { progress, phase, jobId } = job;
  return (
    <div className="progress" data-phase={phase}>
      <div
        className="bar"
        role="progressbar"
        aria-label={`Progress of ${jobId}`}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={progress}
      >
        <div className="fill" style={{ transform: `scaleX(${(progress ?? 0) / 100})` }} />
      </div>
      <span className="percent">{progress !== undefined && percent(progress)}</span>
    </div>
  );
}
