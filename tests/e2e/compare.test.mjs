/** The pages of the migration: JsSIP alone, and both side by side with their figures. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { bundleJssip } from '../../scripts/jssip-bundle.mjs';
import { accessible } from '../common/axe.mjs';
import { clientDir, servePages } from '../common/browser.mjs';
import { complaints, note, startBrowser, startUpstream, until } from './fixture.mjs';

let servers;
let browser;
let pages;
let bundle;
before(async () => {
  servers = await startUpstream({ defines: { WITH_JSSIP: true } });
  bundle = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-jssip-'));
  await bundleJssip(bundle);
  pages = await servePages({ dirs: [clientDir, bundle] });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await pages?.close();
  if (bundle) fs.rmSync(bundle, { recursive: true });
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});
const address = (name) => `${pages.url}${name}?ws=${encodeURIComponent(servers.kamailio.wssUrl)}`;
const status = (page, wanted, ms = 5000) => until(async () => wanted.test(await page.textContent('#status')), { ms, what: `${wanted}` })
  .catch(async (error) => { throw new Error(`${error.message}, but ${await page.textContent('#status')}`); });

test('the fall-back: signs in, calls, holds, and hangs up', async () => {
  const page = await browser.page(address('index-minimal.html'));
  await accessible(page, 'index-minimal.html');
  await page.fill('#dn', '5003');
  await page.fill('#password', 'pw5003');
  await page.click('#sign-in button');
  await status(page, /Signed in as 5003/);
  await page.fill('#number', '600');
  await page.click('#call');
  await status(page, /Connected/);
  await page.click('#hold');
  await page.waitForSelector('#hold[aria-pressed="true"]');
  await page.click('#hangup');
  await status(page, /The call is over: Terminated/);
  await page.close();
});

test('side by side: every figure is there, and JSON is the smaller and no slower one', async () => {
  const page = await browser.page(address('compare.html'));
  await page.fill('#rounds', '3');
  await page.click('#measure');
  await status(page, /Done|failed/, 120_000);
  assert.equal(await page.textContent('#status'), 'Done.');
  await accessible(page, 'compare.html');
  const rows = await page.$$eval('#figures tr', (list) => list.map((row) => [...row.cells].map(({ textContent }) => textContent)));
  const figures = Object.fromEntries(rows.map(([name, ...values]) => [name, values.map(Number)]));
  for (const [name, values] of Object.entries(figures)) note(`${name}: ${values.join(' ')}`);
  assert.ok(Object.values(figures).every((values) => values.length === 4 && values.every((value) => value >= 0)), JSON.stringify(rows));
  assert.equal(rows.length, 8);
  const [ours, , , ratio] = figures['Script, bytes by gzip'];
  assert.ok(ours <= 3100, `${ours} B`);
  assert.ok(ratio <= 0.06, `script ${ratio}`);
  assert.ok(figures['Call, hold, hang-up: bytes'][3] <= 0.4, `bytes ${figures['Call, hold, hang-up: bytes'][3]}`);
  const [json, shipped] = figures['Click to ringing, ms'];
  assert.ok(json <= shipped, `${json} ms to ringing, JsSIP ${shipped} ms`);
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(servers.kamailio), []);
});
