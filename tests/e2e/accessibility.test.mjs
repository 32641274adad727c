/**
 * The phone page as assistive technology has it: axe-core finds nothing in any state, light or dark, and everything can be
 * done by keys. RTC_JSON_SHOTS names a folder for a picture of each state.
 */
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { complaints, note, startBrowser, startKamailio, until } from './fixture.mjs';
import { accessible as findsNothing } from '../common/axe.mjs';
import { servePages } from '../common/browser.mjs';

const shots = process.env.RTC_JSON_SHOTS;

let kamailio;
let browser;
let pages;
let a;
let b;
let c;
before(async () => {
  kamailio = await startKamailio({ mode: 'local', workers: 4 });
  pages = await servePages();
  browser = await startBrowser();
  [a, b, c] = [await open('5001', 'Ada Berg'), await open('5002', 'Ben Olsen'), await open('5003', 'Cleo Wang')];
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await kamailio?.stop();
});

async function open(dn, name) {
  const page = await browser.page();
  await page.setViewportSize({ width: 820, height: 780 });
  await page.goto(`${pages.url}index-custom.html?ws=${encodeURIComponent(kamailio.wssUrl)}&dn=${dn}&name=${encodeURIComponent(name)}`);
  return page;
}

const view = (page, name) => page.waitForSelector(`[data-view="${name}"]`);
const says = (page, id, wanted) => until(async () => (await page.textContent(`#${id}`)).trim() === wanted, { what: `#${id} says ${wanted}` })
  .catch(async (error) => { throw new Error(`${error.message}, but ${await page.textContent(`#${id}`)}`); });

async function signIn(page) {
  await page.fill('#password', `pw${await page.inputValue('#dn')}`);
  await page.press('#password', 'Enter');
  await view(page, 'dial');
}

/** Fails where axe finds anything in this page, light or dark. */
async function accessible(page, state) {
  await page.bringToFront();
  await findsNothing(page, state, async (theme) => {
    if (shots) await page.screenshot({ path: path.join(shots, `${state.replaceAll(' ', '-')}-${theme}.png`) });
  });
  note(`${state}: no violation`);
}

test('signing in', async () => {
  await accessible(a, 'sign in');
  for (const page of [a, b, c]) await signIn(page);
});

test('idle, by keys only: digits wherever the focus is, Enter calls', async () => {
  await accessible(a, 'idle');
  await a.keyboard.type('5002');
  assert.equal(await a.inputValue('#dial'), '5002');
  await accessible(a, 'dialled');
  await a.keyboard.press('Enter');
  await view(a, 'call');
  await b.waitForSelector('#incoming:not([hidden])');
});

test('ringing, and called: by Enter, the focus is there already', async () => {
  await accessible(b, 'ringing');
  await says(a, 'call-state', 'Ringing…');
  await accessible(a, 'calling');
  await b.keyboard.press('Enter');
  await says(b, 'call-state', 'Connected');
  await says(a, 'call-state', 'Connected');
});

test('in a call: how it sounds, levels, and all that opens there', async () => {
  await until(async () => /very good · 4[.,]\d/.test(await a.textContent('#quality-text')), { ms: 10_000, what: 'the quality is told' });
  await until(async () => Number(await a.getAttribute('#level-in', 'aria-valuenow')) > 30, { ms: 5000, what: 'the level of the far side is told' });
  await until(async () => Number(await a.getAttribute('#level-out', 'aria-valuenow')) > 30, { ms: 5000, what: 'the own level is told' });
  await accessible(a, 'in a call');
  await a.click('#digits');
  await a.keyboard.type('42#');
  await says(a, 'sent', '42#');
  await accessible(a, 'keypad of a call');
  await a.click('#transfer');
  assert.equal(await a.getAttribute('#digits', 'aria-expanded'), 'false');
  await accessible(a, 'transfer');
  // what is open closes first: the call goes on
  await a.keyboard.press('Escape');
  assert.equal(await a.getAttribute('#transfer', 'aria-expanded'), 'false');
  await says(a, 'call-state', 'Connected');
  await a.click('#hold');
  await says(b, 'call-state', 'The other side has put you on hold');
  await accessible(a, 'on hold');
  await a.click('#hold');
  await says(b, 'call-state', 'Connected');
});

test('a second call rings, is taken, and both are there', async () => {
  await c.bringToFront();
  await c.keyboard.type('5001');
  await c.keyboard.press('Enter');
  await a.waitForSelector('#incoming:not([hidden])');
  await accessible(a, 'call waiting');
  await a.click('#answer');
  await says(c, 'call-state', 'Connected');
  await a.waitForSelector('#others li');
  await accessible(a, 'two calls');
  await a.click('#hangup');
  await says(a, 'peer', '5002');
  await a.click('#hangup');
  await view(a, 'dial');
  await view(b, 'dial');
});

test('asked first: the far side waits while a second one is called, then the two are connected', async () => {
  await a.bringToFront();
  await a.click('#history button >> nth=0');
  await b.waitForSelector('#incoming:not([hidden])');
  await b.click('#answer');
  await says(a, 'call-state', 'Connected');
  await a.click('#transfer');
  await a.fill('#transfer-to', '5003');
  await a.click('#ask-first');
  await c.waitForSelector('#incoming:not([hidden])');
  await c.click('#answer');
  await says(a, 'call-state', 'Connected');
  await says(b, 'call-state', 'The other side has put you on hold');
  await a.click('#others >> text=Connect both');
  await view(a, 'dial');
  await says(b, 'call-state', 'Connected');
  await b.click('#hangup');
  await view(c, 'dial');
});

test('declined, missed and made calls are in the list, also after the page was loaded anew', async () => {
  await c.bringToFront();
  await c.fill('#dial', '5001');
  await c.keyboard.press('Enter');
  await a.waitForSelector('#incoming:not([hidden])');
  await says(c, 'call-state', 'Ringing…');
  await c.click('#hangup');
  await a.waitForSelector('#incoming', { state: 'hidden' });
  await until(async () => /Cleo Wang .* missed/.test(await a.textContent('#history button >> nth=0')), { what: 'a missed call is listed' });
  await accessible(a, 'history');
  await a.reload();
  await view(a, 'dial');
  assert.ok(await a.locator('#history button').count() >= 4);
  assert.match(await a.textContent('#history button >> nth=0'), /Cleo Wang .* missed/);
});

test('settings: microphone with its level, appearance, German', async () => {
  await a.bringToFront();
  await a.click('#open-settings');
  await until(async () => Number(await a.getAttribute('#level-test', 'aria-valuenow')) > 30, { ms: 5000, what: 'the microphone is shown at work' });
  assert.ok(await a.locator('#microphone option').count() >= 2);
  await accessible(a, 'settings');
  await a.selectOption('#language', 'de');
  await a.selectOption('#theme', 'dark');
  assert.equal(await a.textContent('#settings-title'), 'Einstellungen');
  await a.keyboard.press('Escape');
  assert.equal(await a.getAttribute('html', 'lang'), 'de');
  await says(a, 'status', 'Angemeldet als 5001');
  await a.emulateMedia({ colorScheme: 'light' });
  assert.equal(await a.evaluate(() => getComputedStyle(document.querySelector('.phone')).backgroundColor), 'rgb(24, 32, 41)');
  await accessible(a, 'idle in German');
  await a.reload();
  await view(a, 'dial');
  await says(a, 'status', 'Angemeldet als 5001');
});

test('on a narrow screen', async () => {
  await c.setViewportSize({ width: 360, height: 740 });
  await accessible(c, 'narrow');
  const [wide, seen] = await c.evaluate(({ scrollWidth, clientWidth } = document.documentElement) => [scrollWidth, clientWidth]);
  assert.ok(wide <= seen, `something sticks out: ${wide} of ${seen} px`);
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(kamailio), []);
});
