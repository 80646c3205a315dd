// The dashboard in a real browser, against a real gateway.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { launchBrowser, newPage } from './support/browser.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { eventually, uniqueId } from './support/waiting.mjs';

const DESKTOP = { width: 1440, height: 900 };
const PHONE = { width: 360, height: 740 };

let browser;

before(async () => {
  browser = await launchBrowser();
});

after(() => browser?.close());

/** A page on the dashboard. */
async function openPage(t, address, { viewport = DESKTOP, prepare, ...options } = {}) {
  const page = await newPage(t, browser, { viewport, ...options });
  await prepare?.(page);
  await page.goto(address);
  return page;
}

async function openLive(t, address, options) {
  const page = await openPage(t, address, options);
  await connection(page, 'live');
  return page;
}

const connection = (page, state) => page.locator(`#connection[data-state="${state}"]`).waitFor();

const row = (page, jobId) => page.locator(`[data-job="${jobId}"]`);

const rowIn = (page, jobId, status) => page.locator(`[data-job="${jobId}"][data-status="${status}"]`);

const barAt = (page, jobId, value) =>
  page.locator(`[data-job="${jobId}"] [role="progressbar"][aria-valuenow="${value}"]`);

/** Waits until a bar's filled part is as wide as it says. */
function drawnTo(page, jobId, value) {
  return page.waitForFunction(
    ([id, share]) => {
      const bar = document.querySelector(`[data-job="${id}"] [role="progressbar"]`);
      const [whole, filled] = [bar, bar.firstElementChild].map((node) => node.getBoundingClientRect());
      return Math.abs((filled.right - whole.left) / whole.width - share) < 0.01;
    },
    [jobId, value / 100],
  );
}

const textIn = (page, selector, text) => page.locator(selector, { hasText: text }).first().waitFor();

const widthToSpare = (page) =>
  page.evaluate(() => document.documentElement.clientWidth - document.documentElement.scrollWidth);

function stoppedAfter(t, gateway) {
  t.after(() => gateway.kill());
  return gateway;
}

describe('the dashboard', () => {
  let gateway;
  const api = httpClient(() => gateway.url);

  before(async () => {
    gateway = await startGateway({ store: 'memory' });
  });

  after(() => gateway?.stop());

  it('is served with its parts, and lets nothing foreign in', async () => {
    const types = { html: 'text/html', css: 'text/css', js: 'text/javascript' };
    const parts = new Set(['/', '/dashboard.css', '/dashboard.js']);
    // Each part adds to the set what it imports.
    for (const path of parts) {
      const { status, headers, text } = await api.get(path);
      assert.equal(status, 200, path);
      const type = types[path.split('.')[1] ?? 'html'];
      assert.ok(headers['content-type'].startsWith(type), `${path}: ${headers['content-type']}`);
      const policy = headers['content-security-policy'];
      for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"]) {
        assert.ok(policy.split('; ').includes(part), `${part} in ${policy} of ${path}`);
      }
      assert.ok(!policy.includes('unsafe'), policy);
      assert.equal(headers['x-content-type-options'], 'nosniff', path);
      assert.equal(headers['referrer-policy'], 'no-referrer', path);
      assert.equal(headers['cross-origin-opener-policy'], 'same-origin', path);
      assert.equal(headers['cross-origin-resource-policy'], 'same-origin', path);
      assert.match(headers['permissions-policy'], /camera=\(\)/, path);
      // Parts of two versions must not meet in one page.
      assert.equal(headers['cache-control'], 'no-cache', path);
      for (const [, name] of text.matchAll(/^import .* from '(.+)';$/gm)) {
        parts.add(new URL(name, `${gateway.url}${path}`).pathname);
      }
    }
  });

  it('shows a job that was there before, and follows it to its completion', async (t) => {
    const jobId = uniqueId('import');
    await api.publish(jobId, 'progress', { progress: 10, message: 'Reading rows', userId: 'ana', tenantId: 'acme' });
    const page = await openLive(t, gateway.url);
    await barAt(page, jobId, 10).waitFor();
    const text = await row(page, jobId).innerText();
    for (const part of [jobId, 'in progress', 'Reading rows', '10 %', 'ana', 'acme', 'elapsed']) {
      assert.ok(text.includes(part), `"${part}" in ${text}`);
    }

    await api.progress(jobId, 62.5);
    await barAt(page, jobId, 62.5).waitFor();
    await drawnTo(page, jobId, 62.5);

    await api.completed(jobId, { result: { rows: 12480 } });
    await rowIn(page, jobId, 'completed').waitFor();
    await barAt(page, jobId, 100).waitFor();
    await textIn(page, `[data-job="${jobId}"]`, '12480');
  });

  it('shows a job that begins while it is open, and its error', async (t) => {
    const page = await openLive(t, gateway.url);
    const jobId = uniqueId('report');
    await api.update(jobId, { status: 'validating', data: { step: 2 } });
    await rowIn(page, jobId, 'validating').waitFor();
    await api.progress(jobId, 40);
    await barAt(page, jobId, 40).waitFor();
    await api.error(jobId, 'The warehouse timed out');
    await rowIn(page, jobId, 'failed').waitFor();
    await textIn(page, `[data-job="${jobId}"]`, 'The warehouse timed out');
    await barAt(page, jobId, 40).waitFor();

    await api.update(jobId, { status: 'queued' });
    await rowIn(page, jobId, 'queued').waitFor();
    assert.equal(await row(page, jobId).getByRole('progressbar').getAttribute('aria-valuenow'), null);
  });

  it('takes job data for text, whatever is in it', async (t) => {
    const page = await openLive(t, gateway.url);
    const jobId = uniqueId('markup');
    const markup = '<img src="/x" onerror="alert(1)"><b>bold</b>';
    await api.update(jobId, { status: markup.slice(0, 60), data: { markup, ['__proto__']: 1 } });
    await row(page, jobId).click();
    await textIn(page, '#history pre', '<b>bold</b>');
    await api.publish(jobId, 'progress', { progress: 1, message: markup });
    await textIn(page, `[data-job="${jobId}"]`, '<b>bold</b>');
    await textIn(page, '#history', 'Progress');
    await api.error(jobId, markup);
    await rowIn(page, jobId, 'failed').waitFor();
    await textIn(page, '#history', 'Error');
    assert.equal(await page.locator('main img, #history img, #job-list b, #history pre b').count(), 0);
  });

  it('opens the history of a job, keeps it live, and closes it', async (t) => {
    const jobId = uniqueId('history');
    await api.post(`/api/jobs/${jobId}/update`, '{"status": "started", "data": {"id": 18446744073709551615}}');
    await api.progress(jobId, 20);
    const page = await openLive(t, gateway.url);
    await row(page, jobId).click();
    await page.waitForURL((url) => url.hash.includes(jobId));
    const items = page.locator('#history li');
    await textIn(page, '#history li', '18446744073709551615');
    assert.equal(await items.count(), 2);

    await api.progress(jobId, 55);
    await textIn(page, '#history li', '55 %');
    assert.equal(await items.count(), 3);
    assert.ok((await items.first().innerText()).includes('55 %'), 'the newest event is on top');

    await page.keyboard.press('Escape');
    await page.locator('#history').waitFor({ state: 'hidden' });
    assert.equal(new URL(page.url()).hash, '');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), jobId);
    await page.keyboard.press('Enter');
    await items.nth(2).waitFor();
    await page.goBack();
    await page.locator('#history').waitFor({ state: 'hidden' });
  });

  it('says in the history which events are missing', async (t) => {
    const jobId = uniqueId('gap');
    const { seq } = await api.progress(jobId, 20);
    const gap = { jobId, from: seq - 1, to: seq - 1 };
    const page = await openPage(t, `${gateway.url}/#/jobs/${jobId}`, {
      prepare: (blank) =>
        blank.route('**/api/events?*', (route) =>
          route.fulfill({ contentType: 'text/event-stream', body: `id: 5-1\nevent: job:gap\ndata: ${JSON.stringify(gap)}\n\n` }),
        ),
    });
    await textIn(page, '#history li', `${gap.from} to ${gap.to}`);
    await textIn(page, '#history li', '20 %');
    assert.ok((await page.locator('#history li').first().innerText()).includes('20 %'));
  });

  it('opens the job that its address names', async (t) => {
    const jobId = uniqueId('team:a@b.link');
    await api.completed(jobId, { result: [1, 2] });
    const page = await openLive(t, gateway.url);
    await row(page, jobId).click();
    await textIn(page, '#history li', 'Completed');
    const second = await openLive(t, page.url());
    await textIn(second, '#history li', 'Completed');
    await textIn(second, '#history h2', jobId);

    const unknown = await openLive(t, `${gateway.url}/#/jobs/${uniqueId('unknown')}`);
    await textIn(unknown, '#history', 'No history');
  });

  it('publishes by its form, and shows beside it what the gateway refused', async (t) => {
    const page = await openLive(t, gateway.url);
    const field = (name) => page.locator(`#publish [name="${name}"]`);
    const submit = () => page.locator('#publish [type="submit"]').click();
    const jobId = uniqueId('form');

    await field('job').fill(jobId);
    await field('kind').selectOption('progress');
    await field('progress').fill('140');
    await submit();
    await textIn(page, '#publish [role="alert"]', 'progress');
    await textIn(page, '#publish [role="alert"]', '422');
    await page.locator('#publish [name="progress"][aria-invalid="true"]').waitFor();
    assert.equal(await row(page, jobId).count(), 0);

    await field('progress').fill('14');
    await field('message').fill('Half a page');
    await field('userId').fill('kim');
    await submit();
    await barAt(page, jobId, 14).waitFor();
    await page.locator('#publish-error').waitFor({ state: 'hidden' });
    assert.equal(await page.locator('#publish [aria-invalid]').count(), 0);
    await textIn(page, `[data-job="${jobId}"]`, 'kim');

    await field('kind').selectOption('completed');
    await field('result').fill('{"total": 12345678901234567890,');
    await submit();
    await textIn(page, '#publish [role="alert"]', 'not JSON');
    await field('result').fill('{"total": 12345678901234567890}');
    await submit();
    await rowIn(page, jobId, 'completed').waitFor();
    await textIn(page, `[data-job="${jobId}"]`, '12345678901234567890');
    const { text } = await api.get(`/api/jobs/${jobId}`);
    assert.ok(text.includes('12345678901234567890'), text);

    await field('kind').selectOption('error');
    await field('error').fill('Too late');
    await submit();
    await textIn(page, '#publish [role="alert"]', 'job_finished');
    await field('kind').selectOption('update');
    await field('status').fill('reopened');
    await field('data').fill('null');
    await submit();
    await rowIn(page, jobId, 'reopened').waitFor();
  });

  it('publishes under the same key again when an answer was lost', async (t) => {
    const keys = [];
    const page = await openLive(t, gateway.url, {
      prepare: (blank) =>
        blank.route('**/api/jobs/*/progress', async (route) => {
          keys.push(route.request().headers()['idempotency-key']);
          const response = await route.fetch();
          await (keys.length === 1 ? route.abort() : route.fulfill({ response }));
        }),
    });
    const jobId = uniqueId('lost');
    await page.locator('#publish [name="job"]').fill(jobId);
    await page.locator('#publish [name="progress"]').fill('5');
    await page.locator('#publish [type="submit"]').click();
    await textIn(page, '#publish [role="alert"]', 'does not answer');
    await page.locator('#publish [type="submit"]').click();
    await textIn(page, '#publish [role="status"]', 'Accepted');
    assert.equal(keys[0], keys[1]);
    assert.equal((await api.history(jobId)).length, 1);
  });

  it('filters by state and by text', async (t) => {
    const [running, done] = [uniqueId('running'), uniqueId('done')];
    await api.publish(running, 'progress', { progress: 5, message: 'Zebra crossing' });
    await api.completed(done);
    const page = await openLive(t, gateway.url);
    await page.locator('[data-filter="completed"]').click();
    await row(page, running).waitFor({ state: 'hidden' });
    await row(page, done).waitFor();
    await api.completed(running);
    await row(page, running).waitFor();
    await page.locator('[data-filter="all"]').click();
    await page.locator('#search').fill(done.toUpperCase());
    await row(page, running).waitFor({ state: 'hidden' });
    await row(page, done).waitFor();
    await page.locator('#search').fill('nothing has this text');
    await page.locator('#clear-filter').click();
    await row(page, running).waitFor();
  });

  it('runs a sample job', async (t) => {
    const page = await openLive(t, gateway.url);
    await page.locator('#sample').click();
    const sample = page.locator('[data-job^="sample-"]');
    await sample.and(page.locator('[data-status="in_progress"]')).waitFor();
    await sample.and(page.locator('[data-status="completed"]')).waitFor();
  });

  it('keeps up with a flood, within its bounds', async (t) => {
    const page = await openLive(t, gateway.url);
    const jobs = Array.from({ length: 400 }, () => uniqueId('flood'));
    const at = (progress) => jobs.map((jobId) => ({ event: 'job:progress', jobId, progress }));
    for (let progress = 10; progress <= 100; progress += 10) await api.publishAll(at(progress));
    await barAt(page, jobs.at(-1), 100).waitFor({ state: 'attached' });
    await page.waitForFunction((id) => !document.querySelector(`[data-job="${id}"]`), jobs[0]);
    const shown = await page.locator('[data-job]').count();
    assert.ok(shown > 100 && shown <= 400, `${shown} rows`);
    await page.locator('#search').fill(jobs.at(-1));
    await row(page, jobs.at(-1)).waitFor();
  });

  it('tries again by itself when the stream is refused', async (t) => {
    let refusals = 2;
    const page = await openPage(t, gateway.url, {
      prepare: (blank) =>
        blank.route('**/api/events?*', (route) =>
          refusals-- > 0 ? route.fulfill({ status: 503, body: '' }) : route.continue(),
        ),
    });
    await eventually(() => refusals < 0, 'a third attempt');
    await connection(page, 'live');
    const jobId = uniqueId('refused');
    await api.progress(jobId, 3);
    await barAt(page, jobId, 3).waitFor();
  });

  for (const [name, viewport] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    it(`fits a ${name} without scrolling sideways`, async (t) => {
      const jobId = uniqueId('wide'.repeat(20));
      const word = 'immeasurably'.repeat(30);
      await api.update(jobId, { status: 's'.repeat(64), data: { word }, userId: 'u'.repeat(128), tenantId: 't'.repeat(128) });
      await api.publish(jobId, 'progress', { progress: 33.333333333333336, message: word });
      await api.error(jobId, word);
      const page = await openLive(t, gateway.url, { viewport });
      await row(page, jobId).waitFor();
      assert.ok((await widthToSpare(page)) >= 0, 'the list');
      await row(page, jobId).click();
      await textIn(page, '#history li', 'Error');
      assert.ok((await widthToSpare(page)) >= 0, 'the history');
      const panel = await page.locator('#history').boundingBox();
      assert.ok(panel.x >= 0 && panel.x + panel.width <= viewport.width, JSON.stringify(panel));
      await page.keyboard.press('Escape');
      if (!(await page.locator('#publish').isVisible())) await page.locator('#publish-toggle').click();
      await page.locator('#publish [name="kind"]').selectOption('update');
      await page.locator('#publish [name="data"]').waitFor();
      assert.ok((await widthToSpare(page)) >= 0, 'the form');
    });
  }
});

describe('the dashboard of a gateway without jobs', () => {
  for (const [name, viewport] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    it(`says how to publish the first event, on a ${name}`, async (t) => {
      const gateway = stoppedAfter(t, await startGateway({ store: 'memory' }));
      const page = await openLive(t, gateway.url, { viewport });
      const command = await page.locator('#empty pre').innerText();
      assert.ok(command.startsWith('curl'), command);
      assert.ok(command.includes(`${gateway.url}/api/jobs/`), command);
      assert.ok((await widthToSpare(page)) >= 0);
      await httpClient(gateway.url).progress('first', 1);
      await barAt(page, 'first', 1).waitFor();
      await page.locator('#empty').waitFor({ state: 'hidden' });
    });
  }
});

describe('the dashboard of a gateway that restarts', () => {
  it('says so, reconnects, and shows what was published meanwhile', async (t) => {
    const first = stoppedAfter(t, await startGateway({ store: 'embedded' }));
    const [known, later] = [uniqueId('known'), uniqueId('later')];
    await httpClient(first.url).progress(known, 10);
    const page = await openLive(t, first.url);
    await row(page, known).click();
    await textIn(page, '#history li', '10 %');
    await first.kill();
    await connection(page, 'reconnecting');
    await page.setViewportSize(PHONE);
    assert.ok((await widthToSpare(page)) >= 0, 'while reconnecting');
    await page.setViewportSize(DESKTOP);

    const again = await startGateway({ store: 'embedded', path: first.path, listen: `127.0.0.1:${first.port}` });
    stoppedAfter(t, again);
    const api = httpClient(again.url);
    await api.progress(known, 70);
    await api.error(later, 'Broken meanwhile');
    await connection(page, 'live');
    await barAt(page, known, 70).waitFor();
    await textIn(page, '#history li', '70 %');
    await rowIn(page, later, 'failed').waitFor();
    await api.completed(known);
    await rowIn(page, known, 'completed').waitFor();
    assert.equal(await page.locator('#history li').count(), 3);
  });

  it('survives an orderly stop, and forgets the jobs that the gateway forgot', async (t) => {
    const first = stoppedAfter(t, await startGateway({ store: 'memory' }));
    const [lost, kept] = [uniqueId('lost'), uniqueId('kept')];
    await httpClient(first.url).progress(lost, 10);
    const page = await openLive(t, first.url);
    await row(page, lost).waitFor();
    assert.equal(await first.stop(), 0);
    await connection(page, 'reconnecting');
    const again = stoppedAfter(t, await startGateway({ store: 'memory', listen: `127.0.0.1:${first.port}` }));
    await httpClient(again.url).progress(kept, 20);
    await barAt(page, kept, 20).waitFor();
    await row(page, lost).waitFor({ state: 'detached' });
  });
});
