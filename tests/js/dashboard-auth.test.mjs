// The dashboard in a real browser, before a gateway that asks who calls.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { launchBrowser, newPage } from './support/browser.mjs';
import { startGateway } from './support/gateway.mjs';
import { httpClient } from './support/http.mjs';
import { apiKey, authSettings, bearer, token } from './support/tokens.mjs';
import { uniqueId } from './support/waiting.mjs';

const PHONE = { width: 360, height: 740 };

const everything = apiKey('everything');
const bounded = apiKey('bounded', { jobs: ['report-*'] });
/** A token for the dashboard. It was issued a while ago, so that a revocation ends it. */
const admin = (claims = {}) =>
  token({ sub: uniqueId('root'), scope: 'jobs:admin', iat: Date.now() / 1000 - 10, ...claims });

let browser;
let gateway;
let api;
const publisher = bearer(everything.key);

before(async () => {
  browser = await launchBrowser();
  gateway = await startGateway({ env: authSettings({ keys: [everything, bounded] }) });
  api = httpClient(gateway.url);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** A page on the dashboard, and all that it has asked for. No credential may be in an address. */
async function openPage(t, options) {
  const page = await newPage(t, browser, options);
  const context = page.context();
  const seen = [];
  context.on('request', (request) => seen.push(request));
  t.after(() => {
    const secret = /eyJ|jc_|token=/;
    assert.deepEqual(seen.map((request) => request.url()).filter((url) => secret.test(url)), []);
  });
  await page.goto(gateway.url);
  return { page, seen, context };
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

async function publish(page, jobId, progress) {
  await page.locator('#publish [name="job"]').fill(jobId);
  await page.locator('#publish [name="progress"]').fill(String(progress));
  await page.locator('#publish [type="submit"]').click();
}

const storage = (page) => page.evaluate(() => [Object.values({ ...sessionStorage }), Object.values({ ...localStorage }), document.cookie]);

describe('the dashboard of a gateway that asks who calls', () => {
  for (const [what, make] of [
    ['token', () => admin()],
    ['token of a publisher', () => token({ scope: 'jobs:publish' })],
    ['API key', () => everything.key],
  ]) {
    it(`asks for a credential, and works with it for as long as the tab is open: ${what}`, async (t) => {
      const credential = make();
      const jobId = uniqueId('before');
      await api.progress(jobId, 10, publisher);
      const { page, seen, context } = await openPage(t);
      await asked(page);
      assert.equal(await field(page).getAttribute('type'), 'password');
      assert.equal(await page.evaluate(() => document.activeElement.id), 'credential');
      assert.equal(await row(page, jobId).count(), 0);

      await signIn(page, credential);
      await answered(page);
      await connection(page, 'live');
      await row(page, jobId).waitFor();
      await api.progress(jobId, 55, publisher);
      await page.locator(`[data-job="${jobId}"] [aria-valuenow="55"]`).waitFor();
      await row(page, jobId).click();
      await page.locator('#history li', { hasText: '55 %' }).waitFor();
      await publish(page, jobId, 70);
      await page.locator('#history li', { hasText: '70 %' }).waitFor();
      const calls = seen.slice(-3).map((request) => request.headers().authorization);
      assert.deepEqual(calls, Array(3).fill(`Bearer ${credential}`));

      await page.reload();
      await connection(page, 'live');
      await row(page, jobId).waitFor();
      assert.ok(await form(page).isHidden());
      assert.deepEqual(await storage(page), [[credential], [], '']);

      const other = await context.newPage();
      await other.goto(gateway.url);
      await asked(other);
    });
  }

  it('says what is wrong with a token, and takes a better one', async (t) => {
    const { page } = await openPage(t);
    for (const [credential, problem] of [
      ['', 'Paste a token'],
      ['two words', 'no spaces'],
      ['no.such.token', 'the token'],
      ['jc_unknown', 'neither a good token nor a good API key'],
      [admin({ exp: 5 }), 'it has expired'],
      [token({ sub: 'ada' }), 'jobs:admin, or an API key without bounds'],
      [bounded.key, 'jobs:admin, or an API key without bounds'],
    ]) {
      await signIn(page, credential);
      await alertOf(page, problem);
      assert.equal(await field(page).getAttribute('aria-invalid'), 'true', problem);
      assert.deepEqual((await storage(page))[0], [], problem);
    }
    await signIn(page, admin());
    await answered(page);
    await connection(page, 'live');
  });

  it('asks again when a token is revoked, keeps the list, and goes on where it was', async (t) => {
    const [known, meanwhile, sub] = [uniqueId('known'), uniqueId('meanwhile'), uniqueId('root')];
    await api.progress(known, 10, publisher);
    const { page } = await openPage(t);
    await signIn(page, admin({ sub }));
    await row(page, known).waitFor();
    await row(page, known).click();
    await page.locator('#history li', { hasText: '10 %' }).waitFor();

    const revoked = await api.post('/api/revocations', { sub }, bearer(admin()));
    assert.equal(revoked.status, 200, revoked.text);
    // The words with which the stream ends, and not those of a call that is refused.
    await alertOf(page, 'the token was revoked; connect again with a new one');
    await connection(page, 'reconnecting');
    assert.ok(await row(page, known).isVisible());
    assert.ok(await page.locator('#history li', { hasText: '10 %' }).isVisible());
    await api.progress(known, 20, publisher);
    await api.progress(meanwhile, 30, publisher);

    await page.keyboard.press('Escape');
    await answered(page);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await signIn(page, admin({ sub, iat: Date.now() / 1000 }));
    await connection(page, 'live');
    await row(page, meanwhile).waitFor();
    await page.locator('#history li', { hasText: '20 %' }).waitFor();
  });

  it('asks again when a token expires', async (t) => {
    const { page } = await openPage(t);
    await signIn(page, admin({ exp: Date.now() / 1000 + 3 }));
    await connection(page, 'live');
    await alertOf(page, 'the token has expired; connect again with a new one');
    await connection(page, 'reconnecting');
    assert.deepEqual((await storage(page))[0], []);
  });

  it('signs out, and shows nothing to whoever comes next', async (t) => {
    const jobId = uniqueId('secret');
    await api.progress(jobId, 10, publisher);
    const { page } = await openPage(t);
    await signIn(page, admin());
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

  it('tells of a publish that is refused, and goes on', async (t) => {
    const { page } = await openPage(t);
    // As a proxy does that does not pass Host through: for the gateway the page is another site's.
    await page.route(/progress$/, async (route) => {
      const headers = await route.request().allHeaders();
      await route.fulfill({ response: await route.fetch({ headers: { ...headers, host: 'gateway.internal' } }) });
    });
    await signIn(page, admin());
    await connection(page, 'live');
    await publish(page, 'j', 1);
    await page.locator('#publish [role="alert"]', { hasText: 'origin' }).waitFor();
    assert.ok(await form(page).isHidden());
    await connection(page, 'live');
  });

  it('fits a phone', async (t) => {
    const { page } = await openPage(t, { viewport: PHONE });
    const spare = () => page.evaluate(() => document.documentElement.clientWidth - document.documentElement.scrollWidth);
    await asked(page);
    assert.ok((await spare()) >= 0);
    const box = await form(page).boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= PHONE.width, JSON.stringify(box));
    await signIn(page, admin());
    await connection(page, 'live');
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    assert.ok((await spare()) >= 0);
  });
});

it('asks nobody where the gateway asks nobody', async (t) => {
  const open = await startGateway();
  const context = await browser.newContext();
  t.after(async () => {
    await context.close();
    await open.stop();
  });
  const page = await context.newPage();
  await page.goto(open.url);
  await connection(page, 'live');
  assert.ok(await page.locator('#sign-in').isHidden());
  assert.ok(await page.locator('#account').isHidden());
});
