import { useCallback, useSyncExternalStore } from 'react';
import type { Connection, Jobcast } from './jobcast/client';

export function useConnection(client: Jobcast): Connection {
  const subscribe = useCallback((changed: () => void) => client.onConnection(changed), [client]);
  return useSyncExternalStore(subscribe, () => client.connection);
}
