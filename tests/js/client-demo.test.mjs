// The client demo in a real browser, against a real gateway.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { launchBrowser } from './support/browser.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { anyPort, run, startProcess, temporaryFolder } from './support/processes.mjs';
import { eventually, uniqueId } from './support/waiting.mjs';

const PATIENCE_MS = 20_000;
const DEFAULT_PORT = 5173;

const demo = resolve(fileURLToPath(import.meta.url), '../../../client-demo');
const vite = join(demo, 'node_modules/vite/bin/vite.js');

let browser;
let web;
let origin;
let gateway;
let home;
let page;
let faults;
const api = httpClient(() => gateway.url);

/** Starts a gateway: the first one anywhere, and each later one on its data and, unless told otherwise, its port. */
async function start({ env, listen = home?.listen } = {}) {
  // The default origin stays untold, so that the demo is seen to work with the defaults.
  const origins = origin.endsWith(`:${DEFAULT_PORT}`) ? {} : { JOBCAST_CORS__ORIGINS: JSON.stringify([origin]) };
  gateway = await startGateway({ store: 'embedded', path: home?.path, listen, env: { ...origins, ...env } });
  home ??= { listen: `127.0.0.1:${gateway.port}`, path: gateway.path };
}

/**
 * Runs `work` on a gateway with the same data that the pages do not know the address of, while theirs is
 * gone: what they miss is then exactly what happens in there.
 */
async function outOfSight(work, { env } = {}) {
  await start({ listen: '127.0.0.1:0', env });
  await work();
  assert.equal(await gateway.stop(), 0, gateway.stderr());
}

function canListen(port, host) {
  return new Promise((settle) => {
    const server = createServer();
    server.once('error', (error) => settle(error.code === 'EADDRNOTAVAIL' || error.code === 'EAFNOSUPPORT'));
    server.listen({ port, host }, () => server.close(() => settle(true)));
  });
}

async function newPage({ prepare } = {}) {
  const context = await browser.newContext();
  const opened = await context.newPage();
  opened.setDefaultTimeout(PATIENCE_MS);
  opened.on('pageerror', (error) => faults.push(error.message));
  opened.on('dialog', (dialog) => {
    faults.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  await prepare?.(opened);
  return opened;
}

/** As where a proxy refuses the upgrade. */
function withoutWebSocket(on) {
  return on.addInitScript(() => {
    window.WebSocket = class {
      constructor() {
        setTimeout(() => this.onerror(new Event('error')));
      }
      close() {}
    };
  });
}

async function watch(hash, on = page) {
  await on.goto(`${origin}/${hash}`);
  await connection('connected', on);
  await on.locator('[aria-busy="false"], [data-testid="empty"] pre').waitFor();
  return on;
}

const connection = (state, on = page) => on.locator(`[data-testid="connection"][data-state="${state}"]`).waitFor();

function row(jobId, { status, progress } = {}, on = page) {
  const more = [
    ['data-status', status],
    ['data-progress', progress],
  ]
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `[${name}="${value}"]`);
  return on.locator(`[data-testid="job"][data-job="${jobId}"]${more.join('')}`);
}

/** Waits until the filled part of a job's bar is as wide as its progress says. */
function drawnTo(jobId, progress) {
  return page.waitForFunction(
    ([id, share]) => {
      const bar = document.querySelector(`[data-job="${id}"] [role="progressbar"]`);
      const [whole, filled] = [bar, bar?.firstElementChild].map((node) => node?.getBoundingClientRect().width);
      return Math.abs(filled / whole - share) < 0.01;
    },
    [jobId, progress / 100],
  );
}

async function caughtUp(on = page) {
  const notice = on.getByTestId('caught-up');
  await notice.waitFor();
  return {
    missed: Number(await notice.getAttribute('data-missed')),
    recovered: (await notice.getAttribute('data-recovered')) === 'true',
    text: await notice.textContent(),
  };
}

const shownHistory = (on = page) =>
  on.getByTestId('history-event').evaluateAll((entries) =>
    entries.map(({ dataset }) => ({ seq: Number(dataset.seq), event: dataset.event, source: dataset.source })).reverse(),
  );

/** Waits until the open job shows exactly what the gateway has of it. */
async function showsHistoryOf(jobId, on = page) {
  const kept = await api.history(jobId);
  const expected = JSON.stringify(kept.map(({ seq, event }) => ({ seq, event })));
  return eventually(async () => {
    const shown = await shownHistory(on);
    return JSON.stringify(shown.map(({ seq, event }) => ({ seq, event }))) === expected && shown;
  }, `the page to show ${expected}`);
}

before(async () => {
  if (!existsSync(vite)) {
    const installed = await run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: demo });
    assert.equal(installed.code, 0, installed.stderr);
  }
  const free = (await canListen(DEFAULT_PORT, '127.0.0.1')) && (await canListen(DEFAULT_PORT, '::1'));
  const port = free ? DEFAULT_PORT : await anyPort();
  origin = `http://localhost:${port}`;
  await start();

  const built = temporaryFolder('client-demo');
  const env = { ...process.env, NO_COLOR: '1', VITE_JOBCAST_URL: gateway.url };
  const build = await run(process.execPath, [vite, 'build', '--outDir', built, '--emptyOutDir'], { cwd: demo, env });
  assert.equal(build.code, 0, build.stdout + build.stderr);
  web = await startProcess(process.execPath, [vite, 'preview', '--outDir', built, '--port', String(port), '--strictPort'], {
    cwd: demo,
    env,
    ready: (line) => line.includes('http://localhost:'),
  });

  browser = await launchBrowser();
});

after(async () => {
  await browser?.close();
  await web?.stop();
  if (gateway) assert.equal(await gateway.stop(), 0, gateway.stderr());
});

beforeEach(async () => {
  faults = [];
  page = await newPage();
});

afterEach(async () => {
  await Promise.all(browser.contexts().map((context) => context.close()));
  assert.deepEqual(faults, []);
});

it('passes its own type check', async () => {
  const checked = await run('npm', ['run', '--silent', 'typecheck'], { cwd: demo });
  assert.equal(checked.code, 0, checked.stdout + checked.stderr);
});

describe('watching', () => {
  it('moves the bar of a job, and shows its result', async () => {
    const jobId = uniqueId('build');
    await watch('#all');
    await api.update(jobId, { status: 'queued', userId: 'ada' });
    await row(jobId, { status: 'queued' }).waitFor();

    await api.publish(jobId, 'progress', { progress: 40, message: 'Linking' });
    await row(jobId, { status: 'in_progress', progress: 40 }).waitFor();
    await drawnTo(jobId, 40);
    assert.equal(await row(jobId).getByTestId('job-message').textContent(), 'Linking');
    assert.equal(await row(jobId).getByRole('progressbar').getAttribute('aria-valuenow'), '40');

    await api.publish(jobId, 'progress', { progress: 72.5 });
    await row(jobId, { progress: 72.5 }).waitFor();
    await drawnTo(jobId, 72.5);

    await api.completed(jobId, { result: { artifact: 'app.tar.gz', size: 48211 } });
    await row(jobId, { status: 'completed', progress: 100 }).waitFor();
    await drawnTo(jobId, 100);
    assert.match(await row(jobId).getByTestId('job-result').textContent(), /app\.tar\.gz.*48211/);
  });

  it('shows what went wrong with a job', async () => {
    const jobId = uniqueId('mail');
    await watch('#all');
    await api.progress(jobId, 70);
    await api.error(jobId, 'mailbox unavailable');
    await row(jobId, { status: 'failed', progress: 70 }).waitFor();
    assert.equal(await row(jobId).getByTestId('job-error').textContent(), 'mailbox unavailable');
  });

  it('shows how the jobs stand that were there before', async () => {
    const [done, failed] = [uniqueId('done'), uniqueId('failed')];
    await api.completed(done, { result: 'fine' });
    await api.error(failed, 'disk full');
    await watch('#all');
    await row(done, { status: 'completed' }).waitFor();
    await row(failed, { status: 'failed' }).waitFor();
  });

  it('shows one user nothing but that user’s jobs, and leaves the other rooms', async () => {
    const [ada, grace] = [uniqueId('ada'), uniqueId('grace')];
    const [mine, theirs] = [uniqueId('mine'), uniqueId('theirs')];
    await watch('#all');
    await eventually(async () => (await api.roomSize('all-jobs')) === 1);

    await page.getByTestId('watch-user').click();
    await page.getByTestId('watch-id').fill(ada);
    await page.getByTestId('watch').click();
    await eventually(async () => (await api.roomSize(`user:${ada}`)) === 1);
    await eventually(async () => (await api.roomSize('all-jobs')) === 0);

    await api.update(theirs, { status: 'queued', userId: grace });
    await api.update(mine, { status: 'queued', userId: ada });
    await row(mine).waitFor();
    assert.equal(await row(theirs).count(), 0);
    assert.equal(new URL(page.url()).hash, `#user/${ada}`);
  });

  it('watches one job before its first event', async () => {
    const [jobId, other] = [uniqueId('soon'), uniqueId('other')];
    await watch('#all');
    await page.getByTestId('watch-job').click();
    await page.getByTestId('watch-id').fill(jobId);
    await page.getByTestId('watch').click();
    await eventually(async () => (await api.roomSize(`job:${jobId}`)) === 1);

    await api.progress(other, 10);
    await api.progress(jobId, 10);
    await row(jobId, { progress: 10 }).waitFor();
    assert.equal(await row(other).count(), 0);
  });

  it('says why the gateway refuses an id, and goes on once it is right', async () => {
    const jobId = uniqueId('mended');
    await watch('#all');
    await page.getByTestId('watch-job').click();
    await page.getByTestId('watch-id').fill(`${jobId} `.repeat(2));
    await page.getByTestId('watch').click();
    await eventually(async () => /jobId: .*' '/.test(await page.getByTestId('refused').textContent()));
    assert.equal(await page.getByTestId('empty').count(), 0);

    await page.getByTestId('watch-id').fill(jobId);
    await page.getByTestId('watch').click();
    await eventually(async () => (await api.roomSize(`job:${jobId}`)) === 1);
    await api.progress(jobId, 5);
    await row(jobId).waitFor();
    assert.equal(await page.getByTestId('refused').count(), 0);
  });

  it('goes by the name that its address gives it, and says why the gateway refuses one', async () => {
    const name = uniqueId('desk');
    await watch(`?client=${name}#all`);
    const { status, json } = await api.get(`/api/clients/${name}`);
    assert.equal(status, 200);
    assert.deepEqual(json.subscriptions, ['all-jobs']);

    await page.goto(`${origin}/?client=not+an+id#all`);
    await connection('refused');
    assert.match(await page.getByTestId('refused').textContent(), /clientId: .*' '/);
    assert.equal(await page.getByTestId('empty').count(), 0);
  });

  it('shows a job’s history, and what is added to it', async () => {
    const jobId = uniqueId('import');
    await api.update(jobId, { status: 'queued', data: { file: 'orders.csv' }, userId: 'ada' });
    for (const progress of [10, 20, 30]) await api.progress(jobId, progress);

    await watch('#user/ada');
    await row(jobId).click();
    assert.equal((await showsHistoryOf(jobId)).length, 4);
    await api.progress(jobId, 40);
    await api.completed(jobId, { result: { rows: 1240 } });
    const shown = await showsHistoryOf(jobId);
    assert.deepEqual(
      shown.slice(-2).map(({ source }) => source),
      ['live', 'live'],
    );
    assert.match(await page.getByTestId('detail-result').textContent(), /"rows": 1240/);
    assert.match(await page.getByTestId('detail-data').textContent(), /orders\.csv/);

    await page.getByTestId('close-detail').click();
    await eventually(async () => (await api.roomSize(`job:${jobId}`)) === 0);
  });

  it('shows what jobs contain as text and as nothing else', async () => {
    const bait = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
    const jobId = '__proto__';
    await watch('#all');
    await api.update(jobId, { status: '<b>queued</b>', data: { html: bait } });
    await api.publish(jobId, 'progress', { progress: 1, message: bait });
    await row(jobId, { progress: 1 }).click();
    await showsHistoryOf(jobId);
    assert.equal(await row(jobId).getByTestId('job-message').textContent(), bait);
    await api.error(jobId, bait);
    await row(jobId, { status: 'failed' }).waitFor();
    assert.equal(await row(jobId).getByTestId('job-error').textContent(), bait);
    assert.equal(await page.locator('#root script, #root img:not([alt=""]), #root .job b').count(), 0);
  });

  it('needs no WebSocket', async () => {
    const jobId = uniqueId('polled');
    const polling = await newPage({ prepare: withoutWebSocket });
    await watch('#all', polling);
    await api.progress(jobId, 33);
    await row(jobId, { progress: 33 }, polling).waitFor();
    await row(jobId, {}, polling).click();
    await showsHistoryOf(jobId, polling);
  });
});

describe('simulating', () => {
  it('shows a newcomer a job from beginning to end, and one that fails', async () => {
    await watch(`#user/${uniqueId('newcomer')}`);
    await page.getByTestId('simulate').click();
    await page.getByTestId('simulate-failure').click();
    const [done, failed] = ['completed', 'failed'].map((status) =>
      page.locator(`[data-testid="job"][data-status="${status}"]`),
    );
    await Promise.all([done.waitFor(), failed.waitFor()]);
    assert.match(await done.getByTestId('job-result').textContent(), /orders\.pdf/);
    assert.match(await failed.getByTestId('job-error').textContent(), /Row 817/);
  });

  it('goes on where it was when the gateway comes back', async () => {
    const jobId = uniqueId('tenacious');
    await watch(`#job/${jobId}`);
    await page.getByTestId('simulate').click();
    await row(jobId, { status: 'in_progress' }).waitFor();
    await gateway.kill();
    await connection('reconnecting');
    await start();
    await row(jobId, { status: 'completed' }).waitFor();
    await row(jobId).click();
    const shown = await showsHistoryOf(jobId);
    assert.equal(shown.length, 11);
  });
});

describe('coming back', () => {
  it('shows everything that happened while the gateway was dead to the page', async () => {
    const [owner, jobId, later] = [uniqueId('ada'), uniqueId('long'), uniqueId('later')];
    await api.update(jobId, { status: 'queued', userId: owner });
    await api.progress(jobId, 10);
    const pages = {
      job: await watch(`#job/${jobId}`),
      user: await watch(`#user/${owner}`, await newPage()),
      all: await watch('#all', await newPage()),
    };
    for (const on of Object.values(pages)) {
      await row(jobId, { progress: 10 }, on).click();
      await showsHistoryOf(jobId, on);
    }

    await gateway.kill();
    for (const on of Object.values(pages)) {
      await connection('reconnecting', on);
      await on.getByTestId('offline').waitFor();
    }
    await outOfSight(async () => {
      for (const progress of [20, 30, 40, 50, 60, 70, 80]) await api.progress(jobId, progress);
      await api.update(later, { status: 'queued' });
      await api.progress(later, 50);
      await api.error(later, 'out of memory');
    });
    await start();

    for (const [name, missed] of [
      ['job', 7],
      ['user', 7],
      ['all', 10],
    ]) {
      const on = pages[name];
      await connection('connected', on);
      const report = await caughtUp(on);
      assert.deepEqual({ name, missed: report.missed, recovered: report.recovered }, { name, missed, recovered: true });
      assert.match(report.text, new RegExp(`Caught up: ${missed} events`));
      await row(jobId, { status: 'in_progress', progress: 80 }, on).waitFor();
      const shown = await showsHistoryOf(jobId, on);
      assert.deepEqual(
        shown.map(({ source }) => source === 'replay'),
        [false, false, true, true, true, true, true, true, true],
      );
      assert.equal(await on.getByTestId('gap').count(), 0);
    }
    await row(later, { status: 'failed' }, pages.all).waitFor();
    assert.equal(await row(later, {}, pages.user).count(), 0);

    await api.completed(jobId, { result: 'at last' });
    for (const on of Object.values(pages)) {
      await row(jobId, { status: 'completed' }, on).waitFor();
      await showsHistoryOf(jobId, on);
    }
  });

  it('misses nothing that is published the moment the gateway is back', async () => {
    const jobId = uniqueId('race');
    await api.progress(jobId, 1);
    await watch('#all');
    await row(jobId, { progress: 1 }).click();
    await showsHistoryOf(jobId);
    await gateway.kill();
    await start();
    // Before, while and after the page is back: it must not be possible to tell.
    for (let progress = 2; progress < 60; progress++) await api.progress(jobId, progress);
    await connection('connected');
    for (let progress = 60; progress < 90; progress++) await api.progress(jobId, progress);
    await row(jobId, { progress: 89 }).waitFor();
    await showsHistoryOf(jobId);
  });

  it('comes back from a gateway that was stopped in good order, and from one that stopped twice', async () => {
    const jobId = uniqueId('upgrade');
    await watch(`#job/${jobId}`);
    for (const progress of [10, 20]) {
      assert.equal(await gateway.stop(), 0, gateway.stderr());
      await connection('reconnecting');
      await outOfSight(() => api.progress(jobId, progress));
      await start();
      await row(jobId, { progress }).waitFor();
      assert.equal((await caughtUp()).missed, 1);
    }
  });

  it('loads the history of a job that was opened while there was no connection', async () => {
    const jobId = uniqueId('opened');
    for (const progress of [10, 20]) await api.progress(jobId, progress);
    await watch('#all');
    await row(jobId, { progress: 20 }).waitFor();
    await gateway.kill();
    await connection('reconnecting');
    await row(jobId).click();
    await page.locator('[data-testid="history"][data-loading="true"]').waitFor();
    await start();
    assert.equal((await showsHistoryOf(jobId)).length, 2);
    assert.equal(await page.getByTestId('history-error').count(), 0);
  });

  it('catches up without a WebSocket', async () => {
    const jobId = uniqueId('polled');
    await api.progress(jobId, 1);
    const polling = await newPage({ prepare: withoutWebSocket });
    await watch(`#job/${jobId}`, polling);
    await row(jobId, { progress: 1 }, polling).click();
    await showsHistoryOf(jobId, polling);
    await gateway.kill();
    await connection('reconnecting', polling);
    await outOfSight(async () => {
      for (const progress of [2, 3, 4]) await api.progress(jobId, progress);
    });
    await start();
    assert.equal((await caughtUp(polling)).missed, 3);
    await showsHistoryOf(jobId, polling);
  });

  it('says that there is a gap where history does not reach back', async () => {
    const jobId = uniqueId('short');
    const env = { JOBCAST_HISTORY__MAX_EVENTS: '5' };
    await api.progress(jobId, 1);
    await watch(`#job/${jobId}`);
    await row(jobId, { progress: 1 }).waitFor();
    await gateway.kill();
    await connection('reconnecting');
    const publishNine = async () => {
      for (let progress = 2; progress <= 10; progress++) await api.progress(jobId, progress);
    };
    await outOfSight(publishNine, { env });
    await start({ env });
    const report = await caughtUp();
    assert.equal(report.recovered, false);
    assert.equal(report.missed, 5);
    await row(jobId, { progress: 10 }).waitFor();
    assert.match(await page.getByTestId('gap').textContent(), new RegExp(`${jobId}.*4 events`));
    await gateway.kill();
    await start();
  });
});
