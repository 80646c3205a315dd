// For whoever has no jobs yet: a command to copy, and a job that plays itself.

import { isSignedIn } from './account.js';
import { base, describe, publish, randomName } from './api.js';
import { $, setText } from './dom.js';

export function writeCurl() {
  const lines = [
    `curl -X POST ${new URL('api/jobs/hello/progress', base)}`,
    // Never the credential itself: who copies the command may paste it anywhere.
    ...(isSignedIn() ? ['-H "Authorization: Bearer $JOBCAST_API_KEY"'] : []),
    "-H 'Content-Type: application/json'",
    `-d '{"progress": 42, "message": "Hello, Jobcast"}'`,
  ];
  setText($('curl'), lines.join(' \\\n  '));
}

export function startFirstSteps() {
  // Browsers offer the clipboard to secure origins only.
  $('copy').hidden = !navigator.clipboard;
  $('copy').addEventListener('click', copyCurl);
}

async function copyCurl() {
  try {
    await navigator.clipboard.writeText($('curl').textContent);
    setText($('copy'), 'Copied');
  } catch {
    setText($('copy'), 'Not allowed');
  }
  setTimeout(() => setText($('copy'), 'Copy'), 2_000);
}

// ---- The sample job ----

const SAMPLE_STEPS = [
  [4, 'Opening orders-2024.csv'],
  [13, 'Reading rows 1 to 1,600'],
  [27, 'Reading rows 1,601 to 3,400'],
  [41, 'Reading rows 3,401 to 5,100'],
  [58, 'Checking addresses'],
  [72, 'Checking prices'],
  [86, 'Writing to the warehouse'],
  [97, 'Counting once more'],
];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Tells whether it got through; what went wrong stands beside the form's button.
export async function runSample() {
  const job = `sample-${randomName().slice(0, 5)}`;
  const say = (kind, event) => publish(job, kind, JSON.stringify(event));
  setText($('sample-error'), '');
  try {
    await say('update', { status: 'queued', data: { file: 'orders-2024.csv' }, userId: 'dashboard' });
    for (const [progress, message] of SAMPLE_STEPS) {
      await pause(700);
      await say('progress', { progress, message });
    }
    await pause(700);
    await say('completed', { result: { rows: 5100, rejected: 3 } });
    return true;
  } catch (error) {
    setText($('sample-error'), describe(error));
    return false;
  }
}
