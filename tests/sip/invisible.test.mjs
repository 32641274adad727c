/** What the browser never sees of SIP: session timers, reliable replies, redirections, challenges, forks, repetitions. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { checkDigest } from '../common/digest.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer, Registrar } from './peer.mjs';
import { Bench, callIn, callOut, callsBecome, endCall, endsOf, hopByNumber, partsOf, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const timers = tm({ fr_timer: 1500, fr_inv_timer: 6000, wt_timer: 200 });
const active = (more = {}) => farSdp({ setup: 'active', ...more });
const UPDATE = 'Allow: INVITE, ACK, CANCEL, BYE, UPDATE, INFO';

async function begin(direction, options = {}) {
  const [a, peer] = [await bench.agent('5001'), await bench.peer()];
  const call = direction === 'out' ? await callOut(a, peer, options) : await callIn(kamailio, a, peer, '5001', options);
  return { ...call, a };
}

/** A `call`, and the INVITE that comes of it. */
async function start(a, peer) {
  const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
  const invite = await peer.request('INVITE');
  const { callId } = await a.waitFor('callProgress', (p) => p.request === id);
  return { id, callId, invite };
}

const is = (method, callId) => (m) => m.method === method && (!callId || m.callId === callId);

/**
 * The long waits of session timers and lost ACKs, all at once, beside the other tests and on a Kamailio of their own: some 65 s.
 * @returns {Promise<{ what: string, error?: Error }[]>}
 */
async function longWaits() {
  const own = await startKamailio({ cfg: hopByNumber(), cfgExtra: timers, params: { min_se: 90, log_calls: 1 } });
  const other = new Bench(own);
  const expires = (refresher) => [`Session-Expires: 90;refresher=${refresher}`, 'Require: timer', 'Supported: timer'];
  const pair = async (dn) => [await other.agent(dn), await other.peer()];
  // the record of such an end is looked at here, where it has been waited for
  const recorded = async (callId, reason) => {
    const records = () => own.log().split('\n').map((line) => /call-record (\{.*\})/.exec(line)?.[1]).filter(Boolean).map((text) => JSON.parse(text)).filter((r) => r.callId === callId);
    await until(() => records().length > 0, { what: 'the record' });
    assert.deepEqual(records().map((r) => [r.reason, r.code, r.answered !== null]), [[reason, 408, true]]);
  };
  const waits = {
    'we refresh by UPDATE, as long as the call lives': async () => {
      const [a, peer] = await pair('5001');
      const call = await callOut(a, peer, { headers: [...expires('uac'), UPDATE] });
      const began = performance.now();
      const update = await peer.request('UPDATE', 55_000);
      assert.ok(Math.abs(performance.now() - began - 45_000) < 3000, 'at half of the interval');
      assert.deepEqual([update.body, update.header('Session-Expires'), update.header('Content-Type')], ['', '90;refresher=uac', undefined]);
      assert.match(update.header('Contact'), /<sip:5001@/);
      peer.reply(update, 200, { headers: expires('uac') });
      await a.never('callEnded', 20_000);
      await endCall(a, call);
    },
    'we refresh by re-INVITE where UPDATE is not allowed': async () => {
      const [a, peer] = await pair('5002');
      const call = await callOut(a, peer, { headers: [...expires('uac'), 'Allow: INVITE, ACK, CANCEL, BYE'] });
      const invite = await peer.request('INVITE', 55_000);
      assert.deepEqual([invite.body, invite.header('Session-Expires')], [call.sent, '90;refresher=uac'], 'the same description');
      peer.reply(invite, 200, { body: active(), headers: expires('uac') });
      await peer.waitFor((m) => m.method === 'ACK' && m.cseq === invite.cseq);
      await a.never('callUpdated', 17_000);
      assert.equal(endsOf(a, call.callId).length, 0);
      await endCall(a, call);
    },
    'our refresh is refused again and again: session_expired': async () => {
      const [a, peer] = await pair('5003');
      const call = await callOut(a, peer, { headers: [...expires('uac'), UPDATE] });
      peer.onRequest((m, repeat) => { if (m.method === 'UPDATE' && !repeat) peer.reply(m, 500); });
      const bye = await peer.request('BYE', 65_000);
      peer.reply(bye, 200);
      assert.ok(peer.received(is('UPDATE')).length >= 2, 'tried again');
      const ended = await a.waitFor('callEnded');
      assert.deepEqual([ended.callId, ended.reason], [call.callId, 'session_expired']);
      await recorded(call.callId, 'session_expired');
    },
    'the far side does not refresh: session_expired': async () => {
      const [a, peer] = await pair('5004');
      const call = await callIn(own, a, peer, '5004', { headers: ['Session-Expires: 90;refresher=uac', 'Supported: timer'] });
      assert.deepEqual([call.ok.header('Session-Expires'), call.ok.header('Require')], ['90;refresher=uac', 'timer']);
      const began = performance.now();
      const bye = await peer.request('BYE', 75_000);
      const waited = performance.now() - began;
      peer.reply(bye, 200);
      assert.ok(waited > 58_000 && waited < 70_000, `${waited} ms (RFC 4028, 10: a third, at most 32 s, before the end)`);
      const ended = await a.waitFor('callEnded');
      assert.deepEqual([ended.callId, ended.reason, endsOf(a, call.callId).length], [call.callId, 'session_expired', 1]);
      await recorded(call.callId, 'session_expired');
    },
    'the far side refreshes: the call lives': async () => {
      const [a, peer] = await pair('5005');
      const call = await callIn(own, a, peer, '5005', { headers: ['Session-Expires: 90;refresher=uac', 'Supported: timer'] });
      await sleep(44_000);
      const ok = await call.leg.request('UPDATE', { headers: ['Session-Expires: 90;refresher=uac', 'Supported: timer'] });
      assert.deepEqual([ok.status, ok.header('Session-Expires'), ok.header('Require')], [200, '90;refresher=uac', 'timer']);
      await a.never('callEnded', 21_000);
      assert.equal(a.received.filter((m) => m.type === 'callUpdated').length, 0);
      await endCall(a, call);
    },
    'we refresh a call of the far side': async () => {
      const [a, peer] = await pair('5006');
      const call = await callIn(own, a, peer, '5006', { headers: ['Session-Expires: 90;refresher=uas', 'Supported: timer', UPDATE] });
      assert.equal(call.ok.header('Session-Expires'), '90;refresher=uas');
      const update = await peer.request('UPDATE', 55_000);
      assert.equal(update.header('Session-Expires'), '90;refresher=uac', 'of this request we are the UAC');
      peer.reply(update, 200, { headers: expires('uac') });
      await a.never('callEnded', 18_000);
      await endCall(a, call);
    },
    'our 18x must be confirmed and is not: 504': async () => {
      const [a, peer] = await pair('5007');
      const leg = peer.leg('5007');
      leg.invite({ headers: ['Require: 100rel'] });
      await a.waitFor('incomingCall');
      const final = await leg.answer(40_000);
      leg.ack(final);
      assert.equal(final.status, 504);
      assert.ok(peer.log.filter((e) => e.message.status === 180).length >= 6, 'repeated at 0.5, 1.5, 3.5, 7.5 … s');
      assert.deepEqual([(await a.waitFor('callEnded')).reason, a.received.filter((m) => m.type === 'incomingCall').length], ['timeout', 1]);
    },
    'our 200 to a re-INVITE gets no ACK: the call ends': async () => {
      const [a, peer] = await pair('5008');
      const call = await callIn(own, a, peer, '5008');
      call.leg.invite({ body: farSdp({ version: 2, direction: 'sendonly' }) });
      assert.equal((await call.leg.answer()).status, 200);
      const bye = await peer.request('BYE', 40_000);
      peer.reply(bye, 200);
      const ended = await a.waitFor('callEnded');
      assert.deepEqual([ended.callId, ended.reason], [call.callId, 'timeout']);
    },
    'our 200 to the INVITE gets no ACK: the call ends': async () => {
      const [a, peer] = await pair('5009');
      const leg = peer.leg('5009');
      leg.invite();
      const { callId } = await a.waitFor('incomingCall');
      await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      await leg.answer();
      const bye = await peer.request('BYE', 40_000);
      assert.equal(bye.toTag, leg.localTag);
      peer.reply(bye, 200);
      assert.equal((await a.waitFor('callEnded')).reason, 'timeout');
    },
  };
  try {
    const done = await Promise.all(Object.entries(waits).map(([what, run]) => run().then(() => ({ what }), (error) => ({ what, error }))));
    await other.finish().catch((error) => done.push({ what: 'what is left over', error }));
    return done;
  } finally {
    await own.stop();
  }
}

/** @type {ReturnType<typeof longWaits>} */
let long;
before(() => {
  long = longWaits();
  long.catch(() => {}); // the last test tells of it
});

describe('session timers', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: timers, params: { session_expires: 600, min_se: 120, max_redirects: 3 } });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('our INVITE asks for one; the far side need not want it', async () => {
    const call = await begin('out');
    const { invite, a } = call;
    assert.deepEqual([invite.header('Session-Expires'), invite.header('Min-SE')], ['600', '120']);
    assert.match(invite.header('Supported'), /\btimer\b/);
    // without an interval in the 200 there is none
    const hold = a.send('hold', { callId: call.callId, hold: true });
    const held = await call.peer.request('INVITE');
    assert.equal(held.header('Session-Expires'), undefined);
    call.peer.reply(held, 200, { body: active({ version: 2, direction: 'recvonly' }) });
    await a.waitFor('callUpdated', (p, m) => m.id === hold);
    await endCall(a, call);
  });

  test('422 to our INVITE: again with the interval that it names', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const { id, callId, invite } = await start(a, peer);
    peer.reply(invite, 422, { headers: ['Min-SE: 3600'] });
    const again = await peer.request('INVITE');
    assert.deepEqual([again.header('Session-Expires'), again.header('Min-SE'), again.cseq, again.callId], ['3600', '3600', 2, invite.callId]);
    assert.equal(again.body, invite.body);
    peer.reply(again, 200, { body: active(), headers: ['Session-Expires: 3600;refresher=uas', 'Require: timer'] });
    await a.waitFor('callAccepted', (p, m) => m.id === id);
    // the next one in the dialog says who refreshes: the UAS of this request is the far side
    const hold = a.send('hold', { callId, hold: true });
    const held = await peer.request('INVITE');
    assert.deepEqual([held.header('Session-Expires'), held.header('Min-SE')], ['3600;refresher=uas', '3600']);
    peer.reply(held, 422, { headers: ['Min-SE: 7200'] });
    const longer = await peer.request('INVITE');
    assert.deepEqual([longer.header('Session-Expires'), longer.header('Min-SE'), longer.body], ['7200;refresher=uas', '7200', held.body]);
    peer.reply(longer, 200, { body: active({ version: 2, direction: 'recvonly' }) });
    await a.waitFor('callUpdated', (p, m) => m.id === hold);
    await endCall(a, { callId, peer, leg: peer.legOf(invite) });
  });

  test('422 that asks for nothing more: the call fails, no loop', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    for (const headers of [['Min-SE: 120'], [], ['Min-SE: 9999999']]) {
      const { id, invite } = await start(a, peer);
      peer.reply(invite, 422, { headers });
      assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 422, headers[0]);
    }
    assert.equal(peer.received(is('INVITE')).length, 3);
  });

  for (const [what, headers, answer] of [
    ['the caller refreshes', ['Session-Expires: 300;refresher=uac', 'Supported: timer'], ['300;refresher=uac', 'timer']],
    ['we shall refresh', ['Session-Expires: 300;refresher=uas', 'Supported: timer'], ['300;refresher=uas', undefined]],
    ['nobody said who: the caller', ['x: 300', 'k: timer'], ['300;refresher=uac', 'timer']],
    ['a proxy asks, the caller knows no timers', ['Session-Expires: 300'], ['300;refresher=uas', undefined]],
    ['too short, but the caller knows no timers', ['Session-Expires: 30'], ['120;refresher=uas', undefined]],
    ['only supported: what the operator wants', ['Supported: timer'], ['600;refresher=uas', undefined]],
    ['the caller wants more than we do', ['Supported: timer', 'Min-SE: 900'], ['900;refresher=uas', undefined]],
    ['not supported', [], [undefined, undefined]],
  ]) {
    test(`a call in: ${what}`, async () => {
      const call = await begin('in', { headers });
      assert.deepEqual([call.ok.header('Session-Expires'), call.ok.header('Require')], answer);
      await endCall(call.a, call);
    });
  }

  test('too short: 422 with Min-SE, in the INVITE and later', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite({ headers: ['Session-Expires: 90', 'Supported: timer'] });
    const refused = await leg.answer();
    leg.ack(refused);
    assert.deepEqual([refused.status, refused.header('Min-SE')], [422, '120']);
    await a.never('incomingCall', 80);
    const call = { ...await callIn(kamailio, a, peer, '5001', { headers: ['Session-Expires: 120', 'Supported: timer'] }), a };
    const update = await call.leg.request('UPDATE', { headers: ['Session-Expires: 90', 'Supported: timer'] });
    assert.deepEqual([update.status, update.header('Min-SE')], [422, '120']);
    call.leg.invite({ body: farSdp({ version: 2, direction: 'sendonly' }), headers: ['Session-Expires: 90', 'Supported: timer'] });
    const reinvite = await call.leg.answer();
    call.leg.ack(reinvite);
    assert.deepEqual([reinvite.status, reinvite.header('Min-SE')], [422, '120']);
    await a.never('callUpdated', 80);
    await endCall(a, call);
  });

  // ---- reliable provisional replies

  test('reliable 18x of the far side: one PRACK each, in their order', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const { id, callId, invite } = await start(a, peer);
    assert.match(invite.header('Supported'), /100rel/);
    const rel = (rseq) => ['Require: 100rel', `RSeq: ${rseq}`];
    peer.reply(invite, 180, { headers: rel(700) });
    const prack = await peer.request('PRACK');
    assert.deepEqual([prack.header('RAck'), prack.toTag, prack.callId, prack.uri], [`700 ${invite.cseq} INVITE`, `far${peer.port}`, invite.callId, `sip:far@127.0.0.1:${peer.port}`]);
    peer.reply(prack, 200);
    // it was lost on its way here, say
    peer.reply(invite, 180, { headers: rel(700) });
    peer.reply(invite, 183, { headers: rel(702), body: active() });
    await a.never('callProgress', 150, (p) => p.state === 'early');
    assert.equal(peer.received(is('PRACK')).length, 1, 'neither the same again nor one out of its order');
    peer.reply(invite, 183, { headers: rel(701), body: active() });
    const second = await peer.request('PRACK');
    assert.equal(second.header('RAck'), `701 ${invite.cseq} INVITE`);
    assert.ok(second.cseq > prack.cseq);
    peer.reply(second, 200);
    assert.equal(partsOf((await a.waitFor('callProgress', (p) => p.state === 'early')).sdp).ufrag, 'sipp');
    // another branch counts for itself
    peer.reply(invite, 180, { headers: rel(5), tag: 'fork' });
    const third = await peer.request('PRACK');
    assert.deepEqual([third.header('RAck'), third.toTag], [`5 ${invite.cseq} INVITE`, 'fork']);
    peer.reply(third, 200);
    peer.reply(invite, 200);
    await a.waitFor('callAccepted', (p, m) => m.id === id);
    await peer.request('ACK');
    await endCall(a, { callId, peer, leg: peer.legOf(invite) });
  });

  test('a PRACK that is refused or lost ends nothing', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const { id, callId, invite } = await start(a, peer);
    peer.reply(invite, 180, { headers: ['Require: 100rel', 'RSeq: 1'] });
    peer.reply(await peer.request('PRACK'), 481);
    await a.waitFor('callProgress', (p) => p.state === 'ringing');
    peer.reply(invite, 200, { body: active() });
    await a.waitFor('callAccepted', (p, m) => m.id === id);
    await peer.request('ACK');
    await endCall(a, { callId, peer, leg: peer.legOf(invite) });
  });

  test('a caller that requires 100rel: our 180 again and again until its PRACK', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite({ headers: ['Require: 100rel'] });
    const { callId } = await a.waitFor('incomingCall');
    const ringing = await leg.reply(leg.inviteBranch, (s) => s === 180);
    const rseq = Number(ringing.header('RSeq'));
    assert.deepEqual([ringing.header('Require'), rseq > 0 && rseq < 2 ** 31], ['100rel', true]);
    await sleep(1700);
    const heard = () => peer.log.filter((e) => e.dir === 'in' && e.message.status === 180).length;
    assert.ok(heard() >= 2 && heard() <= 4, `${heard()} times within 1.7 s`);
    Object.assign(leg, { remoteTag: ringing.toTag, target: ringing.contact });
    assert.equal((await leg.request('PRACK', { headers: [`RAck: ${rseq + 1} ${leg.inviteCseq} INVITE`] })).status, 481);
    assert.equal((await leg.request('PRACK', { headers: [`RAck: ${rseq} ${leg.inviteCseq} INVITE`] })).status, 200);
    const then = heard();
    await sleep(1600);
    assert.equal(heard(), then, 'no more of them');
    assert.equal(a.received.filter((m) => m.type === 'incomingCall').length, 1);
    await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    const ok = await leg.answer();
    leg.ack(ok);
    await callsBecome(kamailio, (rows) => rows[0]?.state === 'established');
    await endCall(a, { callId, peer, leg });
  });

  test('a caller that requires 100rel and gives up, after its PRACK', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite({ headers: ['Require: 100rel'] });
    await a.waitFor('incomingCall');
    const ringing = await leg.reply(leg.inviteBranch, (s) => s === 180);
    const early = Object.assign(peer.leg('5001'), { ...leg, remoteTag: ringing.toTag, target: ringing.contact });
    assert.equal((await early.request('PRACK', { headers: [`RAck: ${ringing.header('RSeq')} ${leg.inviteCseq} INVITE`] })).status, 200);
    leg.cancel();
    assert.equal((await leg.reply(leg.inviteBranch, undefined, 3000, 'CANCEL')).status, 200);
    const final = await leg.answer();
    leg.ack(final);
    assert.equal(final.status, 487);
    assert.equal((await a.waitFor('callEnded')).reason, 'cancelled');
  });

  test('one that only supports it gets a plain 180', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite({ headers: ['Supported: 100rel'] });
    const { callId } = await a.waitFor('incomingCall');
    const ringing = await leg.reply(leg.inviteBranch, (s) => s === 180);
    assert.deepEqual([ringing.header('Require'), ringing.header('RSeq')], [undefined, undefined]);
    await a.expect('hangup', { callId, reason: 'busy' }, 'callEnded');
    leg.ack(await leg.answer());
  });

  // ---- redirections

  test('3xx: the addresses in the order of their q, each at its own place', async () => {
    const a = await bench.agent('5001');
    const [peer, low, high] = [await bench.peer(), await bench.peer(), await bench.peer()];
    const { id, callId, invite } = await start(a, peer);
    peer.reply(invite, 302, { headers: [
      `Contact: <sip:low@127.0.0.1:${low.port}>;q=0.2, "A, b" <sip:high@127.0.0.1:${high.port}?X-Evil=1>;q=0.9`, 'Contact: <tel:+4912>', 'Contact: <mailto:a@b>',
    ].map((h) => h) });
    await peer.request('ACK');
    // the address of the peer itself stands in Contact as well, before the others: q=1
    const own = await peer.waitFor((m) => m.method === 'INVITE' && m.uri === `sip:far@127.0.0.1:${peer.port}`);
    peer.reply(own, 404);
    const best = await high.request('INVITE');
    assert.deepEqual([best.uri, best.callId, best.header('X-Evil'), best.body], [`sip:high@127.0.0.1:${high.port}`, invite.callId, undefined, invite.body]);
    assert.deepEqual([best.fromTag, best.toTag], [invite.fromTag, undefined]);
    assert.ok(best.cseq > own.cseq && own.cseq > invite.cseq);
    high.reply(best, 486);
    const last = await low.request('INVITE');
    low.reply(last, 180);
    await a.waitFor('callProgress', (p) => p.state === 'ringing');
    low.reply(last, 200, { body: active() });
    await a.waitFor('callAccepted', (p, m) => m.id === id);
    assert.ok(!a.received.some((m) => ['error', 'callEnded'].includes(m.type)));
    await low.request('ACK');
    await endCall(a, { callId, peer: low, leg: low.legOf(last) });
  });

  /** Answers every INVITE with a 302 to that. @returns {{ uris: string[] }} */
  function redirecting(peer, contact) {
    const uris = [];
    peer.onRequest((m, repeat) => {
      if (m.method !== 'INVITE' || repeat) return;
      uris.push(m.uri);
      const send = peer.send.bind(peer);
      peer.send = (text) => send(text.replace(/^Contact: .*\r\n/m, contact(uris.length).map((c) => `Contact: ${c}\r\n`).join('')));
      peer.reply(m, 302);
      peer.send = send;
    });
    return uris;
  }

  test('3xx without end: max_redirects', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const uris = redirecting(peer, (n) => [`<sip:next${n}@127.0.0.1:${peer.port}>`]);
    const { type, payload } = await a.request('call', { to: to(peer), sdp: fakeOffer() });
    assert.deepEqual([type, payload.code], ['error', 302]);
    assert.equal(uris.length, 4, 'one INVITE, three redirections');
    await a.waitFor('callEnded', (p) => p.callId === payload.callId);
  });

  test('3xx in a circle', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const uris = redirecting(peer, () => [`<sip:same@127.0.0.1:${peer.port}>`]);
    const { payload } = await a.request('call', { to: to(peer), sdp: fakeOffer() });
    assert.deepEqual([payload.code, uris.length], [302, 2]);
  });

  test('3xx that names nobody', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const uris = redirecting(peer, () => []);
    const { payload } = await a.request('call', { to: to(peer), sdp: fakeOffer() });
    assert.deepEqual([payload.code, uris.length], [302, 1]);
  });

  test('all are busy: the last word counts; 6xx is final for all', async () => {
    const a = await bench.agent('5001');
    for (const [code, asked] of [[486, 3], [603, 2]]) {
      const peer = await bench.peer();
      let first = true;
      const seen = [];
      peer.onRequest((m, repeat) => {
        if (m.method !== 'INVITE' || repeat) return;
        seen.push(m.uri);
        if (first) peer.reply(m, 300, { headers: [`Contact: <sip:other@127.0.0.1:${peer.port}>`] });
        else peer.reply(m, code);
        first = false;
      });
      const { payload } = await a.request('call', { to: to(peer), sdp: fakeOffer() });
      assert.deepEqual([payload.code, seen.length], [code, asked], seen.join());
    }
  });

  test('hung up on the way: CANCEL goes to the one that rings', async () => {
    const a = await bench.agent('5001');
    const [peer, other] = [await bench.peer(), await bench.peer()];
    redirecting(peer, () => [`<sip:other@127.0.0.1:${other.port}>`]);
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    const invite = await other.request('INVITE');
    other.reply(invite, 180);
    const { callId } = await a.waitFor('callProgress', (p) => p.state === 'ringing');
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    const cancel = await other.request('CANCEL');
    assert.equal(cancel.branch, invite.branch);
    other.reply(cancel, 200);
    other.reply(invite, 487);
    await other.request('ACK');
    assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 487);
  });

  // ---- forks, repetitions, what is required

  test('forked: the first 200 has the call, the second one is acknowledged and ended', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const { id, callId, invite } = await start(a, peer);
    for (const tag of ['fa', 'fb', 'fc']) peer.reply(invite, 180, { tag });
    peer.reply(invite, 183, { tag: 'fb', body: active({ ufrag: 'early' }) });
    await a.waitFor('callProgress', (p) => p.state === 'early');
    peer.reply(invite, 200, { tag: 'fa', body: active({ ufrag: 'first' }) });
    assert.equal(partsOf((await a.waitFor('callAccepted', (p, m) => m.id === id)).sdp).ufrag, 'first');
    assert.equal((await peer.request('ACK')).toTag, 'fa');
    peer.reply(invite, 200, { tag: 'fb', body: active({ ufrag: 'second' }) });
    await peer.waitFor((m) => m.method === 'ACK' && m.toTag === 'fb', 5000, 'ACK of the other fork');
    const bye = await peer.request('BYE');
    assert.deepEqual([bye.toTag, bye.fromTag, bye.callId], ['fb', invite.fromTag, invite.callId]);
    peer.reply(bye, 200);
    await a.never('callEnded', 100);
    const hold = a.send('hold', { callId, hold: true });
    const held = await peer.waitFor((m) => m.method === 'INVITE' && m.toTag === 'fa');
    peer.reply(held, 200, { body: active({ ufrag: 'first', direction: 'recvonly', version: 2 }) });
    await a.waitFor('callUpdated', (p, m) => m.id === hold);
    await endCall(a, { callId, peer, leg: peer.legOf(invite, 'fa') });
    assert.equal(a.received.filter((m) => m.type === 'callAccepted').length, 1);
  });

  test('forked: both answer a call that was hung up', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const { callId, invite } = await start(a, peer);
    peer.reply(invite, 180, { tag: 'fa' });
    await a.waitFor('callProgress', (p) => p.state === 'ringing');
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    peer.reply(await peer.request('CANCEL'), 200);
    const byes = [];
    peer.onRequest((m, repeat) => { if (m.method === 'BYE' && !repeat) { byes.push(m.toTag); peer.reply(m, 200); } });
    for (const tag of ['fa', 'fb']) {
      peer.reply(invite, 200, { tag, body: active() });
      await peer.waitFor((m) => m.method === 'ACK' && m.toTag === tag);
    }
    await until(() => byes.length === 2);
    assert.deepEqual(byes.sort(), ['fa', 'fb']);
    assert.ok(!a.received.some((m) => m.type === 'callAccepted'));
  });

  test('the 200 again and again: acknowledged each time, accepted once, and never ended twice', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const { id, callId, invite } = await start(a, peer);
    const acks = () => peer.log.filter((e) => e.dir === 'in' && e.message.method === 'ACK').length;
    for (let i = 1; i <= 3; i += 1) {
      peer.reply(invite, 200, { body: active() });
      await until(() => acks() === i, { what: `ACK ${i}` });
    }
    await a.waitFor('callAccepted', (p, m) => m.id === id);
    await a.never('callAccepted', 50);
    await endCall(a, { callId, peer, leg: peer.legOf(invite) });
    await callsBecome(kamailio, (rows) => rows.length === 0);
    // one more, late, when the call is over
    peer.reply(invite, 200, { body: active() });
    peer.onRequest((m, repeat) => { if (m.method === 'BYE' && !repeat) peer.reply(m, 481); });
    await sleep(300);
    assert.equal(peer.received(is('BYE')).length, 1);
  });

  test('a re-INVITE of the far side that is repeated gets the same 200, and tells once', async () => {
    const call = await begin('in');
    const { a, leg, peer } = call;
    leg.invite({ body: farSdp({ version: 2, direction: 'sendonly' }) });
    const ok = await leg.answer();
    leg.send('INVITE', { cseq: leg.inviteCseq, branch: leg.inviteBranch, body: farSdp({ version: 2, direction: 'sendonly' }) });
    await until(() => peer.log.some((e) => e.repeat && e.message.status === 200 && e.message.branch === leg.inviteBranch));
    leg.ack(ok);
    leg.ack(ok);
    await a.waitFor('callUpdated');
    await a.never('callUpdated', 80);
    await endCall(a, call);
  });

  test('Require of something unknown: 420, in and out of a dialog', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const stranger = peer.leg('5001');
    stranger.invite({ headers: ['Require: timer, foo', 'Require: bar'] });
    const refused = await stranger.answer();
    stranger.ack(refused);
    assert.deepEqual([refused.status, refused.header('Unsupported')], [420, 'foo, bar']);
    await a.never('incomingCall', 80);
    const call = await callIn(kamailio, a, peer, '5001', { headers: ['Require: timer'] });
    call.leg.invite({ body: farSdp({ version: 2, direction: 'sendonly' }), headers: ['Require: foo'] });
    const later = await call.leg.answer();
    call.leg.ack(later);
    assert.deepEqual([later.status, later.header('Unsupported')], [420, 'foo']);
    for (const method of ['UPDATE', 'REFER', 'INFO', 'OPTIONS']) {
      const reply = await call.leg.request(method, { headers: ['Require: foo', 'Refer-To: <sip:1@h>'] });
      assert.deepEqual([reply.status, reply.header('Unsupported')], [420, 'foo'], method);
    }
    assert.equal((await peer.leg('5001').request('OPTIONS', { headers: ['Require: foo'] })).status, 420);
    await a.never('callUpdated', 80);
    // an end is an end
    assert.equal((await call.leg.request('BYE', { headers: ['Require: foo'] })).status, 200);
    await a.waitFor('callEnded');
  });

  test('a body that is no SDP: 415, in and out of a dialog', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const stranger = peer.leg('5001');
    stranger.invite({ body: '<xml/>', type: 'application/xml' });
    const refused = await stranger.answer();
    stranger.ack(refused);
    assert.deepEqual([refused.status, refused.header('Accept')], [415, 'application/sdp']);
    await a.never('incomingCall', 80);
    const call = await callIn(kamailio, a, peer, '5001');
    call.leg.invite({ body: '<xml/>', type: 'application/xml' });
    const later = await call.leg.answer();
    call.leg.ack(later);
    assert.equal(later.status, 415);
    await a.never('callUpdated', 80);
    await endCall(a, call);
  });

  test('Max-Forwards: ours are 70, and one that has come to its end is taken by an agent', async () => {
    const call = await begin('out');
    const { a, callId, peer, invite } = call;
    a.send('dtmf', { callId, digit: '1' });
    const info = await peer.request('INFO');
    peer.reply(info, 200);
    await a.waitFor('ack');
    assert.deepEqual([invite.headers('Max-Forwards'), info.headers('Max-Forwards')], [['70'], ['70']]);
    assert.equal((await call.leg.request('OPTIONS', { hops: 0 })).status, 200);
    await endCall(a, call);
    assert.deepEqual(peer.received(is('BYE'))[0].headers('Max-Forwards'), ['70']);
    const leg = peer.leg('5001');
    leg.invite({ hops: 0 });
    const { callId: incoming } = await a.waitFor('incomingCall');
    await a.expect('hangup', { callId: incoming, reason: 'busy' }, 'callEnded');
    leg.ack(await leg.answer());
  });

  test('OPTIONS, in and out of a dialog: what is allowed', async () => {
    const call = await begin('in');
    for (const leg of [call.leg, call.peer.leg('5001')]) {
      const reply = await leg.request('OPTIONS');
      assert.equal(reply.status, 200);
      for (const method of ['INVITE', 'ACK', 'CANCEL', 'BYE', 'OPTIONS', 'INFO', 'UPDATE', 'REFER', 'NOTIFY', 'PRACK', 'MESSAGE']) {
        assert.ok(reply.header('Allow').split(/, */).includes(method), method);
      }
    }
    for (const leg of [call.leg, call.peer.leg('5001')]) {
      const reply = await leg.request('SUBSCRIBE', { headers: ['Event: presence'] });
      assert.deepEqual([reply.status, /INVITE/.test(reply.header('Allow'))], [405, true]);
    }
    await endCall(call.a, call);
  });

  test('the same INVITE by another path: 482, the first one goes on', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite();
    const { callId } = await a.waitFor('incomingCall');
    const first = leg.inviteBranch;
    const merged = leg.send('INVITE', { cseq: leg.inviteCseq, body: farSdp() });
    const refused = await leg.reply(merged);
    leg.ack(refused);
    assert.equal(refused.status, 482);
    await a.never('incomingCall', 80);
    leg.inviteBranch = first;
    await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    leg.ack(await leg.answer());
    await callsBecome(kamailio, (rows) => rows[0]?.state === 'established');
    await endCall(a, { callId, peer, leg });
  });

  test('an answer to BYE that never comes: nothing stays', async () => {
    const call = await begin('in');
    await call.a.expect('hangup', { callId: call.callId, reason: 'user_hangup' }, 'callEnded');
    await call.peer.request('BYE');
    await until(() => call.peer.log.filter((e) => e.repeat && e.message.method === 'BYE').length >= 1, { what: 'tm repeats it' });
    // Bench.finish sees that nothing is left
  });
});

describe('agents whose secret is known: challenges in a call', () => {
  let registrar;
  before(async () => {
    const port = await freePort();
    kamailio = await startKamailio({ mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfg: hopByNumber(), cfgExtra: timers });
    registrar = await openPeer(kamailio.sipPort, { port });
    new Registrar(registrar, { realm });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); await registrar?.close(); });
  afterEach(() => bench.finish());

  for (const [code, challenge, credentials] of [[401, 'WWW-Authenticate', 'Authorization'], [407, 'Proxy-Authenticate', 'Proxy-Authorization']]) {
    test(`${code} on every request in the dialog`, async () => {
      const call = await begin(code === 401 ? 'out' : 'in', { headers: [UPDATE] });
      const { a, callId, peer, leg } = call;
      /** The next request of that method is challenged, and comes again with the answer. */
      const secured = async (method, callIdOf = leg.callId) => {
        const first = await peer.waitFor(is(method, callIdOf), 5000, method);
        assert.equal(first.header(credentials), undefined, `${method}: not before it is asked for`);
        peer.reply(first, code, { headers: [`${challenge}: Digest realm="${realm}", nonce="${method}", algorithm=MD5, qop="auth", opaque="o"`] });
        const second = await peer.waitFor((m) => is(method, callIdOf)(m) && m.header(credentials), 5000, `${method} with credentials`);
        assert.ok(checkDigest(second.header(credentials), { method, password: 'pw5001' }), method);
        assert.deepEqual([second.cseq > first.cseq, second.body], [true, first.body]);
        assert.match(second.header(credentials), /opaque="o"/);
        return second;
      };
      const dtmf = a.send('dtmf', { callId, digit: '1' });
      peer.reply(await secured('INFO'), 200);
      await a.waitFor('ack', (p, m) => m.id === dtmf);
      const record = a.send('recording', { callId, action: 'start' });
      peer.reply(await secured('INFO'), 200);
      await a.waitFor('recordingUpdated', (p, m) => m.id === record);
      const transfer = a.send('transfer', { callId, to: '1004' });
      const refer = await secured('REFER');
      assert.equal(refer.header('Refer-To'), '<sip:1004@127.0.0.1>');
      peer.reply(refer, 202);
      await a.waitFor('ack', (p, m) => m.id === transfer);
      await leg.notify('486 Busy', { over: true });
      await a.waitFor('transferProgress', (p) => p.state === 'failed');
      // the far side's own transfer: NOTIFY and the new INVITE
      const moved = await leg.request('REFER', { headers: ['Refer-To: <sip:1004@pbx.example>'] });
      assert.equal(moved.status, 202);
      peer.reply(await secured('NOTIFY'), 200);
      await a.waitFor('callUpdated', (p) => p.answerNeeded);
      await a.expect('answer', { callId, sdp: fakeOffer() }, 'ack');
      // the INVITE goes where the call went; that of a call in goes to the registrar
      const at = code === 401 ? peer : registrar;
      const first = await at.waitFor((m) => m.method === 'INVITE' && m.uri.startsWith('sip:1004@'), 5000, 'INVITE');
      at.reply(first, code, { headers: [`${challenge}: Digest realm="${realm}", nonce="i", algorithm=MD5, qop="auth"`] });
      const second = await at.waitFor((m) => m.method === 'INVITE' && m.header(credentials), 5000, 'INVITE with credentials');
      assert.ok(checkDigest(second.header(credentials), { method: 'INVITE', password: 'pw5001' }));
      at.reply(second, 486);
      peer.reply(await secured('NOTIFY'), 200);
      await a.waitFor('callUpdated', (p) => p.answerNeeded === false);
      const end = a.send('hangup', { callId, reason: 'user_hangup' });
      peer.reply(await secured('BYE'), 200);
      await a.waitFor('callEnded', (p, m) => m.id === end);
    });
  }

  test('challenged again with the same nonce: refused, the call goes on', async () => {
    const call = await begin('out');
    const { a, callId, peer } = call;
    const headers = [`WWW-Authenticate: Digest realm="${realm}", nonce="n", algorithm=MD5, qop="auth"`];
    const dtmf = a.send('dtmf', { callId, digit: '1' });
    peer.reply(await peer.request('INFO'), 401, { headers });
    peer.reply(await peer.request('INFO'), 401, { headers });
    assert.equal((await a.waitFor('error', (p, m) => m.id === dtmf)).code, 401);
    const again = a.send('dtmf', { callId, digit: '1' });
    peer.reply(await peer.request('INFO'), 401, { headers });
    peer.reply(await peer.request('INFO'), 401, { headers: [`${headers[0]}, stale=true`] });
    const third = await peer.request('INFO');
    assert.ok(checkDigest(third.header('Authorization'), { method: 'INFO', password: 'pw5001' }));
    peer.reply(third, 200);
    await a.waitFor('ack', (p, m) => m.id === again);
    await endCall(a, call);
  });
});

test('the long waits: refreshes made and missed, 18x and 200 that nobody confirms', async () => {
  const done = await long;
  for (const { what, error } of done) console.log(`${error ? 'FAIL' : 'ok  '}   ${what}`);
  const failed = done.filter((d) => d.error);
  assert.equal(failed.length, 0, failed.map((f) => `${f.what}: ${f.error.stack}`).join('\n\n'));
});
