/** Two pages of one DN: one call rings at both, through Asterisk. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { hearsTones, note, refused, startBench, until } from './fixture.mjs';

const tones = { 5001: 420, 5002: 1000 };
const [first, second] = Object.values(tones);
const other = 1400;
let bench;
let caller;
/** @type {import('./fixture.mjs').Agent[]} pages of 5001 */
let pages;
before(async () => {
  bench = await startBench(tones);
  caller = bench.agents[5002];
  pages = [bench.agents[5001], await bench.open('5001', { tone: other })];
});
afterEach(() => bench.hangUpAll());
after(() => bench?.stop());

/** 5002 calls 5001, and both pages ring. */
async function ring() {
  const indices = await Promise.all(pages.map((page) => page.run('count')));
  const made = await caller.run('call', '5001');
  await Promise.all(pages.map((page, i) => page.reaches(indices[i], 'ringing')));
  return { made, indices };
}

for (const winner of [0, 1]) {
  test(`page ${winner + 1} answers: it has the call, the other one is told answered_elsewhere`, async () => {
    const { made, indices } = await ring();
    const loser = 1 - winner;
    await pages[winner].run('answer', indices[winner]);
    await caller.reaches(made, 'established');
    const end = await pages[loser].ended(indices[loser]);
    assert.deepEqual([end.reason, end.duration], ['answered_elsewhere', 0]);
    const own = winner === 0 ? first : other;
    note((await Promise.all([
      hearsTones([caller, made], { has: [own], not: [second, winner === 0 ? other : first] }),
      hearsTones([pages[winner], indices[winner]], { has: [second], not: [own] }),
    ])).join('; '));
    assert.equal(await bench.asterisk.channels(), 2, 'Asterisk has called 5001 once');
    await caller.run('hangup', made);
    assert.equal((await pages[winner].ended(indices[winner])).reason, 'normal_clearing');
    await bench.quiet();
  });
}

test('the caller gives up: both pages are told cancelled', async () => {
  const { made, indices } = await ring();
  await caller.run('hangup', made);
  const ends = await Promise.all(pages.map((page, i) => page.ended(indices[i])));
  assert.deepEqual(ends.map(({ reason }) => reason), ['cancelled', 'cancelled']);
  await bench.quiet();
});

test('one page declines: that is the agent’s word, and the call is over everywhere', async () => {
  const { made, indices } = await ring();
  await pages[0].run('hangup', indices[0], 'declined');
  assert.equal((await caller.ended(made)).reason, 'call_rejected');
  const ends = await Promise.all(pages.map((page, i) => page.ended(indices[i])));
  note(`the pages are told ${ends.map(({ reason }) => reason)}`);
  assert.equal(ends[0].reason, 'call_rejected');
  await bench.quiet();
});

test('a call that is up is of its page alone: the other one can make one of its own', async () => {
  const { made, indices } = await ring();
  await pages[0].run('answer', indices[0]);
  await caller.reaches(made, 'established');
  const echo = await pages[1].callAndWait('600');
  await until(async () => (await pages[1].run('sound', echo)).packets > 10, { what: 'the echo' });
  note((await Promise.all([
    hearsTones([pages[1], echo], { has: [other], not: [first, second] }), hearsTones([caller, made], { has: [first], not: [other] }),
  ])).join('; '));
  // and has no power over the first
  const { id } = await pages[0].about(indices[0]);
  await refused(pages[1], 'hold', { callId: id, hold: true }, 404);
  await pages[1].run('hangup', echo);
  assert.equal((await caller.about(made)).state, 'established');
});

test('nothing went wrong that nobody saw', () => bench.clean());
