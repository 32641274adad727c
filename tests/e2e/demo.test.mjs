/** `make demo` and `make demo-asterisk` as a person has them: the pages that they print, in browsers as they are, until Ctrl-C. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onExit, signal } from '../common/cleanup.mjs';
import { startFirefox } from '../common/firefox.mjs';
import { freePorts } from '../common/ports.mjs';
import { note, startBrowser, until } from './fixture.mjs';
import { addNetwork } from './room.mjs';

addNetwork();

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Starts the demo, and gives what it has printed when it is ready. */
async function startDemo(...options) {
  const first = await freePorts(5);
  const rtp = await freePorts(60);
  const dir = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-demo-')), 'demo');
  const child = spawn('scripts/demo.sh', options, {
    cwd: root, detached: true, stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env, RTC_JSON_NO_INSTALL: '1', RTC_JSON_DEMO_DIR: dir, RTC_JSON_DEMO_RTP: `${rtp}-${rtp + 59}`,
      RTC_JSON_DEMO_PORTS: [0, 1, 2, 3, 4].map((i) => first + i).join(' '),
    },
  });
  const forget = onExit(() => { signal(-child.pid, 'SIGTERM'); });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { text += data; });
  const ended = new Promise((done) => { child.on('exit', (code, by) => done(code ?? by)); });
  await until(() => / Stop {7}Ctrl-C/.test(text) || child.exitCode !== null, { ms: 120_000, what: 'the demo is ready' })
    .catch((error) => { throw new Error(`${error.message}\n${text}`); });
  assert.equal(child.exitCode, null, text);
  return {
    urls: text.match(/https:\S+\.html\S*/g),
    text,

    /** Ctrl-C. Everything has ended, and nothing is left of it. */
    async stop() {
      signal(-child.pid, 'SIGINT');
      assert.equal(await ended, 0);
      forget();
      assert.equal(fs.existsSync(dir), false, 'its files are gone');
      fs.rmdirSync(path.dirname(dir));
      for (const number of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
        let line = '';
        try { line = fs.readFileSync(`/proc/${number}/cmdline`, 'latin1'); } catch { /* ended meanwhile */ }
        assert.ok(!line.includes(dir), `is still there: ${line.replaceAll('\0', ' ')}`);
      }
    },
  };
}

// without what other tests set so that 127.0.0.1 serves for sound: nobody's browser is set like this
const browsers = {
  Chromium: () => startBrowser({ loopback: false }),
  Firefox: () => startFirefox({ preferences: { 'media.peerconnection.ice.loopback': false } }),
};

async function signIn(browser, url, dn) {
  const page = await browser.page(url);
  const type = async (id, text) => {
    await page.waitForSelector(`#${id}`);
    await page.evaluate(([name, value]) => { document.getElementById(name).value = value; }, [id, text]);
  };
  await type('dn', dn);
  await type('password', `pw${dn}`);
  await page.click('#register');
  await page.waitForSelector('body[data-view="dial"]', { timeout: 20_000 });
  return page;
}

const dial = (page, number) => page.evaluate((to) => {
  const field = document.getElementById('dial');
  field.value = to;
  field.form.requestSubmit();
}, number);

/** Packets and energy that have come by the only call of this page. */
const counters = (page) => page.evaluate(async () => {
  const connections = window.phone ? [...window.phone.calls].map(({ pc }) => pc) : window.connections;
  const sums = { packets: 0, energy: 0 };
  for (const pc of connections) {
    for (const stat of (await pc.getStats()).values()) {
      if (stat.type !== 'inbound-rtp') continue;
      sums.packets += stat.packetsReceived;
      sums.energy += stat.totalAudioEnergy;
    }
  }
  return sums;
});

/** Sound comes, and it is not silence. */
async function hears(page, name) {
  await until(async () => (await counters(page)).packets > 50, { ms: 15_000, what: `sound comes to ${name}` });
  await until(async () => (await counters(page)).energy > 1e-3, { ms: 10_000, what: `what ${name} hears is not silence` });
  const { packets, energy } = await counters(page);
  note(`${name} hears ${packets} packets, energy ${energy.toPrecision(2)}`);
}

async function hangUp(page) {
  // (a click aimed at a place misses the button while the page moves)
  await page.evaluate(() => document.getElementById('hangup').click());
  await page.waitForSelector('body[data-view="dial"]');
}

describe('make demo', () => {
  let demo;
  const open = [];
  before(async () => { demo = await startDemo(); });
  after(async () => {
    for (const browser of open) await browser.close();
    await demo?.stop();
  });

  test('two pages call each other: in Chromium, in Firefox', async () => {
    const pages = [];
    for (const [i, name] of ['Chromium', 'Firefox'].entries()) {
      const browser = await browsers[name]();
      open.push(browser);
      pages.push(await signIn(browser, demo.urls[0], `500${i + 1}`));
    }
    const [chromium, firefox] = pages;
    for (const [caller, called, number] of [[chromium, firefox, '5002'], [firefox, chromium, '5001']]) {
      await dial(caller, number);
      await called.waitForSelector('#incoming:not([hidden])');
      await called.evaluate(() => document.getElementById('answer').click());
      await Promise.all([hears(chromium, 'Chromium'), hears(firefox, 'Firefox')]);
      await hangUp(caller);
      await called.waitForSelector('body[data-view="dial"]');
    }
    for (const { errors } of open) assert.deepEqual(errors, []);
  });
});

describe('make demo-asterisk', () => {
  let demo;
  const open = [];
  before(async () => { demo = await startDemo('--asterisk'); });
  after(async () => {
    for (const browser of open) await browser.close();
    await demo?.stop();
  });

  for (const [i, name] of ['Chromium', 'Firefox'].entries()) {
    test(`${name}: the echo, and the stand-in for a contact centre`, async () => {
      const browser = await browsers[name]();
      open.push(browser);
      const page = await signIn(browser, demo.urls[0], `500${i + 1}`);
      for (const number of ['600', '9000']) {
        await dial(page, number);
        await hears(page, `${name} by ${number}`);
        await hangUp(page);
      }
      assert.deepEqual(browser.errors, []);
    });
  }

  test('JsSIP on its own page: the echo', async () => {
    const page = await open[0].page();
    await page.addInitScript(() => {
      window.connections = [];
      const { RTCPeerConnection } = window;
      window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...list) { super(...list); window.connections.push(this); }
      };
    });
    await page.goto(demo.urls.find((url) => url.includes('index-minimal')));
    await page.fill('#dn', '5003');
    await page.fill('#password', 'pw5003');
    await page.press('#password', 'Enter');
    await page.fill('#number', '600');
    await page.click('#call:enabled');
    await hears(page, 'JsSIP');
    await page.click('#hangup');
    assert.deepEqual(open[0].errors, []);
  });
});
