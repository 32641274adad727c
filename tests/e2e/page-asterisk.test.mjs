/** The phone page with Asterisk behind it: what only a media server can do, and a contact centre that calls. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { signal } from '../common/cleanup.mjs';
import { openPeer } from '../sip/peer.mjs';
import { tm } from '../sip/support.mjs';
import { complaints, startBrowser, startUpstream, until } from './fixture.mjs';
import { servePages } from '../common/browser.mjs';

let servers;
let browser;
let pages;
let centre;
const people = {};
before(async () => {
  servers = await startUpstream({ params: { headers_in: 'X-Genesys-*', next_hop_interval: 1 }, cfgExtra: tm({ fr_timer: 1500 }) });
  centre = await openPeer(servers.asterisk.port);
  pages = await servePages();
  browser = await startBrowser();
  for (const dn of ['5001', '5002', '5003']) {
    const page = await browser.page(`${pages.url}index-custom.html?ws=${encodeURIComponent(servers.kamailio.wssUrl)}&dn=${dn}`);
    await page.fill('#password', `pw${dn}`);
    await page.press('#password', 'Enter');
    await page.waitForSelector('[data-view="dial"]');
    people[dn] = page;
  }
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await centre?.close();
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});

const says = (page, id, wanted) => until(async () => wanted.test(await page.textContent(`#${id}`)), { what: `#${id} says ${wanted}` })
  .catch(async (error) => { throw new Error(`${error.message}, but ${await page.textContent(`#${id}`)}`); });

test('recorded, paused, gone on with, stopped; then a third one comes, and all are in a conference', async () => {
  const { 5001: a, 5002: b, 5003: c } = people;
  await a.fill('#dial', '5002');
  await a.press('#dial', 'Enter');
  await b.click('#answer');
  await a.waitForSelector('#sound:not([hidden])');

  await a.click('#record');
  await says(a, 'recording-text', /^Recording$/);
  assert.equal(await a.getAttribute('#record', 'aria-pressed'), 'true');
  await a.click('#pause-recording');
  await says(a, 'recording-text', /^Recording paused$/);
  await a.click('#pause-recording');
  await says(a, 'recording-text', /^Recording$/);
  // Asterisk opens the file with the first sound that it records
  await until(() => servers.asterisk.recordings().some((name) => name.endsWith('.wav')), { what: 'Asterisk records' });
  await a.click('#record');
  await a.waitForSelector('#recording-line', { state: 'hidden' });

  await a.click('#add');
  await a.fill('#add-number', '5003');
  await a.press('#add-number', 'Enter');
  await c.click('#answer');
  await says(c, 'call-state', /Connected/);
  await a.waitForSelector('#others li');
  await a.click('#others >> text=Conference');
  await says(a, 'notice', /You are in a conference/);
  await until(async () => Number(/^conf-5001\s+(\d+)/m.exec(await servers.asterisk.rx('confbridge list'))?.[1]) === 3, { what: 'three are in the room' });
  for (const page of [a, b, c]) {
    await page.click('#hangup');
    await page.waitForSelector('[data-view="dial"]');
  }
});

test('a contact centre calls: its data are on the screen before the call is taken', async () => {
  const { 5001: a } = people;
  const leg = centre.leg('5001', { local: `"Contact Centre" <sip:genesys@127.0.0.1:${centre.port}>`, remote: `<sip:5001@127.0.0.1:${servers.asterisk.port}>` });
  const body = ['v=0', 'o=- 1 1 IN IP4 127.0.0.1', 's=-', 'c=IN IP4 127.0.0.1', 't=0 0', 'm=audio 40000 RTP/AVP 0', 'a=rtpmap:0 PCMU/8000', 'a=sendrecv', ''].join('\r\n');
  leg.invite({ body, headers: ['X-Genesys-CallUUID: 01ABCDEFGH0000', 'X-Genesys-UserData: queue=sales;name="Jane, Roe"'] });
  await a.waitForSelector('#incoming:not([hidden])');
  assert.equal(await a.textContent('#incoming-who'), 'Contact Centre');
  await says(a, 'caller-data', /01ABCDEFGH0000/);
  await says(a, 'caller-data', /queue=sales;name="Jane, Roe"/);
  await a.click('#decline');
  const refused = await leg.answer();
  // (Asterisk makes its own of our 603)
  assert.ok([403, 603].includes(refused.status), `the centre is told: ${refused.status}`);
  leg.ack(refused);
  await a.waitForSelector('#incoming', { state: 'hidden' });
  // refused is not missed
  assert.doesNotMatch(await a.textContent('#history li >> nth=0'), /missed/);
});

test('Asterisk is silent: the page says so as long as that lasts, also the one that is loaded meanwhile', async () => {
  const { 5001: a, 5002: b } = people;
  await says(a, 'status', /^Signed in as 5001$/);
  await until(() => /next hop: .* answers/.test(servers.kamailio.log()), { ms: 20_000, what: 'Kamailio has seen Asterisk' });
  signal(servers.asterisk.pid, 'SIGSTOP');
  try {
    for (const page of [a, b]) await says(page, 'status', /^Telephone network does not answer$/);
    await b.reload();
    await says(b, 'status', /^Telephone network does not answer$/);
    await says(b, 'notice', /New calls may fail/);
  } finally { signal(servers.asterisk.pid, 'SIGCONT'); }
  await says(a, 'status', /^Signed in as 5001$/);
  await says(b, 'status', /^Signed in as 5002$/);
  await b.waitForSelector('#notice', { state: 'hidden' });
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(servers.kamailio, /next hop: .* does not answer/), []);
});
