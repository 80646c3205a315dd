import { useCallback, useSyncExternalStore } from 'react';
import type { Target } from './jobcast/protocol';

/** What is watched stands in the address (#all, #user/ada, #job/build-42), to reload and to share. */
export function useTarget(): [Target, (target: Target) => void] {
  const hash = useSyncExternalStore(subscribe, () => location.hash);
  const choose = useCallback((target: Target) => {
    location.hash = format(target);
  }, []);
  return [parse(hash), choose];
}

function subscribe(changed: () => void): () => void {
  addEventListener('hashchange', changed);
  return () => removeEventListener('hashchange', changed);
}

// What an id may look like is for the gateway to say.
function parse(hash: string): Target {
  const [, kind, encoded] = /^#(job|user)\/(.+)$/.exec(hash) ?? [];
  if (encoded === undefined) return 'all';
  const id = decode(encoded);
  return kind === 'job' ? { jobId: id } : { userId: id };
}

function format(target: Target): string {
  if (target === 'all') return 'all';
  if ('jobId' in target) return `job/${encodeURIComponent(target.jobId)}`;
  return 'userId' in target ? `user/${encodeURIComponent(target.userId)}` : 'all';
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
