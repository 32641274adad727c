/** A call outlives the connection of its page, and a crash of Kamailio. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, beforeEach, test } from 'node:test';
import { layCable } from './cable.mjs';
import { complaints, hears, ms, note, openAgent, serveTestPages, sleep, startBrowser, startUpstream, until } from './fixture.mjs';

// two seconds without a line, then at most four until the client tries again
const grace = 8;
// an outage of the sound shorter than this is the jitter of a busy machine
const shortSilence = 1000;

/** @type {Awaited<ReturnType<typeof startUpstream>>} */
let servers;
/** @type {import('./cable.mjs').Cable} */
let cable;
let browser;
let pages;
/** @type {import('./fixture.mjs').Agent} */
let agent;

before(async () => {
  servers = await startUpstream({ params: { resume_grace: grace } });
  cable = await layCable(servers.kamailio.wssPort);
  pages = await serveTestPages();
  browser = await startBrowser();
});
beforeEach(async () => {
  cable.down = false;
  await agent?.page.close();
  await servers.asterisk.rx('channel request hangup all');
  agent = await openAgent(browser, pages, { dn: '5001', url: cable.url });
});
after(async () => {
  await browser?.close();
  cable?.close();
  await pages?.close();
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});

const channels = () => servers.asterisk.channels();
const noChannels = (limit = 5000) => until(async () => await channels() === 0, { ms: limit, what: 'the channel in Asterisk is gone' });
const requests = (method) => servers.asterisk.log().split('--->\n').filter((text) => text.startsWith(`${method} `)).length;

/** When the page said that it is in this state, the first time after `since`. */
async function stateAfter(since, state, limit = 5000) {
  let states;
  try {
    return await until(async () => {
      states = await agent.page.evaluate(() => window.agent.states);
      return states.find((s) => s.at > since && s.state === state)?.at;
    }, { ms: limit });
  } catch { throw new Error(`the page was not ${state} within ${limit} ms: ${JSON.stringify(states)}\n${await agent.transcript()}`); }
}

const clock = () => performance.timeOrigin + performance.now();

async function talk() {
  const call = await agent.callAndWait('600');
  await until(async () => (await agent.run('sound', call)).packets > 25, { what: 'sound flows' });
  await agent.run('watchAgain', call);
  return call;
}

/** Hangs up over the new connection and checks that it reaches Asterisk. */
async function hangUp(call) {
  const up = await channels();
  if (up !== 1) assert.fail(`${up} channels in Asterisk where the call should be up\n${await agent.transcript()}`);
  const byes = requests('BYE');
  const end = await agent.run('hangup', call);
  assert.equal(end.reason, 'normal_clearing');
  await noChannels();
  assert.ok(requests('BYE') > byes, 'Asterisk was sent a BYE');
  return end;
}

test('the socket is cut in mid-call: the sound goes on, the page resumes, hangup works', async () => {
  const call = await talk();
  const cut = clock();
  cable.cut();
  const [lost, back] = [await stateAfter(cut, 'reconnecting'), await stateAfter(cut, 'registered')];
  assert.ok(back - cut < 2000, `back after ${ms(cut, back)} ms`);
  note(await hears([agent, call]));
  const { watched, state } = await agent.about(call);
  assert.equal(state, 'established');
  assert.ok(watched.longest < shortSilence, `silent for ${watched.longest} ms`);
  note(`lost after ${ms(cut, lost)} ms, registered again after ${ms(cut, back)} ms; longest gap in the sound ${Math.round(watched.longest)} ms`);
  const messages = await agent.messages();
  const [first, second] = messages.filter((m) => m.type === 'registered').map((m) => m.payload);
  assert.equal(second.session, first.session, 'the same session');
  assert.deepEqual(second.calls.map(({ callId, state: s }) => [callId, s]), [[(await agent.about(call)).id, 'established']]);
  const end = await hangUp(call);
  assert.ok(end.duration >= 2);
});

test('the line is down for two seconds: the sound goes on meanwhile', async () => {
  const call = await talk();
  cable.down = true;
  cable.cut();
  const start = await agent.run('sound', call);
  await sleep(2000);
  const later = await agent.run('sound', call);
  assert.equal(await agent.run('phoneState'), 'reconnecting');
  assert.equal(cable.connections, 0);
  const seconds = (later.at - start.at) / 1000;
  assert.ok(later.packets - start.packets > seconds * 35, `${later.packets - start.packets} packets in ${seconds} s`);
  assert.ok(later.sent - start.sent > seconds * 35);
  assert.ok(later.energy > start.energy);
  cable.down = false;
  const up = clock();
  const back = await stateAfter(up, 'registered');
  note(`${later.packets - start.packets} packets in ${seconds.toFixed(1)} s without a line; registered again ${ms(up, back)} ms after it was back, try ${cable.tried}`);
  await hangUp(call);
});

test('hung up while the line is down: Asterisk is told as soon as it is back', async () => {
  const call = await talk();
  cable.down = true;
  cable.cut();
  await stateAfter(0, 'reconnecting');
  await agent.page.evaluate((index) => { window.agent.hangup(index); }, call);
  await sleep(500);
  assert.equal(await channels(), 1);
  cable.down = false;
  await noChannels();
  const { end } = await agent.reaches(call, 'ended');
  assert.equal(end.reason, 'normal_clearing');
});

test('the page does not come back: Asterisk gets its BYE after resume_grace', async () => {
  const call = await talk();
  const byes = requests('BYE');
  const cut = clock();
  cable.down = true;
  cable.cut();
  await noChannels((grace + 12) * 1000);
  const took = clock() - cut;
  note(`channel gone ${Math.round(took)} ms after the cut, resume_grace ${grace} s`);
  assert.ok(took >= grace * 1000 - 200, 'not before the grace time');
  assert.ok(requests('BYE') > byes, 'by a BYE');
  // and the page, when it comes back after all, learns it
  cable.down = false;
  assert.ok((await agent.reaches(call, 'ended', 12_000)).end);
});

test('the network is gone for five seconds, for sound and messages alike: both are back, the call goes on', {
  skip: !process.env.RTC_JSON_NAMESPACE && 'there is no network of its own to take down',
}, async () => {
  const call = await talk();
  const { id } = await agent.about(call);
  const start = await agent.run('sound', call);
  const ip = (line) => execFileSync('ip', line.split(' '));
  ip('link set lo down');
  try { await sleep(5000); } finally {
    ip('link set lo up');
    // (what tests/run has put there goes with the interface)
    ip('route replace 8.8.8.8/32 dev lo src 127.0.0.1');
  }
  const up = clock();
  const during = await agent.run('sound', call);
  assert.ok(during.packets - start.packets < 150, `${during.packets - start.packets} packets came without a network`);
  await until(async () => (await agent.run('sound', call)).packets > during.packets + 25, { ms: 12_000, what: 'sound comes again' })
    .catch(async (error) => { throw new Error(`${error.message}\n${await agent.transcript()}`); });
  const sound = clock();
  await until(async () => await agent.run('phoneState') === 'registered', { ms: 12_000, what: 'the phone is registered' });
  // (an echo: what is heard went both ways)
  note(await hears([agent, call]));
  const after = await agent.about(call);
  assert.deepEqual([after.id, after.state], [id, 'established']);
  note(`no sound for ${Math.round(after.watched.longest)} ms, of them ${ms(up, sound)} ms with the network back`);
  await hangUp(call);
});

test('Kamailio is killed in mid-call and started again: the call goes on', async () => {
  const call = await talk();
  const id = (await agent.about(call)).id;
  const killed = clock();
  await servers.kamailio.kill9();
  const dead = clock();
  await servers.kamailio.start();
  const started = clock();
  const back = await stateAfter(killed, 'registered', 10_000);
  note(await hears([agent, call]));
  const { watched, state } = await agent.about(call);
  assert.equal(state, 'established');
  assert.ok((await servers.kamailio.rpcRows('rtc_json.calls')).some(({ callId }) => callId === id), 'the call is still there');
  note(`dead after ${ms(killed, dead)} ms, ready after ${ms(killed, started)} ms, page registered after ${ms(killed, back)} ms; longest gap in the sound ${Math.round(watched.longest)} ms`);
  assert.ok(watched.longest < shortSilence, `silent for ${watched.longest} ms`);
  await hangUp(call);
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(servers.kamailio), []);
});
