import type { Connection } from './jobcast/client';

const LABELS: Record<Connection['state'], string> = {
  connecting: 'Connecting',
  connected: 'Connected',
  reconnecting: 'Reconnecting',
  refused: 'Refused',
  closed: 'Closed',
};

export function ConnectionBadge({ connection, url }: { connection: Connection; url: string }) {
  const error = 'error' in connection ? connection.error?.message : undefined;
  return (
    <span
      className="connection"
      role="status"
      data-testid="connection"
      data-state={connection.state}
      title={error ? `${url}: ${error}` : url}
    >
      <span className="dot" aria-hidden="true" />
      {LABELS[connection.state]}
      <span className="host">{url.replace(/^https?:\/\//, '')}</span>
    </span>
  );
}
