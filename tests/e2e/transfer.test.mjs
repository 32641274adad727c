/** Transfers: who is told what, and who hears whom afterwards. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { hearsTones, note, refused, startBench, talk, until } from './fixture.mjs';

const tones = { 5001: 420, 5002: 1000, 5003: 1400 };
const [own, second, third] = Object.values(tones);
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

/** What `transferProgress` said of a call, in order. */
const progress = async (agent, index) => {
  const { id } = await agent.about(index);
  return (await agent.got('transferProgress', ({ callId }) => callId === id)).map(({ state, code }) => (code ? `${state} ${code}` : state));
};

/** Waits until a transfer has come to this. */
async function comesTo(agent, index, state) {
  const { id } = await agent.about(index);
  return agent.gets('transferProgress', (p) => p.callId === id && p.state === state, 8000);
}

const hear = async (...pairs) => note((await Promise.all(pairs.map(([agent, index, has, not]) => hearsTones([agent, index], { has, not })))).join('; '));

describe('blind', () => {
  for (const [how, incoming] of [['a call that it made', false], ['a call that it got', true]]) {
    test(`5001 hands on ${how}: the other two talk`, async () => {
      let [ours, theirs] = incoming ? (await talk(b, a)).reverse() : await talk(a, b);
      const third3 = await c.run('count');
      await a.run('transfer', ours, '5003');
      await c.reaches(third3, 'ringing');
      await c.run('answer', third3);
      assert.equal((await comesTo(a, ours, 'completed')).callId, (await a.about(ours)).id);
      assert.equal((await a.ended(ours)).reason, 'transferred');
      await c.reaches(third3, 'established');
      await hear([b, theirs, [third], [own]], [c, third3, [second], [own]]);
      // the one who was handed on is told by whom it talks to now
      const { id } = await b.about(theirs);
      const { remote } = await b.gets('callUpdated', (p) => p.callId === id && p.remote);
      assert.equal(remote.number, '5003', JSON.stringify(remote));
      note(`progress: ${await progress(a, ours)}`);
      await b.run('hangup', theirs);
      assert.equal((await c.ended(third3)).reason, 'normal_clearing');
      await bench.quiet();
    });
  }

  test('to an echo: 5002 hears itself', async () => {
    const [ours, theirs] = await talk(a, b);
    await a.run('transfer', ours, '600');
    assert.equal((await a.ended(ours)).reason, 'transferred');
    await hear([b, theirs, [second], [own]]);
    assert.match((await progress(a, ours)).at(-1), /^completed/);
  });

  test('a held call is handed on: the music ends', async () => {
    const [ours, theirs] = await talk(a, b);
    await a.run('hold', ours, true);
    await a.run('transfer', ours, '600');
    assert.equal((await a.ended(ours)).reason, 'transferred');
    await hear([b, theirs, [second], [own, 523, 659, 784]]);
  });

  for (const [number, why] of [['9999', 'a number that does not exist']]) {
    test(`to ${why}: failed, and both talk on`, async () => {
      const [ours, theirs] = await talk(a, b);
      await a.run('transfer', ours, number);
      const failed = await comesTo(a, ours, 'failed');
      assert.equal(failed.code, 404);
      await hear([a, ours, [second], [own]], [b, theirs, [own], [second]]);
      assert.equal((await a.about(ours)).state, 'established');
      // and can be handed on after all
      await a.run('transfer', ours, '600');
      assert.equal((await a.ended(ours)).reason, 'transferred');
      await hear([b, theirs, [second], [own]]);
    });
  }

  test('a call with nobody in a bridge cannot be handed on by Asterisk: failed, and the echo goes on', async () => {
    const ours = await a.callAndWait('600');
    await until(async () => (await a.run('sound', ours)).packets > 10, { what: 'the echo' });
    await a.run('transfer', ours, '601');
    assert.equal((await comesTo(a, ours, 'failed')).code, 400);
    await hear([a, ours, [own], []]);
  });

  test('to a number whose line hangs up at once: the other party is lost, 5001 is told that it failed, and its call ends', async () => {
    const [ours, theirs] = await talk(a, b);
    await a.run('transfer', ours, '486');
    assert.equal((await comesTo(a, ours, 'failed')).code, 503);
    await b.ended(theirs);
    assert.equal((await b.got('callEnded')).at(-1).cause, 17);
    // Asterisk has taken its channel away, and sends no BYE
    assert.equal((await a.ended(ours)).reason, 'normal_clearing');
    await bench.quiet();
  });

  test('what cannot be a number is refused', async () => {
    const [ours] = await talk(a, b);
    const { id } = await a.about(ours);
    for (const to of ['', '600@evil.example', '600\r\nX: y', 'x'.repeat(65), undefined]) await refused(a, 'transfer', { callId: id, to }, 400);
    await refused(a, 'transfer', { callId: 'nobody', to: '600' }, 404);
    assert.equal((await a.about(ours)).state, 'established');
  });
});

describe('attended', () => {
  for (const [how, incoming] of [['two calls that 5001 made', false], ['one that it got and one that it made', true]]) {
    test(`${how}: the other two talk, both calls of 5001 end`, async () => {
      const [ours, theirs] = incoming ? (await talk(b, a)).reverse() : await talk(a, b);
      await a.run('hold', ours, true);
      const [other, thirds] = await talk(a, c);
      await hear([a, other, [third], [second]], [c, thirds, [own], [second]]);
      await a.run('attended', ours, other);
      await comesTo(a, ours, 'completed');
      assert.equal((await a.ended(ours)).reason, 'transferred');
      assert.equal((await a.ended(other)).reason, 'transferred');
      await hear([b, theirs, [third], [own]], [c, thirds, [second], [own]]);
      for (const [agent, index, number] of [[b, theirs, '5003'], [c, thirds, '5002']]) {
        const { id } = await agent.about(index);
        const { remote } = await agent.gets('callUpdated', (p) => p.callId === id && p.remote);
        assert.equal(remote.number, number, JSON.stringify(remote));
      }
      await c.run('hangup', thirds);
      assert.equal((await b.ended(theirs)).reason, 'normal_clearing');
      await bench.quiet();
    });
  }

  test('with a call that does not exist, or with itself: refused, both go on', async () => {
    const [ours, theirs] = await talk(a, b);
    const { id } = await a.about(ours);
    await refused(a, 'transfer', { callId: id, withCallId: 'nobody' }, 404);
    await refused(a, 'transfer', { callId: id, withCallId: id }, 400);
    // a call of another agent is one that does not exist
    await refused(a, 'transfer', { callId: id, withCallId: (await b.about(theirs)).id }, 404);
    await hear([a, ours, [second], [own]]);
  });
});

describe('by the far side', () => {
  test('Asterisk refers 5001 to the echo (REFER in its call): it hears itself', async () => {
    const ours = await a.callAndWait('607');
    const { id } = await a.about(ours);
    // the call goes on under its own name, with another far side
    assert.equal((await a.gets('callUpdated', (p) => p.callId === id && p.remote)).remote.number, '600');
    const start = performance.now();
    await until(async () => (await a.run('spectrum', ours, [own], 100))[0] > 0.1, { ms: 3000, what: '5001 hears itself' });
    note(`5001 hears the echo ${Math.round(performance.now() - start)} ms after it was told`);
    await hear([a, ours, [own], []]);
    assert.equal((await a.about(ours)).state, 'established');
    assert.ok(bench.sip('NOTIFY ').some((text) => /^Subscription-State: terminated[^]*^SIP\/2\.0 200/m.test(text)), 'Asterisk is told that it worked');
  });

  test('Asterisk replaces a call by another (INVITE with Replaces): 5001 talks to 5003 without ringing', async () => {
    const [ours, theirs] = await talk(b, a).then((pair) => pair.reverse());
    const { sipCallId } = (await bench.kamailio.rpcRows('rtc_json.calls')).find(({ dn }) => String(dn) === '5001');
    const invite = bench.sip(`INVITE sip:5001@`).findLast((text) => text.includes(`Call-ID: ${sipCallId}`));
    const answer = bench.sip('SIP/2.0 200').findLast((text) => text.includes(`Call-ID: ${sipCallId}`) && /CSeq: \d+ INVITE/.test(text));
    const [toTag, fromTag] = [/^To:.*;tag=(\S+)/m.exec(answer)[1], /^From:.*;tag=(\S+)/m.exec(invite)[1]];
    await bench.asterisk.rx(`dialplan set global REPLACES ${sipCallId};to-tag=${toTag};from-tag=${fromTag}`);
    const count = await a.run('count');
    const thirds = await c.run('call', '6085001');
    await c.reaches(thirds, 'established', 8000);
    assert.equal((await b.ended(theirs)).reason, 'normal_clearing');
    assert.equal(await a.run('count'), count, 'the call goes on under its own name');
    const { id } = await a.about(ours);
    const { remote } = await a.gets('callUpdated', (p) => p.callId === id && p.remote);
    assert.equal(remote.number, '5003');
    const start = performance.now();
    await until(async () => (await a.run('spectrum', ours, [third], 100))[0] > 0.1, { ms: 3000, what: '5001 hears 5003' });
    note(`5001 hears 5003 ${Math.round(performance.now() - start)} ms after the answer`);
    await hear([a, ours, [third], [second]], [c, thirds, [own], [second]]);
  });
});

test('nothing went wrong that nobody saw', () => bench.clean());
