/** SIP over a bad line: one packet in ten is lost, one in twenty comes twice, one in five late. Every call's outcome is right in the end. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { layLossyLine } from '../common/lossy.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp } from '../sip/peer.mjs';
import { Bench, endsOf, hopByNumber, memoryOf, to } from '../sip/support.mjs';
import { backAtBaseline, Callee, each, noAlarm, note, persist, randomOf, spread } from './support.mjs';

const OUT = 120;
const IN = 60;
const dns = Array.from({ length: 12 }, (_, i) => String(5101 + i));
// The seed is printed, so that the same line can be had again: RTC_JSON_SEED=…
const seed = Number(process.env.RTC_JSON_SEED ?? Date.now() % 1e9);

let kamailio;
let bench;
let far;
let peer;
let line;

before(async () => {
  kamailio = await startKamailio({ cfg: hopByNumber(), users: dns, params: { max_calls_per_agent: 64, call_history: 0, call_rate: 0 } });
  bench = new Bench(kamailio);
  peer = await bench.peer();
  line = await layLossyLine(peer, { loss: 0.1, twice: 0.05, late: 0.2, random: randomOf(seed) });
  far = new Callee(peer);
});
after(async () => { await line?.close(); await kamailio?.stop(); });

/** What was said in a call, with the milliseconds. */
function story(callId) {
  const own = peer.log.filter((e) => e.message.callId === callId);
  return own.map((e) => `${(e.at - own[0].at).toFixed(0)} ${e.dir} ${e.message.start} ${e.message.header('CSeq')} ${e.message.branch}`).join('\n');
}

/** An ACK for each 200 that comes, the repeated ones too, as RFC 3261, 13.2.2.4 wants it. */
function acknowledge(leg) {
  let seen = 0;
  const timer = setInterval(() => {
    const all = peer.log.filter((e) => e.dir === 'in' && e.message.status === 200 && e.message.cseqMethod === 'INVITE' && e.message.callId === leg.callId);
    if (all.length > seen) leg.ack(all[0].message);
    seen = all.length;
  }, 50);
  return () => clearInterval(timer);
}

test(`${OUT} calls out and ${IN} calls in`, { timeout: 300_000 }, async () => {
  note(`RTC_JSON_SEED=${seed}`);
  const from = await memoryOf(kamailio);
  const clients = await Promise.all(dns.map((dn) => bench.agent(dn)));
  const setup = [];
  const outcomes = { answered: 0, failed: 0, holdRefused: 0, in: 0 };

  const out = async (i) => {
    const client = clients[i % clients.length];
    const began = performance.now();
    const outcome = await client.request('call', { to: to(peer), sdp: fakeOffer() }, { ms: 40_000 });
    const { callId } = outcome.payload;
    if (outcome.type !== 'callAccepted') {
      // nothing came through for ten seconds: rare, and then both sides must know it
      assert.deepEqual([outcome.type, outcome.payload.code], ['error', 408], JSON.stringify(outcome));
      outcomes.failed += 1;
      return;
    }
    setup.push(performance.now() - began);
    outcomes.answered += 1;
    if (i % 3 === 0) {
      const held = await client.request('hold', { callId, hold: true }, { ms: 40_000 });
      if (held.type !== 'callUpdated') outcomes.holdRefused += 1;
    }
    if (i % 2) await client.request('hangup', { callId, reason: 'user_hangup' }, { ms: 40_000 });
    else {
      const sip = (await kamailio.rpcRows('rtc_json.calls')).find((row) => row.callId === callId)?.sipCallId;
      const call = far.calls.get(sip);
      if (call) {
        await persist(peer.legOf(call.invite), 'BYE');
        call.over = true;
      }
    }
    await until(() => endsOf(client, callId).length > 0, { ms: 40_000, what: `end of ${callId}` });
  };
  const inward = async (i) => {
    const dn = dns[i % dns.length];
    const client = clients[i % dns.length];
    const leg = peer.leg(dn, { local: `"in${i}" <sip:in${i}@127.0.0.1:${peer.port}>` });
    const final = persist(leg, 'INVITE', { body: farSdp() });
    const call = await client.waitFor('incomingCall', (p) => p.from === `in${i}`, 40_000);
    await client.expect('answer', { callId: call.callId, sdp: fakeAnswer() }, 'ack', { ms: 40_000 });
    const ok = await final;
    assert.equal(ok.status, 200);
    leg.remoteTag = ok.toTag;
    leg.target = ok.contact;
    const stop = acknowledge(leg);
    try {
      await until(async () => (await kamailio.rpcRows('rtc_json.calls')).find((row) => row.callId === call.callId)?.state === 'established', { ms: 30_000, what: `${call.callId} is up` })
        .catch(async (error) => { throw new Error(`${error.message}: ${JSON.stringify(await kamailio.rpcRows('rtc_json.calls'))}\n${story(leg.callId)}\n${kamailio.log().slice(-1500)}`); });
      if (i % 2) {
        far.calls.set(leg.callId, { invite: undefined, offers: 0, acked: 0, over: false });
        await client.expect('hangup', { callId: call.callId, reason: 'user_hangup' }, 'callEnded', { ms: 40_000 });
      } else {
        await persist(leg, 'BYE');
        await client.waitFor('callEnded', (p) => p.callId === call.callId, 10_000);
      }
      outcomes.in += 1;
    } finally { stop(); }
  };
  const jobs = [...Array.from({ length: OUT }, (_, i) => [out, i]), ...Array.from({ length: IN }, (_, i) => [inward, i])];
  await each(jobs, 24, ([work, i]) => work(i));

  note(`line: ${JSON.stringify(line.counts)}; calls: ${JSON.stringify(outcomes)}; set-up ${spread(setup)}`);
  assert.ok(line.counts.lost > line.counts.packets * 0.07 && line.counts.twice > 0 && line.counts.late > 0, 'the line was bad, or this tests nothing');
  // five tries in ten seconds, one in five of them in vain: one call in some thousands
  assert.ok(outcomes.failed <= 2, `${outcomes.failed} calls failed`);
  await until(() => far.live.length === 0, { ms: 40_000, what: 'no call is left on the far side' });
  for (const client of clients) {
    const ends = client.received.filter((m) => m.type === 'callEnded').map((m) => m.payload.callId);
    assert.equal(new Set(ends).size, ends.length, 'each call ends once');
  }
  await bench.finish();
  await until(async () => await kamailio.stat('arena_records') === 0, { ms: 10_000, what: 'no record is left' });
  backAtBaseline(from, await memoryOf(kamailio));
  noAlarm(kamailio);
});
