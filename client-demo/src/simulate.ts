// Plays a backend: publishes a made-up job over HTTP. In an application this happens on a server.

export interface Simulation {
  jobId: string;
  userId?: string;
  fails: boolean;
}

const STEPS = [
  'Opening orders.csv',
  'Checking the columns',
  'Reading 1,240 rows',
  'Matching customers',
  'Matching products',
  'Converting currencies',
  'Adding up totals',
  'Writing the report',
  'Sending it off',
];

export async function simulate(url: string, { jobId, userId, fails }: Simulation): Promise<void> {
  const run = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
  let calls = 0;
  const publish = (kind: string, body: object) =>
    post(
      `${url}/api/jobs/${encodeURIComponent(jobId)}/${kind}`,
      userId === undefined ? body : { ...body, userId },
      `${run}-${calls++}`,
    );

  await publish('update', { status: 'queued', data: { file: 'orders.csv', bytes: 48_211 } });
  for (const [index, message] of STEPS.entries()) {
    await pause(350 + Math.random() * 500);
    await publish('progress', { progress: Math.round((index * 100) / STEPS.length), message });
    if (fails && index === 5) {
      await pause(600);
      await publish('error', { error: 'Row 817: no exchange rate for "XAU" on that day' });
      return;
    }
  }
  await pause(500);
  await publish('completed', { result: { report: 'orders.pdf', rows: 1240, rejected: 3 } });
}

export function randomJobId(): string {
  return `import-${Math.random().toString(36).slice(2, 7).padEnd(5, '0')}`;
}

async function post(url: string, body: object, key: string): Promise<void> {
  for (let failures = 0; ; failures++) {
    // After a failure nobody knows whether the event got through. The key makes it safe to send
    // it again: the gateway takes it once.
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
      body: JSON.stringify(body),
    }).catch(() => undefined);
    if (response?.ok) return;
    const worthRepeating = !response || response.status === 429 || response.status >= 500;
    if (!worthRepeating || failures >= 60) {
      throw new Error(await explain(response));
    }
    await pause(1_000);
  }
}

async function explain(response: Response | undefined): Promise<string> {
  if (!response) return 'The gateway cannot be reached.';
  const problem: unknown = await response.json().catch(() => undefined);
  if (typeof problem === 'object' && problem !== null && 'detail' in problem) {
    return String(problem.detail);
  }
  return `The gateway answered ${response.status}.`;
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
