/** What of the phone page leaves the page: the tones it plays, what it shows outside of itself, the speaker and the microphone it uses. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { complaints, note, serveTestPages, sleep, startBrowser, startKamailio, until } from './fixture.mjs';

let kamailio;
let browser;
let pages;
let a;
let b;
before(async () => {
  kamailio = await startKamailio({ mode: 'local', workers: 4 });
  pages = await serveTestPages();
  browser = await startBrowser();
  await browser.context.grantPermissions(['microphone', 'notifications'], { origin: new URL(pages.url).origin });
  await browser.context.addInitScript(listenIn);
  [a, b] = [await signIn('5001'), await signIn('5002')];
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await kamailio?.stop();
});

/** Runs in the page before its own scripts: hears what goes to the loudspeaker, and knows each notification. Nothing of it is changed. */
function listenIn() {
  const taps = (window.taps = []);
  const { connect } = AudioNode.prototype;
  AudioNode.prototype.connect = function connectAndListen(to, ...rest) {
    if (to instanceof AudioDestinationNode) {
      if (!taps.some(({ context }) => context === to.context)) taps.push(new AnalyserNode(to.context, { fftSize: 4096 }));
      connect.call(this, taps.find(({ context }) => context === to.context));
    }
    return connect.call(this, to, ...rest);
  };
  const notifications = (window.notifications = []);
  window.Notification = class extends Notification {
    constructor(title, options) {
      super(title, options);
      const entry = { title, body: this.body, events: [] };
      for (const name of ['show', 'close', 'error']) this.addEventListener(name, () => entry.events.push(name));
      notifications.push(entry);
    }
  };
}

async function signIn(dn) {
  const page = await browser.page(`${pages.url}index-custom.html?ws=${encodeURIComponent(kamailio.wssUrl)}&dn=${dn}&name=Agent%20${dn}`);
  await page.fill('#password', `pw${dn}`);
  await page.press('#password', 'Enter');
  await page.waitForSelector('[data-view="dial"]');
  return page;
}

async function ring(from, to, dn) {
  await from.fill('#dial', dn);
  await from.press('#dial', 'Enter');
  await to.waitForSelector('#incoming:not([hidden])');
}

async function connect(from, to, dn) {
  await ring(from, to, dn);
  await to.click('#answer');
  for (const page of [from, to]) await page.waitForSelector('#sound:not([hidden])');
}

async function hangUp(...all) {
  await all[0].click('#hangup');
  for (const page of all) await page.waitForSelector('[data-view="dial"]');
}

/** The greatest amplitude of each of these frequencies that leaves the page within so many milliseconds. */
const loudest = (page, frequencies, ms) => page.evaluate(async ([all, duration]) => {
  const { amplitude } = await import('/spectrum.js');
  const found = all.map(() => 0);
  for (const end = performance.now() + duration; performance.now() < end; await new Promise((done) => { setTimeout(done, 50); })) {
    for (const tap of window.taps) {
      const samples = new Float32Array(tap.fftSize);
      tap.getFloatTimeDomainData(samples);
      all.forEach((hertz, i) => { found[i] = Math.max(found[i], amplitude(samples, tap.context.sampleRate, hertz)); });
    }
  }
  return found;
}, [frequencies, ms]);

const settings = async (page, choose) => {
  await page.click('#open-settings');
  await page.waitForSelector('#settings[open]');
  const chosen = await choose();
  await page.keyboard.press('Escape');
  return chosen;
};

/** Chooses the last device of a list, which is not the one that the system takes. @returns {Promise<string>} its id */
async function chooseLast(page, list) {
  await until(async () => await page.locator(`#${list} option`).count() > 1, { what: `#${list} has a choice` });
  const id = await page.locator(`#${list} option`).last().getAttribute('value');
  await page.selectOption(`#${list}`, id);
  return id;
}

test('who is called hears it ring, who calls hears that it rings there, and both are silent once it is answered', async () => {
  await ring(a, b, '5002');
  // (it rings every three seconds, and every five for the caller)
  const [[low, high], [back]] = await Promise.all([loudest(b, [440, 554], 3200), loudest(a, [425], 5500)]);
  note(`ring: 440 Hz ${low.toFixed(3)}, 554 Hz ${high.toFixed(3)}; ringback: 425 Hz ${back.toFixed(3)}`);
  assert.ok(low > 0.1 && high > 0.1, `the phone rings: ${low}, ${high}`);
  assert.ok(back > 0.03, `the caller hears it: ${back}`);
  await b.click('#answer');
  for (const page of [a, b]) await page.waitForSelector('#sound:not([hidden])');
  await sleep(300);
  const later = await Promise.all([loudest(b, [440, 554], 3200), loudest(a, [425], 3200)]);
  assert.ok(later.flat().every((value) => value < 0.005), `nothing of it is left: ${JSON.stringify(later)}`);
  await hangUp(a, b);
});

test('no ring where that is switched off', async () => {
  await settings(b, () => b.uncheck('#ringtone'));
  await ring(a, b, '5002');
  const heard = await loudest(b, [440, 554], 3200);
  assert.ok(heard.every((value) => value < 0.005), `${heard}`);
  await settings(b, () => b.check('#ringtone'));
  await a.click('#hangup');
  await b.waitForSelector('#incoming', { state: 'hidden' });
});

test('a page that nobody looks at tells of a call outside of itself, until it is answered', async () => {
  await b.evaluate(() => { window.notifications.length = 0; });
  // (playwright keeps every page in sight; only that is made up here, the notification is the browser's)
  await b.evaluate(() => Object.defineProperty(document, 'hidden', { get: () => true, configurable: true }));
  try {
    await ring(a, b, '5002');
    const told = () => b.evaluate(() => window.notifications);
    await until(async () => (await told())[0]?.events.includes('show'), { what: 'a notification is shown' });
    assert.deepEqual((await told()).map(({ title, body }) => [title, body]), [['Agent 5001 calls', '5001']]);
    await b.click('#answer');
    await until(async () => (await told())[0].events.includes('close'), { what: 'it is closed' });
  } finally {
    await b.evaluate(() => { delete document.hidden; });
  }
  await a.waitForSelector('#sound:not([hidden])');
  await hangUp(a, b);
  await ring(a, b, '5002');
  assert.equal(await b.evaluate(() => window.notifications.length), 1, 'none for a page that is looked at');
  await a.click('#hangup');
  await b.waitForSelector('#incoming', { state: 'hidden' });
});

test('another speaker: calls and tones go there, also after the page was loaded anew', async () => {
  const id = await settings(b, () => chooseLast(b, 'speaker'));
  assert.ok(id);
  const sinks = () => b.evaluate(() => [document.getElementById('remote').sinkId, ...window.taps.map(({ context }) => context.sinkId)]);
  await until(async () => (await sinks()).every((sink) => sink === id), { what: `all goes to ${id}` });
  await b.reload();
  await b.waitForSelector('[data-view="dial"]');
  await ring(a, b, '5002');
  await until(async () => (await sinks()).length > 1, { what: 'it rings' });
  await until(async () => (await sinks()).every((sink) => sink === id), { what: `all goes to ${id} again` });
  await a.click('#hangup');
  await b.waitForSelector('#incoming', { state: 'hidden' });
});

test('another microphone in mid-call: the far side hears it, the one before is let go', async () => {
  await connect(a, b, '5002');
  await a.evaluate(() => { window.before = [...window.phone.calls][0].pc.getSenders()[0].track; });
  const id = await settings(a, () => chooseLast(a, 'microphone'));
  const now = () => a.evaluate(() => {
    const { track } = [...window.phone.calls][0].pc.getSenders()[0];
    return { id: track.getSettings().deviceId, live: track.readyState, other: track !== window.before, before: window.before.readyState };
  });
  await until(async () => (await now()).other, { what: 'another track is sent' });
  assert.deepEqual(await now(), { id, live: 'live', other: true, before: 'ended' });
  const heard = () => b.evaluate(async () => (await import('/measure.js')).sound([...window.phone.calls][0].pc));
  const { energy, packets } = await heard();
  await until(async () => { const later = await heard(); return later.packets > packets + 25 && later.energy > energy + 1e-3; },
    { what: 'the far side hears the other microphone' });
  await hangUp(a, b);
  assert.equal(await a.evaluate(() => window.before.readyState), 'ended');
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(kamailio), []);
});
