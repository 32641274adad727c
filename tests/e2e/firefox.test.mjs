/** Firefox as the agent's browser, Chromium at the other end, Asterisk between them: what an agent does all day, and what goes wrong. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { layCable } from './cable.mjs';
import { hears, hearsTones, ms, music, note, sleep, startBench, talk, until } from './fixture.mjs';

const tones = { 5001: 420, 5002: 1000, 5003: 1400 };
const [own, second, third] = Object.values(tones);
let bench;
/** @type {import('./cable.mjs').Cable} */
let cable;
/** @type {import('./fixture.mjs').Agent} in Firefox; the others are in Chromium */
let fox;
let b;
let c;
before(async () => {
  bench = await startBench(tones, { firefox: ['5001'] });
  [b, c] = [bench.agents[5002], bench.agents[5003]];
  cable = await layCable(bench.kamailio.wssPort);
  await bench.agents[5001].page.close();
  fox = await bench.open('5001', { url: cable.url });
});
afterEach(async () => {
  cable.down = false;
  await bench.hangUpAll();
});
after(async () => {
  cable?.close();
  await bench?.stop();
});

/** Both hear each other. (Web Audio of Firefox stands still where there is no sound card: what it hears is measured by its energy.) */
const bothHear = async (ours, theirs) => note((await Promise.all([
  hears([fox, ours]), hearsTones([b, theirs], { has: [own], not: [second] }),
])).join('; '));

test('registers', async () => {
  assert.match(await fox.page.evaluate(() => navigator.userAgent), /Firefox/);
  assert.ok(await bench.asterisk.contact('5001'));
});

test('calls: both hear each other, by PCMU alone', async () => {
  const [ours, theirs] = await talk(fox, b);
  await bothHear(ours, theirs);
  assert.equal((await fox.run('hangup', ours)).reason, 'normal_clearing');
  await bench.quiet();
});

test('is called: both hear each other, the far side hangs up', async () => {
  const [theirs, ours] = await talk(b, fox);
  await bothHear(ours, theirs);
  await b.run('hangup', theirs);
  assert.equal((await fox.ended(ours)).reason, 'normal_clearing');
});

test('hold: music there, and each other again afterwards', async () => {
  const [ours, theirs] = await talk(fox, b);
  await fox.run('hold', ours, true);
  note(await hearsTones([b, theirs], { has: music, not: [own] }));
  await fox.run('hold', ours, false);
  await bothHear(ours, theirs);
  await b.run('hold', theirs, true);
  // (Asterisk keeps it to itself, and plays the music here)
  note((await Promise.all([hears([fox, ours]), hearsTones([b, theirs], { not: [own] })])).join('; '));
  await b.run('hold', theirs, false);
  await bothHear(ours, theirs);
});

test('digits', async () => {
  const since = bench.asterisk.log().length;
  const call = await fox.callAndWait('605');
  await until(async () => (await fox.run('sound', call)).sent > 10, { what: 'sound flows' });
  for (const digit of '5123') await fox.run('dtmf', call, digit);
  const read = await until(() => /"DTMF-READ ([^"]*)"/.exec(bench.asterisk.log().slice(since))?.[1], { what: 'Asterisk has read them' });
  assert.equal(read, '5123');
  assert.equal((await fox.ended(call)).reason, 'normal_clearing');
});

test('hands a call on', async () => {
  const [ours, theirs] = await talk(fox, b);
  const index = await c.run('count');
  await fox.run('transfer', ours, '5003');
  await c.reaches(index, 'ringing');
  await c.run('answer', index);
  assert.equal((await fox.ended(ours, 8000)).reason, 'transferred');
  note((await Promise.all([
    hearsTones([b, theirs], { has: [third], not: [own] }), hearsTones([c, index], { has: [second], not: [own] }),
  ])).join('; '));
});

test('hands a call on after asking: with the call to the one who was asked', async () => {
  const [ours, theirs] = await talk(fox, b);
  await fox.run('hold', ours, true);
  const [asked, index] = await talk(fox, c);
  await fox.run('attended', ours, asked);
  assert.equal((await fox.ended(ours, 8000)).reason, 'transferred');
  note((await Promise.all([
    hearsTones([b, theirs], { has: [third], not: [own] }), hearsTones([c, index], { has: [second], not: [own] }),
  ])).join('; '));
});

test('without a line for five seconds: the call goes on, the page comes back by itself', async () => {
  const [ours, theirs] = await talk(fox, b);
  await Promise.all([fox.run('watchAgain', ours), b.run('watchAgain', theirs)]);
  cable.down = true;
  cable.cut();
  await until(async () => await fox.run('phoneState') === 'reconnecting', { what: 'the loss is seen' });
  await sleep(5000);
  cable.down = false;
  const up = performance.now();
  await until(async () => await fox.run('phoneState') === 'registered', { ms: 10_000, what: 'registered again' });
  note(`registered ${ms(up, performance.now())} ms after the line was back`);
  await bothHear(ours, theirs);
  await silentFor(1000, [fox, ours], [b, theirs]);
});

test('Kamailio is killed in mid-call and started again: the call goes on', async () => {
  const [ours, theirs] = await talk(fox, b);
  await Promise.all([fox.run('watchAgain', ours), b.run('watchAgain', theirs)]);
  await bench.kamailio.kill9();
  await bench.kamailio.start();
  const up = performance.now();
  for (const agent of [fox, b, c]) await until(async () => await agent.run('phoneState') === 'registered', { ms: 10_000, what: `${agent.dn} is registered again` });
  note(`registered ${ms(up, performance.now())} ms after Kamailio was there again`);
  await bothHear(ours, theirs);
  await silentFor(1000, [fox, ours], [b, theirs]);
  assert.equal((await fox.run('hangup', ours)).reason, 'normal_clearing');
});

test('the page is loaded anew in mid-call: it has the call again, both hear each other', async () => {
  const [ours, theirs] = await talk(fox, b);
  const { id } = await fox.about(ours);
  await b.run('watchAgain', theirs);
  const start = performance.now();
  await fox.page.reload();
  await fox.page.waitForFunction(() => window.agent);
  await fox.run('register', { dn: fox.dn, url: cable.url });
  assert.equal((await fox.reaches(0, 'established')).id, id);
  await until(async () => (await fox.run('sound', 0)).packets > 10, { ms: 12_000, what: 'sound reaches the new page' });
  note(`sound ${ms(start, performance.now())} ms after the reload began; 5002 heard nothing for ${Math.round((await b.about(theirs)).watched.longest)} ms`);
  await bothHear(0, theirs);
  assert.equal((await fox.run('hangup', 0)).reason, 'normal_clearing');
});

/** Fails when one of these calls has heard nothing for so long. */
async function silentFor(limit, ...calls) {
  for (const [agent, index] of calls) {
    const { longest } = (await agent.about(index)).watched;
    note(`${agent.dn}: longest time without a packet ${Math.round(longest)} ms`);
    assert.ok(longest < limit, `${agent.dn} heard nothing for ${longest} ms`);
  }
}

test('nothing went wrong that nobody saw', () => bench.clean());
