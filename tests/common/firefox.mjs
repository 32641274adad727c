/** Firefox with a fake microphone, for the tests that both browsers must pass. Driven by WebDriver BiDi. */
import { launch } from 'puppeteer-core';
import { onExit, signal } from './cleanup.mjs';

/** Where Firefox is; RTC_JSON_FIREFOX names another one. */
export const firefoxPath = process.env.RTC_JSON_FIREFOX ?? '/usr/bin/firefox-esr';

const preferences = {
  // a microphone that hums, given without asking
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  // As where a real microphone is in use: all addresses are candidates. Else it offers only the one of the way out of this machine, and
  // none that reaches the servers' 127.0.0.1
  'permissions.default.microphone': 1,
  'media.autoplay.default': 0,
  // nothing but loopback is there
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'network.manage-offline-status': false,
};

/**
 * Starts Firefox with a fresh profile. What it gives is used like what `startBrowser` gives.
 * @param {{ hertz?: number, program?: string, port?: number, preferences?: object }} [options] what the fake microphone hums; what to
 *   run in place of Firefox itself; the port by which it is driven; further preferences
 */
export async function startFirefox({ hertz = 440, program = firefoxPath, port, preferences: more } = {}) {
  const browser = await launch({
    browser: 'firefox', executablePath: program, headless: true, acceptInsecureCerts: true, debuggingPort: port,
    extraPrefsFirefox: { ...preferences, ...more, 'media.navigator.audio.fake_frequency': hertz },
  });
  const { pid } = browser.process();
  const forget = onExit(() => signal(pid, 'SIGKILL'));
  /** @type {string[]} what went wrong inside the pages */
  const errors = [];
  return {
    errors,

    /**
     * Opens a page; its uncaught errors are kept in `errors`, its console output in `page.lines`.
     * @param {string} [url]
     */
    async page(url) {
      const page = await browser.newPage();
      page.lines = [];
      // (a connection that is lost is no error of the page; Chromium writes it to the console)
      page.on('pageerror', (error) => { if (!/connection to (the server at )?wss?:/.test(error.message)) errors.push(error.stack ?? error.message); });
      page.on('console', (message) => page.lines.push(`${message.type()}: ${message.text()}`));
      if (url) await page.goto(url);
      return page;
    },

    async close() {
      await browser.close();
      forget();
    },
  };
}
