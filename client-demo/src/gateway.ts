import { Jobcast } from './jobcast/client';

export const GATEWAY_URL = import.meta.env.VITE_JOBCAST_URL ?? 'http://127.0.0.1:3000';

// http://localhost:5173/?client=desk-3 goes by that name in the gateway's list of clients.
const clientId = new URLSearchParams(location.search).get('client') ?? undefined;

// Where this page gets its tokens, if the gateway asks for some.
const tokenUrl = import.meta.env.VITE_JOBCAST_TOKEN_URL;

async function fetchToken(url: string): Promise<string> {
  const answer = await fetch(url, { method: 'POST' });
  if (!answer.ok) throw new Error(`no token: ${answer.status}`);
  const { token } = (await answer.json()) as { token: string };
  return token;
}

// One connection for the whole page, and outside of React, which may mount components twice.
export const client = new Jobcast(GATEWAY_URL, { clientId, token: tokenUrl ? () => fetchToken(tokenUrl) : undefined });
