/** Things that happen at the same time: whoever wins, every call ends on both sides, once. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp } from './peer.mjs';
import { Bench, endsOf, hopByNumber, messageOf, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

before(async () => {
  kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: tm({ wt_timer: 2000 }), params: { max_calls_per_agent: 64, call_rate: 0 } });
  bench = new Bench(kamailio);
});
after(() => kamailio?.stop());
afterEach(() => bench.finish());

// The seed is printed with a failure, so that the same pauses can be tried again: RTC_JSON_SEED=… node --test …
const seed = Number(process.env.RTC_JSON_SEED ?? Date.now() % 1e9);
let state = seed;
/** A whole number from 0 to `below` - 1 (mulberry32). */
function random(below) {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % below;
}
const seeded = (what) => `${what} (RTC_JSON_SEED=${seed})`;

/**
 * A called side that rings and answers after random pauses and follows RFC 3261, whatever comes. What became of each call
 * stands in `calls`, by Call-ID.
 */
function callee(peer, { ring, answer }) {
  const calls = new Map();
  peer.onRequest((m, repeat) => {
    let c = calls.get(m.callId);
    if (m.method === 'INVITE') {
      if (repeat) return; // on loopback the first reply is on its way already
      c = { invite: m, final: 0, acked: false, cancels: 0, byes: 0 };
      calls.set(m.callId, c);
      // until the ACK: a burst on loopback loses packets, too
      c.end = (code) => {
        c.final = code;
        const send = () => { if (!c.acked) { peer.reply(m, code, code === 200 ? { body: farSdp({ setup: 'active' }) } : {}); setTimeout(send, 500); } };
        send();
      };
      setTimeout(() => {
        if (c.final) return;
        peer.reply(m, 180);
        setTimeout(() => { if (!c.final) c.end(200); }, random(answer));
      }, random(ring));
    } else if (m.method === 'CANCEL') {
      peer.reply(m, c ? 200 : 481);
      if (c && !repeat) c.cancels += 1;
      if (c && !c.final) c.end(487);
    } else if (m.method === 'ACK') {
      if (c) Object.assign(c, { acked: true, unconfirmed: false });
    } else if (m.method === 'BYE') {
      if (c && !repeat) c.byes += 1;
      // whoever is told to end waits for no ACK any more: that one may be lost
      if (c?.final === 200 && !c.acked) Object.assign(c, { acked: true, unconfirmed: true });
      peer.reply(m, c?.final === 200 ? 200 : 481);
    }
  });
  return calls;
}

test('a 200 that crosses the CANCEL is acknowledged and ended by BYE', async () => {
  const far = await bench.far('uas-200-on-cancel');
  const a = await bench.agent('5001');
  const id = a.send('call', { to: to(far), sdp: fakeOffer() });
  const { callId } = await a.waitFor('callProgress', (p) => p.state === 'ringing');
  assert.equal((await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded')).reason, 'cancelled');
  assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 487);
  await far.ok();
  assert.ok(!a.received.some((m) => m.type === 'callAccepted'), a.transcript());
});

test('hung up before the ACK: the BYE waits for it', async () => {
  const b = await bench.agent('5002');
  const peer = await bench.peer();
  const leg = peer.leg('5002');
  leg.invite();
  const { callId } = await b.waitFor('incomingCall');
  await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
  const ok = await leg.answer();
  assert.equal((await b.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded')).reason, 'normal_clearing');
  await sleep(700);
  assert.equal(peer.received((m) => m.method === 'BYE').length, 0, 'RFC 3261, 15');
  assert.ok(peer.log.filter((e) => e.repeat && e.message.status === 200).length >= 1, 'tm repeats the 200 until the ACK');
  leg.ack(ok);
  const bye = await peer.request('BYE');
  assert.deepEqual([bye.toTag, bye.fromTag, bye.callId], [leg.localTag, ok.toTag, leg.callId]);
  peer.reply(bye, 200);
});

test('hang-up against answer, at random moments: every call ends on both sides', async () => {
  const peer = await bench.peer();
  const calls = callee(peer, { ring: 30, answer: 40 });
  const browsers = await Promise.all(['5001', '5002', '5003', '5004', '5005'].map((dn) => bench.agent(dn)));
  const results = { accepted: 0, cancelled: 0 };
  const one = async (a) => {
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    const { callId } = await a.waitFor('callProgress', (p) => p.request === id);
    await sleep(random(90));
    const ended = await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    const outcomes = a.received.filter((m) => m.id === id && m.type !== 'callProgress');
    assert.equal(outcomes.length, 1, seeded(a.transcript()));
    const accepted = outcomes[0].type === 'callAccepted';
    assert.equal(ended.reason, accepted ? 'normal_clearing' : 'cancelled', seeded('the word fits'));
    if (!accepted) assert.equal(outcomes[0].payload.code, 487);
    results[accepted ? 'accepted' : 'cancelled'] += 1;
    return { a, id, callId, accepted };
  };
  const done = [];
  for (let round = 0; round < 8; round += 1) {
    done.push(...await Promise.all(browsers.flatMap((a) => [one(a), one(a), one(a)])));
  }
  await until(() => [...calls.values()].every((c) => c.acked && c.byes === (c.final === 200 ? 1 : 0)),
    { ms: 8000, what: seeded('the far side of every call has its ACK, and its BYE where it answered') });
  for (const { a, id, callId, accepted } of done) {
    assert.equal(endsOf(a, callId).length, 1, seeded(callId));
    if (!accepted) assert.ok(!messageOf(a, 'callAccepted', id), seeded('never accepted after the refusal'));
  }
  assert.ok(calls.size <= done.length && calls.size > done.length / 2);
  // both ways must have been taken, or the pauses are no race
  assert.ok(results.accepted > 5 && results.cancelled > 5, seeded(JSON.stringify(results)));
});

test('CANCEL against 200, a thousand times: none is stuck, every call ends on both sides', async () => {
  const peer = await bench.peer();
  // the hang-up falls around the answer, so that the CANCEL, the 200 and the ACK cross in every order
  const calls = callee(peer, { ring: 4, answer: 16 });
  const browsers = await Promise.all(Array.from({ length: 10 }, (_, i) => bench.agent(String(5001 + i))));
  const results = { accepted: 0, cancelled: 0 };
  const one = async (a) => {
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    const { callId } = await a.waitFor('callProgress', (p) => p.request === id);
    await sleep(random(24));
    const ended = await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    results[ended.reason === 'cancelled' ? 'cancelled' : 'accepted'] += 1;
    return { a, id, callId, reason: ended.reason };
  };
  const done = [];
  for (let round = 0; round < 50; round += 1) done.push(...await Promise.all(browsers.flatMap((a) => [one(a), one(a)])));
  const open = () => [...calls].filter(([, c]) => !c.acked || c.byes !== (c.final === 200 ? 1 : 0)).map(([id]) => id);
  await until(() => open().length === 0, { ms: 15_000, what: 'every call is over at the far side' }).catch(() => {
    const left = open();
    const lines = peer.transcript().split('\n').filter((line) => left.some((id) => line.includes(id)));
    assert.fail(seeded(`no ACK, or not one BYE where the far side has answered:\n${lines.join('\n')}`));
  });
  assert.equal(done.length, 1000);
  const outcomes = new Map();
  const ends = new Map();
  for (const a of browsers) {
    for (const m of a.received) {
      if (m.id.startsWith('r-') && ['callAccepted', 'error'].includes(m.type)) outcomes.set(m.id, [...(outcomes.get(m.id) ?? []), m]);
      if (m.type === 'callEnded') ends.set(m.payload.callId, (ends.get(m.payload.callId) ?? 0) + 1);
    }
  }
  for (const { id, callId, reason } of done) {
    assert.equal(ends.get(callId), 1, seeded(callId));
    assert.deepEqual(outcomes.get(id).map((m) => [m.type, m.payload.code]), reason === 'cancelled' ? [['error', 487]] : [['callAccepted', undefined]], seeded(callId));
  }
  const unconfirmed = [...calls.values()].filter((c) => c.unconfirmed).length;
  assert.ok(unconfirmed < 30, seeded(`${unconfirmed} had BYE and no ACK`));
  // those whose 200 crossed the hang-up: the browser cancelled, the far side has answered
  const crossed = [...calls.values()].filter((c) => c.final === 200).length - results.accepted;
  assert.ok(results.accepted > 50 && results.cancelled > 50 && crossed > 5, seeded(JSON.stringify({ ...results, crossed })));
});

test('both sides hang up at the same instant', async () => {
  const peer = await bench.peer();
  const a = await bench.agent('5001');
  const won = { browser: 0, far: 0 };
  peer.onRequest((m, repeat) => { if (m.method === 'BYE' && !repeat) peer.reply(m, 200); });
  for (let i = 0; i < 40; i += 1) {
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    const invite = await peer.request('INVITE');
    peer.reply(invite, 200, { body: farSdp({ setup: 'active' }), tag: `far${i}` });
    await peer.waitFor((m) => m.method === 'ACK' && m.callId === invite.callId);
    const { callId } = await a.waitFor('callAccepted', (p, m) => m.id === id);
    const bye = () => peer.legOf(invite, `far${i}`).bye();
    const hangup = () => a.request('hangup', { callId, reason: 'user_hangup' });
    const pause = random(4);
    const [outcome, reply] = await Promise.all(i % 2
      ? [hangup(), sleep(pause).then(bye)]
      : [sleep(pause).then(hangup), bye()]);
    assert.ok([200, 481].includes(reply.status), seeded(String(reply.status)));
    const byBrowser = outcome.type === 'callEnded';
    if (!byBrowser) assert.equal(outcome.payload.code, 404, seeded(JSON.stringify(outcome)));
    won[byBrowser ? 'browser' : 'far'] += 1;
    await until(() => endsOf(a, callId).length > 0);
    assert.equal(endsOf(a, callId).length, 1, seeded(a.transcript()));
  }
  assert.ok(won.browser > 2 && won.far > 2, seeded(JSON.stringify(won)));
});

test('answer against CANCEL, at random moments: the caller and the browser agree on who won', async () => {
  const peer = await bench.peer();
  const numbers = ['5001', '5002', '5003', '5004', '5005'];
  const browsers = await Promise.all(numbers.map((dn) => bench.agent(dn)));
  peer.onRequest((m, repeat) => { if (m.method === 'BYE' && !repeat) peer.reply(m, 200); });
  const results = { answered: 0, cancelled: 0 };
  const one = async (dn, b) => {
    const leg = peer.leg(dn);
    leg.invite();
    const { callId } = await b.waitFor('incomingCall');
    const answer = async () => { await sleep(random(5)); return b.request('answer', { callId, sdp: fakeAnswer() }); };
    const cancel = async () => { await sleep(random(5)); leg.cancel(); return leg.reply(leg.inviteBranch, undefined, 5000, 'CANCEL'); };
    const [outcome, cancelled, final] = await Promise.all([answer(), cancel(), leg.answer()]);
    assert.equal(cancelled.status, 200, seeded('the INVITE is known'));
    assert.ok([200, 487].includes(final.status), seeded(String(final.status)));
    leg.ack(final);
    if (final.status === 200) {
      assert.equal(outcome.type, 'ack', seeded(b.transcript()));
      results.answered += 1;
      assert.equal((await leg.bye()).status, 200);
    } else {
      assert.deepEqual([outcome.type, outcome.payload.code], ['error', 404], seeded(b.transcript()));
      results.cancelled += 1;
    }
    const ended = await b.waitFor('callEnded', (p) => p.callId === callId);
    assert.equal(ended.reason, final.status === 200 ? 'normal_clearing' : 'cancelled');
    assert.equal(endsOf(b, callId).length, 1, seeded(b.transcript()));
  };
  for (let round = 0; round < 40; round += 1) await Promise.all(numbers.map((dn, i) => one(dn, browsers[i])));
  assert.ok(results.answered > 2 && results.cancelled > 2, seeded(JSON.stringify(results)));
});

test('two browsers answer at the same instant, fifty times: one call each time', async () => {
  const peer = await bench.peer();
  const pair = await Promise.all([bench.agent('5002'), bench.agent('5002')]);
  const won = [0, 0];
  for (let i = 0; i < 50; i += 1) {
    const leg = peer.leg('5002');
    leg.invite();
    const [{ callId }] = await Promise.all(pair.map((b) => b.waitFor('incomingCall')));
    const order = random(2) ? pair : [...pair].reverse();
    const outcomes = new Map(await Promise.all(order.map(async (b) => [b, await b.request('answer', { callId, sdp: fakeAnswer() })])));
    const winners = pair.filter((b) => outcomes.get(b).type === 'ack');
    assert.equal(winners.length, 1, seeded(pair.map((b) => b.transcript()).join('\n\n')));
    const loser = pair.find((b) => b !== winners[0]);
    assert.deepEqual([outcomes.get(loser).type, outcomes.get(loser).payload.code], ['error', 409]);
    assert.equal((await loser.waitFor('callEnded', (p) => p.callId === callId)).reason, 'answered_elsewhere');
    won[pair.indexOf(winners[0])] += 1;
    leg.ack(await leg.answer());
    assert.equal((await leg.bye()).status, 200);
    assert.equal((await winners[0].waitFor('callEnded', (p) => p.callId === callId)).reason, 'normal_clearing');
    const answers = peer.received((m) => m.status === 200 && m.callId === leg.callId && m.cseqMethod === 'INVITE');
    assert.equal(answers.length, 1, 'one 200');
    assert.deepEqual(pair.map((b) => endsOf(b, callId).length), [1, 1]);
  }
  assert.ok(won.every((n) => n > 0), seeded(`each wins sometimes: ${won}`));
});

test('two browsers hang up a ringing call at the same instant', async () => {
  const peer = await bench.peer();
  const pair = await Promise.all([bench.agent('5002'), bench.agent('5002')]);
  for (let i = 0; i < 15; i += 1) {
    const leg = peer.leg('5002');
    leg.invite();
    const [{ callId }] = await Promise.all(pair.map((b) => b.waitFor('incomingCall')));
    const outcomes = await Promise.all(pair.map((b) => b.request('hangup', { callId, reason: 'busy' })));
    assert.equal(outcomes.filter((o) => o.type === 'callEnded').length, 1);
    assert.ok(outcomes.every((o) => o.type === 'callEnded' || o.payload.code === 404));
    const final = await leg.answer();
    assert.equal(final.status, 486);
    leg.ack(final);
    await until(() => pair.every((b) => endsOf(b, callId).length > 0));
    assert.deepEqual(pair.map((b) => endsOf(b, callId).length), [1, 1]);
  }
});
