/** Hold, seen and heard from both sides. Every page sends a tone of its own, so it is known who hears whom. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { hearsTones, ms, music, note, sleep, startBench, talk } from './fixture.mjs';

const tones = { 5001: 420, 5002: 1000 };
const [first, second] = Object.values(tones);

describe('through Asterisk, which plays the music', () => {
  let bench;
  let a;
  let b;
  before(async () => {
    bench = await startBench(tones);
    [a, b] = [bench.agents[5001], bench.agents[5002]];
  });
  afterEach(() => bench.hangUpAll());
  after(() => bench?.stop());

  const bothHear = async (ours, theirs) => note((await Promise.all([
    hearsTones([a, ours], { has: [second], not: [first, ...music] }), hearsTones([b, theirs], { has: [first], not: [second, ...music] }),
  ])).join('; '));

  test('music while on hold, and each other again afterwards', async () => {
    const [ours, theirs] = await talk(a, b);
    await bothHear(ours, theirs);
    const logged = bench.asterisk.log().length;
    const start = performance.now();
    const held = await a.run('hold', ours, true);
    note(`hold() to callUpdated ${ms(start, performance.now())} ms`);
    assert.equal(held.hold, true);
    assert.equal(held.remoteHold, false);
    note((await Promise.all([
      hearsTones([b, theirs], { has: music, not: [first] }), hearsTones([a, ours], { not: [second, ...music] }),
    ])).join('; '));
    const [offer] = bench.sip('INVITE ', logged).filter((text) => text.includes('From:') && text.includes('a=sendonly'));
    assert.ok(offer, 'a re-INVITE with a=sendonly');

    const back = await a.run('hold', ours, false);
    assert.equal(back.hold, false);
    await bothHear(ours, theirs);
    assert.equal((await a.run('hangup', ours)).reason, 'normal_clearing');
    await bench.quiet();
  });

  test('the called side holds', async () => {
    const [theirs, ours] = await talk(b, a);
    assert.equal((await a.run('hold', ours, true)).hold, true);
    note(await hearsTones([b, theirs], { has: music, not: [first] }));
    assert.equal((await a.run('hold', ours, false)).hold, false);
    await bothHear(ours, theirs);
  });

  test('both hold, one comes back, then the other', async () => {
    const [ours, theirs] = await talk(a, b);
    await Promise.all([a.run('hold', ours, true), b.run('hold', theirs, true)]);
    await sleep(500);
    await a.run('hold', ours, false);
    // the other side still holds: music here, nothing there
    note((await Promise.all([hearsTones([a, ours], { has: music, not: [second] }), hearsTones([b, theirs], { not: [first, ...music] })])).join('; '));
    await b.run('hold', theirs, false);
    await bothHear(ours, theirs);
  });

  test('hold three times over: every re-offer is numbered higher than the one before', async () => {
    const [ours, theirs] = await talk(a, b);
    const logged = bench.asterisk.log().length;
    for (const hold of [true, false, true, false, true, false]) assert.equal((await a.run('hold', ours, hold)).hold, hold);
    await bothHear(ours, theirs);
    const versions = bench.sip('INVITE ', logged).filter((text) => text.includes('a=sendonly') || text.includes('a=sendrecv'))
      .filter((text) => !text.includes('s=Asterisk')).map((text) => Number(/^o=\S+ \S+ (\d+)/m.exec(text)[1]));
    const rising = [...new Set(versions)].sort((x, y) => x - y);
    assert.deepEqual(versions, rising);
    assert.equal(versions.length, 6);
  });

  test('a held call can be hung up, by either side', async () => {
    for (const who of ['holder', 'held']) {
      const [ours, theirs] = await talk(a, b);
      await a.run('hold', ours, true);
      if (who === 'holder') await a.run('hangup', ours);
      else await b.run('hangup', theirs);
      assert.equal((await a.ended(ours)).reason, 'normal_clearing');
      assert.equal((await b.ended(theirs)).reason, 'normal_clearing');
      await bench.quiet();
    }
  });

  test('hold of a call that nobody has answered is refused', async () => {
    const ours = await a.run('call', '408');
    await a.reaches(ours, 'ringing');
    await assert.rejects(a.run('hold', ours, true));
    assert.equal((await a.about(ours)).state, 'ringing');
    assert.equal((await a.run('hangup', ours)).reason, 'cancelled');
  });

  test('nothing went wrong that nobody saw', () => bench.clean());
});

describe('between browsers of one Kamailio: the held side is told, and hears nothing', () => {
  let bench;
  let a;
  let b;
  before(async () => {
    bench = await startBench(tones, { local: true });
    [a, b] = [bench.agents[5001], bench.agents[5002]];
  });
  afterEach(() => bench.hangUpAll());
  after(() => bench?.stop());

  for (const [who, holder] of [['caller', 0], ['called side', 1]]) {
    test(`the ${who} holds`, async () => {
      const calls = await talk(a, b);
      const near = holder === 0 ? [a, calls[0]] : [b, calls[1]];
      const far = holder === 0 ? [b, calls[1]] : [a, calls[0]];
      const farId = (await far[0].about(far[1])).id;
      const mine = ({ callId }) => callId === farId;

      assert.equal((await near[0].run('hold', near[1], true)).hold, true);
      const told = await far[0].gets('callUpdated', (p) => p.remoteHold && p.callId);
      assert.deepEqual([told.callId, told.hold], [farId, false]);
      assert.equal(told.answerNeeded, undefined, 'answered by the server, the browser has nothing to do');
      note((await Promise.all([near, far].map((one) => hearsTones(one, { not: [first, second] })))).join('; '));

      assert.equal((await near[0].run('hold', near[1], false)).hold, false);
      await far[0].gets('callUpdated', (p) => p.callId && !p.remoteHold);
      const all = await far[0].got('callUpdated');
      assert.deepEqual(all.filter(mine).map(({ remoteHold }) => remoteHold), [true, false]);
      note((await Promise.all([
        hearsTones([a, calls[0]], { has: [second], not: [first] }), hearsTones([b, calls[1]], { has: [first], not: [second] }),
      ])).join('; '));
      await near[0].run('hangup', near[1]);
    });
  }

  test('both hold: silence both ways until both are back', async () => {
    const [ours, theirs] = await talk(a, b);
    await Promise.all([a.run('hold', ours, true), b.run('hold', theirs, true)]);
    await a.run('hold', ours, false);
    note((await Promise.all([hearsTones([a, ours], { not: [second] }), hearsTones([b, theirs], { not: [first] })])).join('; '));
    await b.run('hold', theirs, false);
    note((await Promise.all([hearsTones([a, ours], { has: [second] }), hearsTones([b, theirs], { has: [first] })])).join('; '));
  });

  test('nothing went wrong that nobody saw', () => bench.clean());
});
