/** The phone page as a person uses it: buttons and keys, in two pages of one Kamailio. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { complaints, sleep, startBrowser, startKamailio, until } from './fixture.mjs';
import { servePages } from '../common/browser.mjs';

let kamailio;
let browser;
let pages;
const people = {};
before(async () => {
  kamailio = await startKamailio({ mode: 'local', workers: 4 });
  pages = await servePages();
  browser = await startBrowser();
  for (const dn of ['5001', '5002', '5003']) people[dn] = await signIn(dn);
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await kamailio?.stop();
});

/** Opens the page and signs in by its form. */
async function signIn(dn) {
  // a context of their own would be better, but they share nothing but storage of the tab
  const page = await browser.page(`${pages.url}index-custom.html?ws=${encodeURIComponent(kamailio.wssUrl)}&dn=${dn}&name=Agent%20${dn}`);
  await page.fill('#password', `pw${dn}`);
  await page.click('#register');
  await page.waitForSelector('[data-view="dial"]');
  return page;
}
const view = (page, name) => page.waitForSelector(`[data-view="${name}"]`, { timeout: 5000 });
const text = (page, id, wanted) => until(async () => (await page.textContent(`#${id}`)).trim() === wanted, { what: `#${id} says ${wanted}` })
  .catch(async (error) => { throw new Error(`${error.message}, but ${await page.textContent(`#${id}`)}`); });
const pressed = (page, id) => page.getAttribute(`#${id}`, 'aria-pressed');
const calls = (page) => page.evaluate(() => [...window.phone.calls].map(({ state, held, from, to }) => ({ state, held: Boolean(held), from, to })));

async function dial(page, number) {
  for (const digit of number) await page.click(`#keypad [data-key="${digit}"]`);
  await page.click('#call');
  await view(page, 'call');
}

test('call, answer, mute, hold, digits, hang up', async () => {
  const { 5001: a, 5002: b } = people;
  await dial(a, '5002');
  await b.waitForSelector('#incoming:not([hidden])');
  assert.equal(await b.textContent('#incoming-who'), 'Agent 5001');
  await b.click('#answer');
  await text(a, 'call-state', 'Connected');
  await text(b, 'call-state', 'Connected');

  await a.click('#mute');
  assert.equal(await pressed(a, 'mute'), 'true');
  await a.click('#mute');
  assert.equal(await pressed(a, 'mute'), 'false');

  await a.click('#hold');
  await text(a, 'call-state', 'On hold');
  await text(b, 'call-state', 'The other side has put you on hold');
  await a.click('#hold');
  await text(b, 'call-state', 'Connected');

  await a.click('#digits');
  await a.click('#call-keypad [data-key="5"]');
  await a.click('#hangup');
  await view(a, 'dial');
  await view(b, 'dial');
});

test('a second call: the first one waits on hold, both can be switched, and be connected', async () => {
  const { 5001: a, 5002: b, 5003: c } = people;
  await a.fill('#dial', '');
  await dial(a, '5002');
  await b.waitForSelector('#incoming:not([hidden])');
  await b.click('#answer');
  await text(a, 'call-state', 'Connected');

  await c.fill('#dial', '');
  await dial(c, '5001');
  await a.waitForSelector('#incoming:not([hidden])');
  assert.equal(await a.textContent('#answer-label'), 'Hold and answer');
  await a.click('#answer');
  await text(c, 'call-state', 'Connected');
  await text(a, 'peer', 'Agent 5003');
  await until(async () => (await calls(a)).find(({ to }) => to === '5002').held, { what: 'the first call is held' });

  await a.click('#others >> text=Switch');
  await text(a, 'peer', '5002');
  await until(async () => {
    const both = await calls(a);
    return !both.find(({ to }) => to === '5002').held && both.find(({ from }) => from === '5003').held;
  }, { what: 'the other call is held now' });

  await a.click('#others >> text=Connect both');
  await view(a, 'dial');
  await until(async () => (await calls(a)).length === 0, { what: 'the agent is out of it' });
  await sleep(500);
  assert.deepEqual([(await calls(b)).length, (await calls(c)).length], [1, 1]);
  await b.click('#hangup');
  await view(c, 'dial');
});

test('loaded anew in mid-call: signed in and in the call again, without a password', async () => {
  const { 5001: a, 5002: b } = people;
  await a.fill('#dial', '');
  await dial(a, '5002');
  await b.waitForSelector('#incoming:not([hidden])');
  await b.click('#answer');
  await text(a, 'call-state', 'Connected');
  await a.reload();
  await view(a, 'call');
  await text(a, 'call-state', 'Connected');
  await text(a, 'peer', '5002');
  assert.equal(await a.inputValue('#password'), '');
  await a.click('#hangup');
  await view(b, 'dial');
});

test('the server is to become empty: the page says so, and a call in progress goes on', async () => {
  const { 5001: a, 5002: b } = people;
  await a.fill('#dial', '');
  await dial(a, '5002');
  await b.waitForSelector('#incoming:not([hidden])');
  await b.click('#answer');
  await text(a, 'call-state', 'Connected');
  await kamailio.rpc('rtc_json.drain');
  try {
    for (const page of [a, b]) await text(page, 'notice', 'This server takes no new calls. Sign out and in again to reach another one.');
    await text(b, 'call-state', 'Connected');
    await b.click('#hangup');
    await view(a, 'dial');
  } finally { await kamailio.rpc('rtc_json.drain', 0); }
});

test('signed out: the page asks again when it is loaded anew', async () => {
  const { 5003: c } = people;
  await c.click('#unregister');
  await view(c, 'sign-in');
  await c.reload();
  await view(c, 'sign-in');
  await sleep(300);
  assert.equal(await c.textContent('#status'), 'Offline');
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(kamailio), []);
});
