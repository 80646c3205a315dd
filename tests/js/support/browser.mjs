// The browser of the tests of pages.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const PATIENCE_MS = 20_000;

/** Starts Debian's Chromium, or the one that CHROMIUM names, without what would look for other hosts. */
export function launchBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
  });
}

/**
 * A new page, in a context of its own that ends with the test. It fails the test where a script threw or the content
 * security policy refused something.
 */
export async function newPage(t, browser, options) {
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
    assert.deepEqual(faults, []);
  });
  return page;
}
