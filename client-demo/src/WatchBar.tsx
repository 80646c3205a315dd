import { useState, type FormEvent } from 'react';
import type { Target } from './jobcast/protocol';

type Kind = 'all' | 'user' | 'job';

const KINDS: Array<[Kind, string]> = [
  ['all', 'All jobs'],
  ['user', 'A user’s jobs'],
  ['job', 'One job'],
];

export function WatchBar({ target, onChoose }: { target: Target; onChoose: (target: Target) => void }) {
  const [kind, setKind] = useState<Kind>(kindOf(target));
  const [id, setId] = useState(idOf(target));

  const pick = (next: Kind) => {
    setKind(next);
    if (next === 'all') onChoose('all');
    else if (next !== kind) setId('');
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const trimmed = id.trim();
    onChoose(kind === 'job' ? { jobId: trimmed } : { userId: trimmed });
  };

  return (
    <form className="watch" onSubmit={submit}>
      <div className="kinds" role="group" aria-label="What to watch">
        {KINDS.map(([value, label]) => (
          <button
            key={value}
            type="button"
            data-testid={`watch-${value}`}
            aria-pressed={kind === value}
            onClick={() => pick(value)}
          >
            {label}
          </button>
        ))}
      </div>
      {kind !== 'all' && (
        <div className="which">
          <input
            key={kind}
            autoFocus={id === ''}
            data-testid="watch-id"
            aria-label={kind === 'job' ? 'Job id' : 'User id'}
            placeholder={kind === 'job' ? 'Job id, such as build-42' : 'User id, such as demo'}
            autoCapitalize="none"
            autoComplete="off"
            spellCheck={false}
            required
            pattern=".*\S.*"
            value={id}
            onChange={(event) => setId(event.target.value)}
          />
          <button data-testid="watch" className="primary" type="submit">
            Watch
          </button>
        </div>
      )}
    </form>
  );
}

function kindOf(target: Target): Kind {
  if (target === 'all') return 'all';
  return 'jobId' in target ? 'job' : 'user';
}

function idOf(target: Target): string {
  if (target === 'all') return '';
  if ('jobId' in target) return target.jobId;
  return 'userId' in target ? target.userId : '';
}
