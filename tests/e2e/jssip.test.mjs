/** JsSIP and the project's own client on one Kamailio and one port. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { bundleJssip } from '../../scripts/jssip-bundle.mjs';
import { Agent, complaints, hears, note, openAgent, serveTestPages, startBrowser, startUpstream, until } from './fixture.mjs';

/** @type {Awaited<ReturnType<typeof startUpstream>>} */
let servers;
let browser;
let pages;
let bundle;
/** @type {import('./fixture.mjs').Agent} JSON, 5001 */
let json;
/** @type {import('./fixture.mjs').Agent} JsSIP, 5003 */
let sip;

before(async () => {
  servers = await startUpstream({ defines: { WITH_JSSIP: true } });
  bundle = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-jssip-'));
  await bundleJssip(bundle);
  pages = await serveTestPages([bundle]);
  browser = await startBrowser();
  json = await openAgent(browser, pages, { dn: '5001', url: servers.kamailio.wssUrl });
  const page = await browser.page(`${pages.url}jssip.html`);
  await page.waitForFunction(() => window.agent);
  sip = new Agent(page, '5003');
  await sip.run('register', { url: servers.kamailio.wssUrl, dn: '5003', password: 'pw5003', domain: '127.0.0.1' });
});
after(async () => {
  await browser?.close();
  await pages?.close();
  if (bundle) fs.rmSync(bundle, { recursive: true });
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});

const channels = (count) => until(async () => await servers.asterisk.channels() === count, { what: `${count} channels in Asterisk` });

test('both are registered at Asterisk, through the same Kamailio', async () => {
  assert.ok(await servers.asterisk.contact('5001'));
  assert.match(await servers.asterisk.contact('5003'), /\.invalid|transport=ws/);
});

test('JsSIP calls the echo and hears itself while the JSON client has a call up', async () => {
  const ours = await json.callAndWait('600');
  const theirs = await sip.callAndWait('600');
  await channels(2);
  note(await hears([json, ours], [sip, theirs]));
  await sip.run('hangup', theirs);
  await channels(1);
  assert.equal((await json.about(ours)).state, 'established');
  assert.equal((await json.run('hangup', ours)).reason, 'normal_clearing');
  await channels(0);
});

test('the JSON client calls JsSIP', async () => {
  const ours = await json.run('call', '5003');
  const theirs = await until(async () => { const about = await sip.about(1); return about && 1; }, { what: 'JsSIP rings' });
  assert.equal((await sip.about(theirs)).from, '5001');
  await sip.run('answer', theirs);
  await json.reaches(ours, 'established');
  await channels(2);
  note(await hears([json, ours], [sip, theirs]));
  await sip.run('hangup', theirs);
  assert.equal((await json.reaches(ours, 'ended')).end.reason, 'normal_clearing');
  await channels(0);
});

test('JsSIP calls the JSON client', async () => {
  const theirs = await sip.run('call', '5001');
  const index = 2;
  assert.equal((await json.reaches(index, 'ringing')).from, '5003');
  await json.run('answer', index);
  await sip.reaches(theirs, 'established');
  // the call must not go past Asterisk, which is the one that asks for a password
  await channels(2);
  note(await hears([json, index], [sip, theirs]));
  assert.equal((await json.run('hangup', index)).reason, 'normal_clearing');
  await sip.reaches(theirs, 'ended');
  await channels(0);
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(servers.kamailio), []);
});
