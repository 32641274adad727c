/** Two calls of one agent at a time. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { hearsTones, music, note, startBench, talk } from './fixture.mjs';

const tones = { 5001: 420, 5002: 1000, 5003: 1400 };
const [first, second, third] = Object.values(tones);
let bench;
let a;
let b;
let c;
before(async () => {
  bench = await startBench(tones);
  [a, b, c] = [bench.agents[5001], bench.agents[5002], bench.agents[5003]];
});
afterEach(() => bench.hangUpAll());
after(() => bench?.stop());

const hear = async (...all) => note((await Promise.all(all.map(([agent, index, has, not]) => hearsTones([agent, index], { has, not })))).join('; '));

test('a second call comes in, the first is held, and 5001 goes from one to the other and back', async () => {
  const [one, theirs] = await talk(a, b);
  const two = await a.run('count');
  const thirds = await c.run('call', '5001');
  const ringing = await a.reaches(two, 'ringing');
  assert.equal(ringing.from, '5003');
  // the first call is not disturbed by the ringing
  await hear([a, one, [second], [third]], [b, theirs, [first], music]);

  await a.run('hold', one, true);
  await a.run('answer', two);
  await c.reaches(thirds, 'established');
  await hear([a, two, [third], [second]], [c, thirds, [first], music], [b, theirs, music, [first, third]], [a, one, [], [second, third, ...music]]);

  for (const [held, active] of [[two, one], [one, two]]) {
    await a.run('hold', held, true);
    await a.run('hold', active, false);
    const back = active === one;
    await hear(
      [a, active, [back ? second : third], [back ? third : second]],
      [b, theirs, back ? [first] : music, back ? [third, ...music] : [first, third]],
      [c, thirds, back ? music : [first], back ? [first, second] : [second, ...music]],
    );
  }

  assert.equal((await a.run('hangup', two)).reason, 'normal_clearing');
  assert.equal((await c.ended(thirds)).reason, 'normal_clearing');
  assert.equal((await a.about(one)).state, 'established');
  await a.run('hold', one, false);
  await hear([a, one, [second], [third]], [b, theirs, [first], music]);
  assert.equal((await a.run('hangup', one)).reason, 'normal_clearing');
  await bench.quiet();
});

test('a second call is declined: the first goes on', async () => {
  const [one, theirs] = await talk(a, b);
  const two = await a.run('count');
  const thirds = await c.run('call', '5001');
  await a.reaches(two, 'ringing');
  await a.run('hangup', two, 'busy');
  assert.equal((await c.ended(thirds)).reason, 'user_busy');
  await hear([a, one, [second], [third]], [b, theirs, [first], music]);
});

test('the caller on hold hangs up while 5001 talks to the other', async () => {
  const [one, theirs] = await talk(a, b);
  await a.run('hold', one, true);
  const [two, thirds] = await talk(a, c);
  await b.run('hangup', theirs);
  assert.equal((await a.ended(one)).reason, 'normal_clearing');
  await hear([a, two, [third], [second]], [c, thirds, [first], music]);
});

test('nothing went wrong that nobody saw', () => bench.clean());
