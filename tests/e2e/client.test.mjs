/** What the client does by itself in a real browser: a page that is loaded anew, a network that comes back, several tabs. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { hearsTones, ms, note, openAgent, sleep, startBench, talk, until } from './fixture.mjs';

const tones = { 5001: 420, 5002: 1000 };
const [first, second] = Object.values(tones);
let bench;
let a;
let b;

/** Servers and agents for the tests of one `describe`. */
function useBench(options) {
  before(async () => {
    bench = await startBench(tones, options);
    [a, b] = [bench.agents[5001], bench.agents[5002]];
  });
  afterEach(() => bench.hangUpAll());
  after(() => bench?.stop());
}

const bothHear = async (ours, theirs) => note((await Promise.all([
  hearsTones([a, ours], { has: [second], not: [first] }), hearsTones([b, theirs], { has: [first], not: [second] }),
])).join('; '));

/** Loads the page of an agent anew and registers without a password. */
async function reload(agent) {
  await agent.page.reload();
  await agent.page.waitForFunction(() => window.agent);
  return agent.run('register', { dn: agent.dn, url: bench.kamailio.wssUrl, tone: tones[agent.dn] });
}
const session = (agent) => agent.messages().then((all) => all.findLast(({ type }) => type === 'registered').payload.session);
const kept = (agent) => agent.page.evaluate(() => sessionStorage.length);

// Of the side that stays, ICE keeps to the old path until it has heard nothing on it for some seconds.
const patience = 12_000;

/** A page goes and comes back in mid-call. */
function testsOfReload() {
for (const caller of [true, false]) {
  test(`the page of the ${caller ? 'caller' : 'called side'} is loaded anew in mid-call: it has the call again, and both hear each other`, async () => {
    const [ours, theirs] = caller ? await talk(a, b) : (await talk(b, a)).reverse();
    const { id } = await a.about(ours);
    const before = await session(a);
    await b.run('watchAgain', theirs);
    const start = performance.now();
    const { calls } = await reload(a);
    assert.equal(await session(a), before, 'the same session');
    assert.deepEqual(calls.map(({ callId, state }) => [callId, state]), [[id, 'established']]);
    const taken = await a.reaches(0, 'established');
    assert.deepEqual([taken.id, taken.direction], [id, caller ? 'out' : 'in']);
    await until(async () => (await a.run('sound', 0)).packets > 10, { ms: patience, what: 'sound reaches the new page' });
    note(`sound ${ms(start, performance.now())} ms after the reload began; ${b.dn} heard nothing for ${Math.round((await b.about(theirs)).watched.longest)} ms`);
    await bothHear(0, theirs);
    assert.equal(await kept(a), 0, 'nothing stays in storage');
    const end = await a.run('hangup', 0);
    assert.equal(end.reason, 'normal_clearing');
    assert.ok(end.duration >= 2);
    await bench.quiet();
  });
}

test('on hold and muted, before and after', async () => {
  const [ours, theirs] = await talk(a, b);
  await a.run('hold', ours, true);
  await a.run('mute', ours, true);
  await reload(a);
  const { held, muted } = await a.reaches(0, 'established');
  assert.deepEqual([held, muted], [true, true]);
  await a.run('hold', 0, false);
  await until(async () => (await a.run('sound', 0)).packets > 10, { ms: patience, what: 'sound reaches the new page' });
  note(await hearsTones([b, theirs], { not: [first] }));
  await a.run('mute', 0, false);
  await bothHear(0, theirs);
});
}

describe('the page is loaded anew, between browsers', () => {
useBench({ local: true });
testsOfReload();

test('loaded anew while the far side rings: answered later, both hear each other', async () => {
  const theirs = await b.run('count');
  await a.run('call', '5002');
  await b.reaches(theirs, 'ringing');
  await reload(a);
  assert.equal((await a.about(0)).state, 'ringing');
  await b.run('answer', theirs);
  await a.reaches(0, 'established');
  await b.reaches(theirs, 'established');
  await until(async () => (await a.run('sound', 0)).packets > 10, { ms: patience, what: 'sound reaches the new page' });
  await bothHear(0, theirs);
});

test('loaded anew while it rings here: it rings again, and can be answered', async () => {
  const index = await b.run('call', '5001');
  await b.reaches(index, 'ringing');
  await reload(a);
  await a.reaches(0, 'ringing');
  await a.run('answer', 0);
  await b.reaches(index, 'established');
  await bothHear(0, index);
});

test('nothing went wrong that nobody saw', () => bench.clean());
});

describe('with Asterisk', () => {
useBench();
// (Asterisk takes no new DTLS association within a dialog: the far side of the new page is a new dialog)
testsOfReload();

test('loaded anew in a call that is in no bridge: the echo goes on', async () => {
  await a.callAndWait('600');
  await reload(a);
  await a.reaches(0, 'established');
  note(await hearsTones([a, 0], { has: [first] }));
  assert.equal(await bench.asterisk.channels(), 1);
  assert.equal((await a.run('hangup', 0)).reason, 'normal_clearing');
  await bench.quiet();
});

test('loaded anew while it rings here: it rings again, and can be answered', async () => {
  const index = await b.run('call', '5001');
  await b.reaches(index, 'ringing');
  await reload(a);
  await a.reaches(0, 'ringing');
  await a.run('answer', 0);
  await b.reaches(index, 'established');
  await bothHear(0, index);
});

test('the browser is in a network again: the session is resumed, every call gets a new path, and the sound goes on', async () => {
  const [ours, theirs] = await talk(a, b);
  const sent = (await a.messages()).length;
  await Promise.all([a.run('watchAgain', ours), b.run('watchAgain', theirs)]);
  await a.page.evaluate(() => window.dispatchEvent(new Event('online')));
  const news = () => a.messages().then((all) => all.slice(sent).map(({ dir, type }) => `${dir} ${type}`));
  await until(async () => (await news()).includes('in callUpdated'), { what: 'the answer' });
  assert.deepEqual((await news()).filter((line) => !line.includes('ping')).slice(0, 4), ['out register', 'in registered', 'out update', 'in callUpdated']);
  await bothHear(ours, theirs);
  for (const [who, index] of [[a, ours], [b, theirs]]) {
    const { longest } = (await who.about(index)).watched;
    note(`${who.dn}: longest time without a packet ${Math.round(longest)} ms`);
    assert.ok(longest < 1000);
  }
});

test('figures of a call', async () => {
  const [ours] = await talk(a, b);
  await sleep(1500);
  const figures = await a.run('stats', ours);
  note(JSON.stringify(figures));
  assert.ok(figures.packetsReceived > 50 && figures.packetsSent > 50);
  assert.ok(figures.loss < 0.2 && figures.jitter < 0.1);
  assert.ok(figures.roundTripTime >= 0 && figures.roundTripTime < 0.2);
  assert.ok(figures.mos > 3 && figures.mos <= 4.5);
});

test('two tabs of one agent: who called last has the microphone, the other call is put on hold', async () => {
  const options = { dn: '5003', url: bench.kamailio.wssUrl, tone: 1400, share: true };
  const tabs = [await openAgent(bench.browser, bench.pages, options), await openAgent(bench.browser, bench.pages, options)];
  const calls = [await tabs[0].callAndWait('600')];
  await sleep(300);
  calls.push(await tabs[1].callAndWait('600'));
  await until(async () => (await tabs[0].about(calls[0])).held, { what: 'the first call is held' });
  assert.ok(!(await tabs[1].about(calls[1])).held);
  await tabs[0].gets('callUpdated', ({ hold }) => hold);
  await tabs[0].run('hold', calls[0], false);
  await until(async () => (await tabs[1].about(calls[1])).held, { what: 'the second call is held' });
  assert.ok(!(await tabs[0].about(calls[0])).held);
  for (const tab of tabs) await tab.page.close();
});

test('the password stays in the page: registration, a call and its end by challenges', async () => {
  const agent = await openAgent(bench.browser, bench.pages, { dn: '5003', url: bench.kamailio.wssUrl, tone: 1400, password: undefined, secret: 'pw5003' });
  const index = await agent.callAndWait('600');
  await agent.run('hold', index, true);
  await agent.run('hold', index, false);
  note(await hearsTones([agent, index], { has: [1400] }));
  assert.equal((await agent.run('hangup', index)).reason, 'normal_clearing');
  const out = (await agent.messages()).filter(({ dir }) => dir === 'out');
  assert.ok(out.some(({ type, payload }) => type === 'register' && payload.digest));
  assert.doesNotMatch(JSON.stringify(out), /pw5003/);
  await agent.page.close();
});

test('a wrong password is told with what can be done about it', async () => {
  await assert.rejects(openAgent(bench.browser, bench.pages, { dn: '5003', url: bench.kamailio.wssUrl, password: 'wrong' }));
});

test('nothing went wrong that nobody saw', () => bench.clean());
});
