// The dashboard in a real browser, before a gateway that asks who calls.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { launchBrowser } from './support/browser.mjs';
import { startCredentialProxy } from './support/credential-proxy.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { uniqueId } from './support/waiting.mjs';

const PATIENCE_MS = 20_000;
const PHONE = { width: 360, height: 740 };
const ADMIN = 'admin.token-1';
const NEWER = 'admin.token-2';

let browser;
let gateway;
const api = httpClient(() => gateway.url);

before(async () => {
  browser = await launchBrowser();
  gateway = await startGateway({ store: 'memory' });
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** A page on the dashboard behind a proxy of its own, and that proxy. */
async function openPage(t, credentials, options) {
  const proxy = await startCredentialProxy(gateway, credentials);
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const faults = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (message) => {
    if (/Content Security Policy|Trusted/i.test(message.text())) faults.push(message.text());
  });
  t.after(async () => {
    await context.close();
    proxy.close();
    assert.deepEqual(faults, []);
    for (const { path } of proxy.seen) {
      for (const credential of [ADMIN, NEWER]) assert.ok(!path.includes(credential), `a credential in ${path}`);
    }
  });
  await page.goto(proxy.url);
  return { page, proxy, context };
}

const form = (page) => page.getByRole('dialog', { name: 'Sign in' });
const field = (page) => form(page).getByLabel('Token or API key');
const asked = (page) => field(page).waitFor();
const answered = (page) => form(page).waitFor({ state: 'hidden' });
const connection = (page, state) => page.locator(`#connection[data-state="${state}"]`).waitFor();
const row = (page, jobId) => page.locator(`[data-job="${jobId}"]`);
const alertOf = (page, text) => form(page).getByRole('alert').filter({ hasText: text }).waitFor();

async function signIn(page, credential) {
  await asked(page);
  await field(page).fill(credential);
  await page.keyboard.press('Enter');
}

const storage = (page) => page.evaluate(() => [Object.values({ ...sessionStorage }), Object.values({ ...localStorage }), document.cookie]);

describe('the dashboard of a gateway that asks who calls', () => {
  it('asks for a token or key, and works with it for as long as the tab is open', async (t) => {
    const jobId = uniqueId('before');
    await api.progress(jobId, 10);
    const { page, proxy, context } = await openPage(t, { [ADMIN]: 'everything' });
    await asked(page);
    assert.equal(await field(page).getAttribute('type'), 'password');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'credential');
    assert.equal(await row(page, jobId).count(), 0);

    await signIn(page, ADMIN);
    await answered(page);
    await connection(page, 'live');
    await row(page, jobId).waitFor();
    await api.progress(jobId, 55);
    await page.locator(`[data-job="${jobId}"] [aria-valuenow="55"]`).waitFor();
    await row(page, jobId).click();
    await page.locator('#history li', { hasText: '55 %' }).waitFor();
    await page.locator('#publish [name="job"]').fill(jobId);
    await page.locator('#publish [name="progress"]').fill('70');
    await page.locator('#publish [type="submit"]').click();
    await page.locator('#history li', { hasText: '70 %' }).waitFor();
    for (const { path, authorization } of proxy.seen.slice(-3)) assert.equal(authorization, `Bearer ${ADMIN}`, path);

    await page.reload();
    await connection(page, 'live');
    await row(page, jobId).waitFor();
    assert.ok(await form(page).isHidden());
    assert.deepEqual(await storage(page), [[ADMIN], [], '']);

    const other = await context.newPage();
    await other.goto(proxy.url);
    await asked(other);
  });

  it('says what is wrong with a token, and takes a better one', async (t) => {
    const { page } = await openPage(t, { [ADMIN]: 'everything', 'users.token': 'nothing' });
    for (const [credential, problem] of [
      ['', 'Paste a token'],
      ['two words', 'no spaces'],
      ['no.such.token', 'the token has expired'],
      ['users.token', 'jobs:admin, or an API key without bounds'],
    ]) {
      await signIn(page, credential);
      await alertOf(page, problem);
      assert.equal(await field(page).getAttribute('aria-invalid'), 'true', problem);
      assert.deepEqual((await storage(page))[0], [], problem);
    }
    await signIn(page, ADMIN);
    await answered(page);
    await connection(page, 'live');
  });

  it('asks again when a token ends, keeps the list, and goes on where it was', async (t) => {
    const [known, meanwhile] = [uniqueId('known'), uniqueId('meanwhile')];
    await api.progress(known, 10);
    const { page, proxy } = await openPage(t, { [ADMIN]: 'everything', [NEWER]: 'everything' });
    await signIn(page, ADMIN);
    await row(page, known).waitFor();
    await row(page, known).click();
    await page.locator('#history li', { hasText: '10 %' }).waitFor();

    proxy.revoke(ADMIN);
    await alertOf(page, 'the token has expired');
    await connection(page, 'reconnecting');
    assert.ok(await row(page, known).isVisible());
    assert.ok(await page.locator('#history li', { hasText: '10 %' }).isVisible());
    await api.progress(known, 20);
    await api.progress(meanwhile, 30);

    await page.keyboard.press('Escape');
    await answered(page);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await signIn(page, NEWER);
    await connection(page, 'live');
    await row(page, meanwhile).waitFor();
    await page.locator('#history li', { hasText: '20 %' }).waitFor();
  });

  it('signs out, and shows nothing to whoever comes next', async (t) => {
    const jobId = uniqueId('secret');
    await api.progress(jobId, 10);
    const { page } = await openPage(t, { [ADMIN]: 'everything' });
    await signIn(page, ADMIN);
    await row(page, jobId).click();
    await page.locator('#history li', { hasText: '10 %' }).waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await asked(page);
    assert.equal(await page.locator('[data-job]').count(), 0);
    assert.equal(await page.locator('#history li, #history dd').count(), 0);
    assert.equal(await page.locator('#history-title').textContent(), '');
    assert.equal(await field(page).inputValue(), '');
    assert.deepEqual(await storage(page), [[], [], '']);
    await page.reload();
    await asked(page);
    assert.equal(await page.locator('[data-job]').count(), 0);
  });

  it('tells who may read and not publish, and goes on', async (t) => {
    const { page } = await openPage(t, { 'readers.key': 'read' });
    await signIn(page, 'readers.key');
    await connection(page, 'live');
    await page.locator('#publish [name="job"]').fill('j');
    await page.locator('#publish [name="progress"]').fill('1');
    await page.locator('#publish [type="submit"]').click();
    await page.locator('#publish [role="alert"]', { hasText: 'publishing needs an API key' }).waitFor();
    assert.ok(await form(page).isHidden());
    await connection(page, 'live');
  });

  it('fits a phone', async (t) => {
    const { page } = await openPage(t, { [ADMIN]: 'everything' }, { viewport: PHONE });
    const spare = () => page.evaluate(() => document.documentElement.clientWidth - document.documentElement.scrollWidth);
    await asked(page);
    assert.ok((await spare()) >= 0);
    const box = await form(page).boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= PHONE.width, JSON.stringify(box));
    await signIn(page, ADMIN);
    await connection(page, 'live');
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    assert.ok((await spare()) >= 0);
  });
});

it('asks nobody where the gateway asks nobody', async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(gateway.url);
  await connection(page, 'live');
  assert.ok(await page.locator('#sign-in').isHidden());
  assert.ok(await page.locator('#account').isHidden());
});
