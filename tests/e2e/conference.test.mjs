/** Conferences: everyone hears everyone, measured by a tone of each page's own. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { hearsTones, note, refused, startBench, talk, until } from './fixture.mjs';

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
const id = async (agent, index) => (await agent.about(index)).id;

/** 5001 talks to 5002 and to 5003. */
async function twoCalls() {
  const [one, theirs] = await talk(a, b);
  await a.run('hold', one, true);
  const [two, thirds] = await talk(a, c);
  return { one, two, theirs, thirds };
}

/** Waits until the conference that has this call is up. */
async function inRoom(callId) {
  try {
    return await until(async () => (await a.got('conferenceUpdated', (p) => p.state === 'active' && p.callIds.includes(callId)))[0], { ms: 10_000 });
  } catch { throw new Error(`no conference\n${await a.transcript()}`); }
}

/** How many are in a room of Asterisk. */
async function users(room) {
  const line = (await bench.asterisk.rx('confbridge list')).split('\n').find((text) => text.startsWith(`${room} `));
  return Number(line?.split(/\s+/)[1] ?? 0);
}

for (const { how, room, expected } of [
  { how: 'in the room that the server chooses', expected: 'conf-5001' },
  { how: 'in a room of the agent’s choice', room: '712', expected: '712' },
]) {
  test(`three ${how}: everyone hears everyone, and nobody hears itself`, async () => {
    const { one, two, theirs, thirds } = await twoCalls();
    const [oneId, twoId] = [await id(a, one), await id(a, two)];
    await Promise.all([a.run('watchAgain', one), b.run('watchAgain', theirs), c.run('watchAgain', thirds)]);
    const start = performance.now();
    await a.run('conference', [one, two], room);
    const active = await inRoom(oneId);
    note(`conference() to active ${Math.round(performance.now() - start)} ms`);
    assert.equal(active.room, expected);
    // the first call is the one with the room now, the other one is over
    assert.equal(active.callIds[0], oneId);
    assert.equal((await a.ended(two)).reason, 'transferred');
    const { remote } = await a.gets('callUpdated', (p) => p.callId === oneId && p.remote);
    assert.equal(remote.number, expected);
    await until(async () => await users(expected) === 3, { what: 'three in the room' });
    assert.ok(!(await a.got('callEnded')).some(({ callId }) => callId === oneId));

    await hear([a, one, [second, third], [first]], [b, theirs, [first, third], [second]], [c, thirds, [first, second], [third]]);
    const gaps = await Promise.all([[a, one], [b, theirs], [c, thirds]].map(async ([agent, index]) => `${agent.dn} ${Math.round((await agent.about(index)).watched.longest)} ms`));
    note(`longest time without a packet: ${gaps.join(', ')}`);

    // one is muted: the other two go on
    await b.run('mute', theirs, true);
    await hear([a, one, [third], [first, second]], [b, theirs, [first, third], []], [c, thirds, [first], [second, third]]);
    await b.run('mute', theirs, false);

    // the one who made it leaves: the others stay together
    assert.equal((await a.run('hangup', one)).reason, 'normal_clearing');
    await until(async () => await users(expected) === 2, { what: 'two in the room' });
    await hear([b, theirs, [third], [first, second]], [c, thirds, [second], [first, third]]);
    assert.notEqual(twoId, oneId);
    await b.run('hangup', theirs);
    await c.run('hangup', thirds);
    await bench.quiet();
  });
}

test('calls that came in can be put together, too', async () => {
  const [theirs, one] = await talk(b, a);
  await a.run('hold', one, true);
  const [thirds, two] = await talk(c, a);
  await a.run('conference', [two, one]);
  await inRoom(await id(a, two));
  await until(async () => await users('conf-5001') === 3, { what: 'three in the room' });
  await hear([a, two, [second, third], [first]], [b, theirs, [first, third], [second]], [c, thirds, [first, second], [third]]);
});

test('a room that does not exist: failed, and the calls go on', async () => {
  const { one, two, theirs, thirds } = await twoCalls();
  await a.run('conference', [one, two], '9999');
  const failed = await a.gets('conferenceUpdated', (p) => p.state === 'failed', 10_000);
  assert.equal(failed.room, '9999');
  for (const index of [one, two]) assert.equal((await a.about(index)).state, 'established');
  // whatever was tried, each of them can still be talked to
  await a.run('hold', two, true);
  await a.run('hold', one, false);
  await hear([a, one, [second], [third]], [b, theirs, [first], []]);
  await a.run('hold', one, true);
  await a.run('hold', two, false);
  await hear([a, two, [third], [second]], [c, thirds, [first], []]);
});

test('one call alone, or a call of somebody else, is no conference', async () => {
  const [one, theirs] = await talk(a, b);
  const [mine, foreign] = [await id(a, one), await id(b, theirs)];
  for (const callIds of [[mine], [], [mine, mine]]) await refused(a, 'conference', { callIds }, 400);
  for (const callIds of [[mine, foreign], [mine, 'nobody']]) await refused(a, 'conference', { callIds }, 404);
  await hear([a, one, [second], [first]]);
});

test('nothing went wrong that nobody saw', () => bench.clean());
