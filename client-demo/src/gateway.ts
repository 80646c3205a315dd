import { Jobcast } from './jobcast/client';

export const GATEWAY_URL = import.meta.env.VITE_JOBCAST_URL ?? 'http://127.0.0.1:3000';

// http://localhost:5173/?client=desk-3 goes by that name in the gateway's list of clients.
const clientId = new URLSearchParams(location.search).get('client') ?? undefined;

// One connection for the whole page, and outside of React, which may mount components twice.
export const client = new Jobcast(GATEWAY_URL, { clientId });
