// The browser of the tests of pages.

import { chromium } from 'playwright-core';

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
