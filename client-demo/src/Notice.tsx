import type { ReactNode } from 'react';

interface Props {
  kind: 'good' | 'warn' | 'bad';
  testId: string;
  data?: Record<`data-${string}`, string | number | boolean>;
  children: ReactNode;
  onDismiss?: () => void;
}

export function Notice({ kind, testId, data, children, onDismiss }: Props) {
  return (
    <div className="notice" data-kind={kind} data-testid={testId} {...data}>
      <p>{children}</p>
      {onDismiss && (
        <button className="plain" aria-label="Dismiss" onClick={onDismiss}>
          ×
        </button>
      )}
    </div>
  );
}
