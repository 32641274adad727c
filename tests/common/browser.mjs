/** Chromium with a fake microphone, and a server for the pages it opens. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { serveFolder } from '../../scripts/serve.mjs';
import { certificate } from './certificate.mjs';
import { onExit, signal } from './cleanup.mjs';

export const clientDir = fileURLToPath(new URL('../../client/', import.meta.url));

/** Where Chromium is; RTC_JSON_CHROMIUM names another one. */
export const chromiumPath = process.env.RTC_JSON_CHROMIUM ?? '/usr/bin/chromium';

const flags = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  // a microphone that beeps about once a second, given without asking
  '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream',
  '--ignore-certificate-errors', '--autoplay-policy=no-user-gesture-required',
];

/**
 * Starts Chromium with a fresh profile.
 * @param {{ flags?: string[], loopback?: boolean, program?: string }} [options] further flags; loopback: its addresses may be
 *   candidates; program: what to run in place of Chromium itself
 */
export async function startBrowser({ flags: more = [], loopback = true, program = chromiumPath } = {}) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: program,
    headless: false, // the flag above chooses the new headless mode
    chromiumSandbox: false,
    args: [...flags, ...(loopback ? ['--allow-loopback-in-peer-connection'] : []), ...more],
    ignoreHTTPSErrors: true,
  });
  const forget = onExit(() => { killByProfile(profile); fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 }); });
  /** @type {string[]} what went wrong inside the pages */
  const errors = [];
  return {
    context,
    errors,

    /**
     * Opens a page; its uncaught errors are kept in `errors`, its console output in `page.lines`.
     * @param {string} [url]
     */
    async page(url) {
      const page = await context.newPage();
      page.lines = [];
      page.on('pageerror', (error) => errors.push(error.stack ?? error.message));
      page.on('console', (message) => page.lines.push(`${message.type()}: ${message.text()}`));
      if (url) await page.goto(url);
      return page;
    },

    async close() {
      await context.close();
      forget();
      fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}

/** Only the processes of the Chromium with this profile, told by its command line. */
function killByProfile(profile) {
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(`--user-data-dir=${profile}`)) signal(Number(pid), 'SIGKILL');
    } catch { /* ended meanwhile */ }
  }
}

/**
 * Serves folders (client/ by default) on a free loopback port.
 * @param {{ dirs?: string[], https?: boolean, host?: string, port?: number, headers?: Record<string, string> }} [options]
 *   dirs: searched in this order
 * @returns {Promise<{ url: string, origin: string, port: number, close(): Promise<void> }>}
 */
export async function servePages({ dirs = [clientDir], https = false, host, port = 0, headers } = {}) {
  return serveFolder({ dirs, host, port, headers, tls: https ? certificate() : undefined });
}
