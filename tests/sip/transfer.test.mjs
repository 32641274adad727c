/** Calls that are sent elsewhere: by the browser (REFER), by the far side (REFER, INVITE with Replaces), into a conference. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer } from './peer.mjs';
import { Bench, callIn, callOut, callsBecome, endCall, endsOf, partsOf, tm } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;
/** The one next hop: every far side, the media server too. @type {import('./peer.mjs').Peer} */
let pbx;

function usual(params = {}) {
  before(async () => {
    const port = await freePort();
    kamailio = await startKamailio({
      nextHop: `sip:127.0.0.1:${port}`, params: { max_calls_per_agent: 8, trusted_peers: '127.0.0.1', ...params },
      cfgExtra: tm({ fr_timer: 1500, fr_inv_timer: 6000, wt_timer: 200 }),
    });
    pbx = await openPeer(kamailio.sipPort, { port });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); await pbx?.close(); });
  afterEach(async () => { await bench.finish(); pbx.forget(); });
}

const active = (version = 1) => farSdp({ setup: 'active', version });

/** An answered call: { callId, leg, peer }. */
const begin = (a, direction, more = {}) => (direction === 'out' ? callOut(a, pbx, { more: { to: '1003', ...more } }) : callIn(kamailio, a, pbx, '5001'));

/** The next transferProgress: [state, code]. */
const progress = (a) => a.waitFor('transferProgress').then((p) => [p.state, p.code]);

const ended = (a, callId) => a.waitFor('callEnded', (p) => p.callId === callId).then((p) => p.reason);

/** Sends `transfer`; the far side takes it. */
async function refer(a, leg, payload, { code = 202, headers = [] } = {}) {
  const id = a.send('transfer', payload);
  const request = await leg.incoming('REFER');
  pbx.reply(request, code, { headers });
  if (code < 300) await a.waitFor('ack', (p, m) => m.id === id && p.callId === payload.callId);
  return { id, request };
}

const byed = async (leg) => { const bye = await leg.incoming('BYE'); pbx.reply(bye, 200); return bye; };

/** Holds the call, which shows that it works. */
async function stillWorks(a, { callId, leg }) {
  const id = a.send('hold', { callId, hold: true });
  pbx.reply(await leg.incoming('INVITE'), 200, { body: farSdp({ setup: 'active', version: 7, direction: 'recvonly' }) });
  assert.equal((await a.waitFor('callUpdated', (p, m) => m.id === id)).hold, true);
}

describe('the browser transfers', () => {
  usual();

  for (const direction of ['out', 'in']) {
    test(`blind, a call ${direction}: REFER, NOTIFY, BYE by us`, async () => {
      const a = await bench.agent('5001');
      const call = await begin(a, direction);
      const { callId, leg } = call;
      const { request } = await refer(a, leg, { callId, to: '1004' });
      assert.equal(request.header('Refer-To'), '<sip:1004@127.0.0.1>');
      assert.equal(request.header('Referred-By'), '<sip:5001@127.0.0.1>');
      assert.match(request.header('Contact'), /<sip:5001@127\.0\.0\.1:\d+>/);
      assert.deepEqual([request.fromTag, request.toTag], [leg.remoteTag, leg.localTag]);
      assert.deepEqual(await progress(a), ['trying', undefined]);
      await leg.notify('100 Trying');
      await leg.notify('180 Ringing');
      assert.equal((await progress(a))[0], 'ringing');
      await leg.notify('180 Ringing');
      assert.equal(pbx.received((m) => m.method === 'BYE').length, 0);
      const { type, payload } = await a.request('transfer', { callId, to: '1005' });
      assert.deepEqual([type, payload.code], ['error', 409], 'once at a time');
      await leg.notify('200 OK', { over: true });
      assert.deepEqual(await progress(a), ['completed', 200]);
      await byed(leg);
      assert.equal(await ended(a, callId), 'transferred');
      assert.deepEqual(a.received.filter((m) => m.type === 'transferProgress').map((m) => m.payload.state), ['trying', 'ringing', 'completed']);
      assert.equal(endsOf(a, callId).length, 1);
    });
  }

  test('refused: error, the call goes on, the next one is taken', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    const { callId, leg } = call;
    for (const code of [603, 403, 500]) {
      const { id } = await refer(a, leg, { callId, to: '1004' }, { code });
      const error = await a.waitFor('error', (p, m) => m.id === id);
      assert.deepEqual([error.code, error.callId], [code, callId]);
    }
    await refer(a, leg, { callId, to: '1004' });
    await progress(a);
    // a NOTIFY may bring the end at once
    await leg.notify('200 OK', { over: true });
    await byed(leg);
    assert.equal(await ended(a, callId), 'transferred');
  });

  test('not answered: 408, the call goes on', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    const id = a.send('transfer', { callId: call.callId, to: '1004' });
    await call.leg.incoming('REFER');
    assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 408);
    await stillWorks(a, call);
    await endCall(a, call);
  });

  for (const [what, status, code] of [['busy', '486 Busy Here', 486], ['unknown', '404 Not Found', 404], ['over before it came to an end', '100 Trying', undefined]]) {
    test(`the target is ${what}: failed, and the call goes on`, async () => {
      const a = await bench.agent('5001');
      const call = await begin(a, 'in');
      const { callId, leg } = call;
      await refer(a, leg, { callId, to: '1004' });
      assert.equal((await progress(a))[0], 'trying');
      await leg.notify(status, { over: true });
      assert.deepEqual(await progress(a), ['failed', code]);
      await a.never('callEnded', 100);
      await stillWorks(a, call);
      await refer(a, leg, { callId, to: '1004' });
      assert.equal((await progress(a))[0], 'trying');
      await leg.notify('200 OK', { over: true });
      assert.equal((await progress(a))[0], 'completed');
      await byed(leg);
      assert.equal(await ended(a, callId), 'transferred');
    });
  }

  test('Refer-Sub: false in the 202: that is all there will be', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    await refer(a, leg, { callId, to: '1004' }, { headers: ['Refer-Sub: false'] });
    assert.equal((await progress(a))[0], 'completed');
    await byed(leg);
    assert.equal(await ended(a, callId), 'transferred');
  });

  test('the NOTIFY overtakes the 202: ack first, all the same', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    const id = a.send('transfer', { callId, to: '1004' });
    const request = await leg.incoming('REFER');
    await leg.notify('200 OK', { over: true });
    pbx.reply(request, 202);
    await byed(leg);
    assert.deepEqual(await a.waitFor('ack', (p, m) => m.id === id), { callId });
    assert.equal((await progress(a))[0], 'completed');
    assert.equal(await ended(a, callId), 'transferred');
    const order = a.received.filter((m) => m.id === id || ['transferProgress', 'callEnded'].includes(m.type)).map((m) => m.type);
    assert.deepEqual(order, ['ack', 'transferProgress', 'callEnded']);
  });

  test('the far side hangs up before the last NOTIFY: transferred', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    await refer(a, leg, { callId, to: '1004' });
    assert.equal((await progress(a))[0], 'trying');
    assert.equal((await leg.bye()).status, 200);
    assert.equal((await progress(a))[0], 'completed');
    assert.equal(await ended(a, callId), 'transferred');
    assert.equal(endsOf(a, callId).length, 1);
  });

  test('the browser hangs up before the last NOTIFY', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    await refer(a, leg, { callId, to: '1004' });
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    await byed(leg);
    assert.equal(endsOf(a, callId).length, 1);
    assert.equal((await leg.request('NOTIFY', { headers: ['Event: refer', 'Subscription-State: terminated'] })).status, 481);
  });

  test('hung up before the REFER is answered', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    const id = a.send('transfer', { callId, to: '1004' });
    const request = await leg.incoming('REFER');
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 487);
    pbx.reply(request, 202);
    await byed(leg);
  });

  test('what is no NOTIFY of ours', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    const { leg } = call;
    assert.equal((await leg.request('NOTIFY', { headers: ['Event: presence', 'Subscription-State: active'] })).status, 489);
    // nobody waits for it: taken, and nothing happens
    await leg.notify('200 OK', { over: true });
    await a.never('transferProgress', 100);
    for (const bad of [{}, { to: 'a b' }, { to: '1\r\nX: y' }, { to: '1004', withCallId: call.callId }, { withCallId: 'nonsense' }, { withCallId: call.callId }]) {
      const { type, payload } = await a.request('transfer', { callId: call.callId, ...bad });
      assert.ok(type === 'error' && [400, 404, 409].includes(payload.code), JSON.stringify([bad, payload]));
    }
    assert.equal(pbx.received((m) => m.method === 'REFER').length, 0);
    await endCall(a, call);
  });

  for (const [first, second] of [['out', 'out'], ['in', 'in'], ['in', 'out'], ['out', 'in']]) {
    test(`attended, a call ${first} with one ${second}: Replaces names the far side's dialog`, async () => {
      const a = await bench.agent('5001');
      const one = await begin(a, first);
      await stillWorks(a, one);
      const two = await begin(a, second);
      const { request } = await refer(a, one.leg, { callId: one.callId, withCallId: two.callId });
      const [, uri, fields] = /^<(sip:[^?>]+)\?Replaces=([^>]+)>$/.exec(request.header('Refer-To')) ?? assert.fail(request.header('Refer-To'));
      assert.equal(uri, `sip:far@127.0.0.1:${pbx.port}`);
      const [callId, ...tags] = decodeURIComponent(fields).split(';');
      assert.equal(callId, two.leg.callId);
      assert.deepEqual(tags.sort(), [`from-tag=${two.leg.remoteTag}`, `to-tag=${two.leg.localTag}`]);
      assert.equal((await progress(a))[0], 'trying');
      assert.equal((await a.request('transfer', { callId: two.callId, to: '1' })).payload.code, 409, 'both are taken');
      if (first === second) {
        // the replaced dialog is ended by its far side, as RFC 3891 has it, before the NOTIFY comes
        assert.equal((await two.leg.bye()).status, 200);
        assert.equal(await ended(a, two.callId), 'transferred');
        await one.leg.notify('200 OK', { over: true });
      } else {
        await one.leg.notify('200 OK', { over: true });
        await byed(two.leg);
        assert.equal(await ended(a, two.callId), 'transferred');
      }
      assert.equal((await progress(a))[0], 'completed');
      await byed(one.leg);
      assert.equal(await ended(a, one.callId), 'transferred');
      assert.deepEqual([endsOf(a, one.callId).length, endsOf(a, two.callId).length], [1, 1]);
      if (first === second) assert.equal(pbx.received((m) => m.method === 'BYE' && m.callId === two.leg.callId).length, 0);
    });
  }

  test('attended, refused and failed: both calls go on', async () => {
    const a = await bench.agent('5001');
    const [one, two] = [await begin(a, 'out'), await begin(a, 'in')];
    const payload = { callId: one.callId, withCallId: two.callId };
    const { id } = await refer(a, one.leg, payload, { code: 405 });
    assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 405);
    await refer(a, one.leg, payload);
    assert.equal((await progress(a))[0], 'trying');
    await one.leg.notify('481 Call/Transaction Does Not Exist', { over: true });
    assert.deepEqual(await progress(a), ['failed', 481]);
    await stillWorks(a, one);
    await stillWorks(a, two);
    await endCall(a, one);
    await endCall(a, two);
  });

  test('a call that rings is not transferred', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'in');
    const leg = pbx.leg('5001');
    leg.invite();
    const { callId } = await a.waitFor('incomingCall');
    assert.equal((await a.request('transfer', { callId, to: '1004' })).payload.code, 409);
    assert.equal((await a.request('transfer', { callId: call.callId, withCallId: callId })).payload.code, 409);
    await a.expect('hangup', { callId, reason: 'busy' }, 'callEnded');
    leg.ack(await leg.answer());
    await endCall(a, call);
  });
});

/** REFER of the far side; its reply. */
const far = (leg, to, headers = []) => leg.request('REFER', { headers: [`Refer-To: ${to}`, `Referred-By: <sip:far@127.0.0.1>`, ...headers] });

/** The next NOTIFY in the dialog: [status, over]. */
async function notified(leg) {
  const notify = await leg.incoming('NOTIFY');
  pbx.reply(notify, 200);
  assert.equal(notify.header('Event').split(';')[0], 'refer');
  assert.match(notify.header('Content-Type'), /^message\/sipfrag/);
  return [Number(/^SIP\/2\.0 (\d+)/.exec(notify.body)[1]), notify.header('Subscription-State').startsWith('terminated')];
}

const asked = (a) => a.waitFor('callUpdated', (p) => p.answerNeeded !== undefined);

/** The browser makes its offer, and the INVITE goes out. */
async function goes(a, callId, leg, ufrag = 'newU') {
  const wanted = await asked(a);
  assert.deepEqual([wanted.callId, wanted.answerNeeded, wanted.sdp], [callId, true, undefined]);
  if (leg) assert.deepEqual(await notified(leg), [100, false]);
  await a.expect('answer', { callId, sdp: fakeOffer().replace(/a=ice-ufrag:.*/, `a=ice-ufrag:${ufrag}`) }, 'ack');
  const invite = await pbx.waitFor((m) => m.method === 'INVITE' && !m.toTag, 5000, 'INVITE');
  assert.equal(partsOf(invite.body).ufrag, ufrag);
  return invite;
}

/** The new far side answers; its leg. */
function answers(invite, tag = 'new') {
  pbx.reply(invite, 200, { tag, body: farSdp({ setup: 'active', ufrag: 'moved' }) });
  return pbx.legOf(invite, tag);
}

const told = (a) => a.waitFor('callUpdated', (p) => p.sdp);

describe('the far side transfers: REFER', () => {
  usual();

  for (const direction of ['out', 'in']) {
    test(`to a number, a call ${direction}: the call stays the same for the browser`, async () => {
      const a = await bench.agent('5001');
      const call = await begin(a, direction);
      const { callId, leg } = call;
      await stillWorks(a, call);
      assert.equal((await far(leg, '"New, One" <sip:1004@pbx.example;user=phone>')).status, 202);
      const invite = await goes(a, callId, leg);
      assert.match(invite.uri, /^sip:1004@pbx\.example/);
      assert.equal(invite.header('Referred-By'), '<sip:far@127.0.0.1>');
      assert.match(invite.header('From'), /<sip:5001@127\.0\.0\.1>;tag=/);
      assert.equal(invite.header('P-Asserted-Identity'), '<sip:5001@127.0.0.1>');
      assert.notEqual(invite.callId, leg.callId);
      pbx.reply(invite, 180, { tag: 'new' });
      assert.deepEqual(await notified(leg), [180, false]);
      const next = answers(invite);
      assert.deepEqual(await notified(leg), [200, true]);
      const update = await told(a);
      assert.deepEqual([update.callId, partsOf(update.sdp).ufrag, update.answerNeeded], [callId, 'moved', undefined]);
      assert.deepEqual([update.remote.number, update.hold, update.remoteHold], ['1004', false, false]);
      await byed(leg);
      await pbx.waitFor((m) => m.method === 'ACK' && m.callId === invite.callId);
      await callsBecome(kamailio, (rows) => rows.length === 1 && rows[0].callId === callId && rows[0].sipCallId === next.callId && String(rows[0].peer) === '1004');
      assert.equal(a.received.filter((m) => ['callEnded', 'callProgress', 'incomingCall'].includes(m.type) && m.payload.state !== 'trying' && !(direction === 'in' && m.type === 'incomingCall')).length, 0);
      await stillWorks(a, { callId, leg: next });
      await endCall(a, { callId, peer: pbx, leg: next });
    });

    test(`to a call of somebody else (Replaces), a call ${direction}`, async () => {
      const a = await bench.agent('5001');
      const { callId, leg } = await begin(a, direction);
      assert.equal((await far(leg, '<sip:1004@pbx.example?Replaces=other-call%40host%3Bto-tag%3Dt1%3Bfrom-tag%3Df1&X-Evil=no%0d%0aX-Evil2%3A%20no>')).status, 202);
      const invite = await goes(a, callId, leg);
      assert.equal(invite.header('Replaces'), 'other-call@host;to-tag=t1;from-tag=f1');
      assert.match(invite.header('Require'), /replaces/);
      assert.doesNotMatch(invite.text, /Evil/);
      const next = answers(invite);
      assert.deepEqual(await notified(leg), [200, true]);
      assert.equal((await told(a)).remote.number, '1004');
      await byed(leg);
      await endCall(a, { callId, peer: pbx, leg: next });
    });
  }

  for (const [what, act] of [
    ['is busy', (invite) => pbx.reply(invite, 486, { tag: 'new' })],
    ['answers what cannot be used', (invite) => pbx.reply(invite, 200, { tag: 'new', body: active().replace('a=fingerprint', 'a=no') })],
  ]) {
    test(`the new far side ${what}: the call goes on with the old one`, async () => {
      const a = await bench.agent('5001');
      const call = await begin(a, 'in');
      const { callId, leg } = call;
      assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
      const invite = await goes(a, callId, leg);
      act(invite);
      const code = what === 'is busy' ? 486 : 488;
      assert.deepEqual(await notified(leg), [code, true]);
      const back = await asked(a);
      assert.deepEqual([back.answerNeeded, back.sdp], [false, undefined]);
      if (code === 488) await byed(pbx.legOf(invite, 'new'));
      await stillWorks(a, call);
      // and a second try
      assert.equal((await far(leg, '<sip:1005@pbx.example>')).status, 202);
      const next = answers(await goes(a, callId, leg, 'thirdU'));
      assert.deepEqual(await notified(leg), [200, true]);
      await told(a);
      await byed(leg);
      await endCall(a, { callId, peer: pbx, leg: next });
    });
  }

  test('Refer-Sub: false: no NOTIFY', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    const reply = await far(leg, '<sip:1004@pbx.example>', ['Refer-Sub: false']);
    assert.deepEqual([reply.status, reply.header('Refer-Sub')], [202, 'false']);
    const next = answers(await goes(a, callId));
    await told(a);
    await byed(leg);
    assert.equal(pbx.received((m) => m.method === 'NOTIFY').length, 0);
    await endCall(a, { callId, peer: pbx, leg: next });
  });

  for (const [when, ring] of [['before the browser has made its offer', false], ['while the new one rings', true]]) {
    test(`the referrer hangs up ${when}: the call moves on without it`, async () => {
      const a = await bench.agent('5001');
      const { callId, leg } = await begin(a, 'out');
      assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
      let invite;
      if (ring) {
        invite = await goes(a, callId, leg);
        pbx.reply(invite, 180, { tag: 'new' });
        assert.deepEqual(await notified(leg), [180, false]);
        assert.equal((await leg.bye()).status, 200);
      } else {
        assert.deepEqual(await notified(leg), [100, false]);
        assert.equal((await leg.bye()).status, 200);
        invite = await goes(a, callId);
      }
      const next = answers(invite);
      assert.equal((await told(a)).remote.number, '1004');
      await a.never('callEnded', 100);
      await callsBecome(kamailio, (rows) => rows.length === 1);
      assert.equal(pbx.received((m) => m.callId === leg.callId && m.method === 'BYE').length, 0);
      await endCall(a, { callId, peer: pbx, leg: next });
    });
  }

  test('the referrer hangs up and the new one is busy: the call is over', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'in');
    assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
    const invite = await goes(a, callId, leg);
    assert.equal((await leg.bye()).status, 200);
    pbx.reply(invite, 486, { tag: 'new' });
    assert.equal(await ended(a, callId), 'normal_clearing');
    assert.equal(endsOf(a, callId).length, 1);
  });

  test('the browser hangs up while the new one rings: CANCEL there, BYE here', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
    const invite = await goes(a, callId, leg);
    pbx.reply(invite, 180, { tag: 'new' });
    assert.deepEqual(await notified(leg), [180, false]);
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    const cancel = await pbx.request('CANCEL');
    assert.equal(cancel.callId, invite.callId);
    pbx.reply(cancel, 200);
    pbx.reply(invite, 487, { tag: 'new' });
    await byed(leg);
    assert.equal(endsOf(a, callId).length, 1);
  });

  test('the browser hangs up while the new one rings, and that one answers all the same', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
    const invite = await goes(a, callId, leg);
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    const next = answers(invite);
    await byed(next);
    await byed(leg);
    assert.equal(endsOf(a, callId).length, 1);
    await a.never('callUpdated', 50);
  });

  test('the browser hangs up before it has made its offer', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'in');
    assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
    await asked(a);
    assert.deepEqual(await notified(leg), [100, false]);
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    await byed(leg);
    assert.equal(pbx.received((m) => m.method === 'INVITE').length, 0);
  });

  test('what cannot be moved is refused', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    const { callId, leg } = call;
    assert.equal((await leg.request('REFER')).status, 400);
    assert.equal((await far(leg, '<http://www.example/>')).status, 400);
    assert.equal((await far(leg, '<sip:1004@pbx.example?Replaces=no-tags>')).status, 400);
    const hold = a.send('hold', { callId, hold: true });
    const open = await leg.incoming('INVITE');
    assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 491);
    pbx.reply(open, 488);
    await a.waitFor('error', (p, m) => m.id === hold);
    assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
    assert.equal((await far(leg, '<sip:1005@pbx.example>')).status, 491, 'one at a time');
    assert.deepEqual(await notified(leg), [100, false]);
    await asked(a);
    assert.equal((await a.request('update', { callId, sdp: fakeOffer() })).payload.code, 491);
    assert.equal((await a.request('transfer', { callId, to: '1005' })).payload.code, 409);
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    await byed(leg);
    // no dialog at all
    assert.equal((await far(pbx.leg('5001'), '<sip:1004@pbx.example>')).status, 481);
  });

  test('the browser is away: 480', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    a.terminate();
    await a.whenClosed();
    await sleep(2200);
    assert.equal((await far(call.leg, '<sip:1004@pbx.example>')).status, 480);
    const b = await bench.client();
    await b.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
    await endCall(b, call);
  });

  test('the connection breaks while it is asked: asked again when the browser is back', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    assert.equal((await far(leg, '<sip:1004@pbx.example>')).status, 202);
    await asked(a);
    a.terminate();
    await a.whenClosed();
    const b = await bench.client();
    await b.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
    const next = answers(await goes(b, callId, leg));
    assert.deepEqual(await notified(leg), [200, true]);
    assert.equal((await told(b)).remote.number, '1004');
    await byed(leg);
    await endCall(b, { callId, peer: pbx, leg: next });
  });

  test('the browser never makes its offer', async () => {
    const [a, b, c] = [await bench.agent('5001'), await bench.agent('5002'), await bench.agent('5003')];
    await Promise.all([
      (async () => {
        const call = await begin(a, 'out');
        assert.equal((await far(call.leg, '<sip:1004@pbx.example>')).status, 202);
        assert.deepEqual(await notified(call.leg), [100, false]);
        assert.equal((await asked(a)).answerNeeded, true);
        const last = await call.leg.incoming('NOTIFY', 20_000);
        pbx.reply(last, 200);
        assert.match(last.body, /^SIP\/2\.0 408/);
        assert.match(last.header('Subscription-State'), /^terminated/);
        const back = await a.waitFor('callUpdated', (p) => p.answerNeeded === false);
        assert.equal(back.sdp, undefined);
        await endCall(a, call);
      })(),
      (async () => {
        const leg = pbx.leg('5002');
        leg.invite();
        const { callId } = await b.waitFor('incomingCall');
        await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
        const ok = await leg.answer();
        leg.ack(ok);
        await callsBecome(kamailio, (rows) => rows.find((r) => r.callId === callId)?.state === 'established');
        const taker = pbx.leg('5002');
        taker.invite({ headers: [`Replaces: ${leg.callId};to-tag=${leg.remoteTag};from-tag=${leg.localTag}`] });
        assert.equal((await asked(b)).answerNeeded, true);
        const final = await taker.answer(20_000);
        assert.equal(final.status, 480);
        taker.ack(final);
        assert.equal((await b.waitFor('callUpdated', (p) => p.answerNeeded === false)).callId, callId);
        await endCall(b, { callId, peer: pbx, leg });
      })(),
      (async () => {
        const calls = [await callOut(c, pbx, { more: { to: '1006' } }), await callOut(c, pbx, { more: { to: '1007' } })];
        await c.expect('conference', { callIds: calls.map((x) => x.callId) }, 'ack');
        assert.equal((await asked(c)).answerNeeded, true);
        assert.equal((await c.waitFor('conferenceUpdated')).state, 'joining');
        assert.equal((await c.waitFor('conferenceUpdated', () => true, 20_000)).state, 'failed');
        await c.waitFor('callUpdated', (p) => p.answerNeeded === false);
        for (const call of calls) await endCall(c, call);
      })(),
    ]);
  });
});

describe('the far side takes the place of another: INVITE with Replaces', () => {
  usual();

  /** An INVITE that replaces that dialog. */
  function replacing(leg, { body, more = '', headers = [] } = {}) {
    const taker = pbx.leg('5001', { local: `"New One" <sip:1004@127.0.0.1:${pbx.port}>` });
    taker.invite({
      ...(body === undefined ? { body: farSdp({ ufrag: 'moved' }) } : { body }),
      headers: ['Require: replaces', `Replaces: ${leg.callId};to-tag=${leg.remoteTag};from-tag=${leg.localTag}${more}`, ...headers],
    });
    return taker;
  }

  for (const direction of ['out', 'in']) {
    test(`with an offer, a call ${direction}`, async () => {
      const a = await bench.agent('5001');
      const { callId, leg } = await begin(a, direction);
      const taker = replacing(leg);
      const wanted = await asked(a);
      assert.deepEqual([wanted.callId, wanted.answerNeeded, partsOf(wanted.sdp).ufrag], [callId, true, 'moved']);
      assert.equal(pbx.received((m) => m.method === 'BYE').length, 0, 'the old one stands until then');
      await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      const ok = await taker.answer();
      assert.deepEqual([ok.status, partsOf(ok.body).setup], [200, 'active']);
      taker.ack(ok);
      const update = await a.waitFor('callUpdated', (p) => p.remote);
      assert.deepEqual([update.callId, update.remote, update.answerNeeded], [callId, { number: '1004', displayName: 'New One' }, undefined]);
      await byed(leg);
      await callsBecome(kamailio, (rows) => rows.length === 1 && rows[0].callId === callId && rows[0].sipCallId === taker.callId);
      if (direction === 'out') assert.ok(!a.received.some((m) => m.type === 'incomingCall'));
      await stillWorks(a, { callId, leg: taker });
      await endCall(a, { callId, peer: pbx, leg: taker });
    });

    test(`without an offer, a call ${direction}`, async () => {
      const a = await bench.agent('5001');
      const { callId, leg } = await begin(a, direction);
      const taker = replacing(leg, { body: '' });
      const wanted = await asked(a);
      assert.deepEqual([wanted.answerNeeded, wanted.sdp], [true, undefined]);
      await a.expect('answer', { callId, sdp: fakeOffer() }, 'ack');
      const ok = await taker.answer();
      assert.deepEqual([ok.status, partsOf(ok.body).setup], [200, 'actpass']);
      taker.ack(ok, { body: farSdp({ setup: 'active', ufrag: 'moved' }) });
      assert.equal((await a.waitFor('callUpdated', (p) => p.remote)).remote.number, '1004');
      assert.equal(partsOf((await told(a)).sdp).ufrag, 'moved');
      await byed(leg);
      await endCall(a, { callId, peer: pbx, leg: taker });
    });
  }

  test('the old far side hangs up by itself, as it should', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    const taker = replacing(leg);
    await asked(a);
    assert.equal((await leg.bye()).status, 200);
    await a.never('callEnded', 100);
    await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    taker.ack(await taker.answer());
    await a.waitFor('callUpdated', (p) => p.remote);
    await callsBecome(kamailio, (rows) => rows.length === 1);
    assert.equal(pbx.received((m) => m.method === 'BYE').length, 0);
    await endCall(a, { callId, peer: pbx, leg: taker });
  });

  test('a dialog that is not there, only an early one wanted, nonsense', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'in');
    const { leg } = call;
    for (const [what, status, taker] of [
      ['unknown', 481, replacing({ ...leg, callId: 'nothing' })],
      ['tags the wrong way round', 481, replacing({ ...leg, localTag: leg.remoteTag, remoteTag: leg.localTag })],
      ['early-only', 486, replacing(leg, { more: ';early-only' })],
      ['no tags', 400, (() => { const t = pbx.leg('5001'); t.invite({ headers: [`Replaces: ${leg.callId}`] }); return t; })()],
      ['no DTLS', 488, replacing(leg, { body: active().replace('a=fingerprint', 'a=no') })],
    ]) {
      const final = await taker.answer();
      taker.ack(final);
      assert.equal(final.status, status, what);
    }
    await a.never('callUpdated', 100);
    assert.equal(a.received.filter((m) => m.type === 'incomingCall').length, 1);
    await stillWorks(a, call);
    await endCall(a, call);
    const late = replacing(leg);
    const final = await late.answer();
    late.ack(final);
    assert.ok([481, 603].includes(final.status), 'one that is over');
  });

  test('CANCEL of it: the call goes on as it was', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    const taker = replacing(call.leg);
    await asked(a);
    taker.cancel();
    assert.equal((await taker.reply(taker.inviteBranch, undefined, 3000, 'CANCEL')).status, 200);
    const final = await taker.answer();
    assert.equal(final.status, 487);
    taker.ack(final);
    assert.deepEqual([(await asked(a)).answerNeeded], [false]);
    await stillWorks(a, call);
    await endCall(a, call);
  });

  test('hung up while it waits for the browser', async () => {
    const a = await bench.agent('5001');
    const { callId, leg } = await begin(a, 'out');
    const taker = replacing(leg);
    await asked(a);
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    const final = await taker.answer();
    taker.ack(final);
    assert.ok(final.status >= 480, String(final.status));
    await byed(leg);
    assert.equal(endsOf(a, callId).length, 1);
  });

  test('CANCEL against the answer: whoever wins, one far side is left', async () => {
    const a = await bench.agent('5001');
    const results = new Set();
    for (let i = 0; i < 12; i += 1) {
      const { callId, leg } = await begin(a, 'out');
      const taker = replacing(leg);
      await asked(a);
      const answer = (async () => { await sleep(i % 3); return a.request('answer', { callId, sdp: fakeAnswer() }); })();
      await sleep((i * 7) % 4);
      taker.cancel();
      const final = await taker.answer();
      taker.ack(final);
      await answer;
      results.add(final.status);
      if (final.status === 200) {
        await byed(leg);
        await endCall(a, { callId, peer: pbx, leg: taker });
      } else {
        assert.equal(final.status, 487);
        await endCall(a, { callId, peer: pbx, leg });
      }
    }
    assert.ok(results.size >= 1);
  });
});

describe('accept_refer 0', () => {
  usual({ accept_refer: 0 });

  test('REFER gets 603, and the call goes on', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    assert.equal((await far(call.leg, '<sip:1004@pbx.example>')).status, 603);
    await a.never('callUpdated', 100);
    await stillWorks(a, call);
    await endCall(a, call);
  });
});

describe('conference', () => {
  usual();

  const conference = (a) => a.waitFor('conferenceUpdated').then((p) => [p.state, p.callIds, p.room]);

  /** Two calls, and the way to the room up to the INVITE. */
  async function towards(a, directions = ['out', 'in'], more = {}) {
    const calls = [];
    for (const direction of directions) calls.push(await begin(a, direction));
    const callIds = calls.map((c) => c.callId);
    const room = more.room ?? 'conf-5001';
    await a.expect('conference', { callIds, ...more }, 'ack');
    assert.deepEqual(await conference(a), ['joining', callIds, room]);
    const invite = await goes(a, callIds[0]);
    assert.equal(invite.uri, `sip:${room}@127.0.0.1`);
    return { calls, callIds, room, invite };
  }

  for (const directions of [['out', 'out'], ['in', 'in'], ['out', 'in', 'out']]) {
    test(`of calls ${directions}: all far sides are sent to the room`, async () => {
      const a = await bench.agent('5001');
      const { calls, callIds, room, invite } = await towards(a, directions);
      const own = answers(invite, 'room');
      const update = await told(a);
      assert.deepEqual([update.callId, update.remote.number], [callIds[0], room]);
      for (const call of calls) {
        const request = await call.leg.incoming('REFER');
        assert.equal(request.header('Refer-To'), `<sip:${room}@127.0.0.1>`);
        pbx.reply(request, 202);
      }
      for (const call of calls) {
        await call.leg.notify('100 Trying');
        await call.leg.notify('200 OK', { over: true });
        await byed(call.leg);
      }
      assert.deepEqual(await conference(a).then(([state, ids, r]) => [state, [...ids].sort(), r]), ['active', [...callIds].sort(), room]);
      for (const id of callIds.slice(1)) assert.equal(await ended(a, id), 'transferred');
      assert.ok(!a.received.some((m) => m.type === 'transferProgress'));
      await callsBecome(kamailio, (rows) => rows.length === 1 && rows[0].callId === callIds[0] && rows[0].peer === room);
      await stillWorks(a, { callId: callIds[0], leg: own });
      await endCall(a, { callId: callIds[0], peer: pbx, leg: own });
    });
  }

  test('a room by name, the media server hangs up', async () => {
    const a = await bench.agent('5001');
    const { calls, callIds, invite } = await towards(a, ['out', 'out'], { room: 'team.7' });
    const own = answers(invite, 'room');
    for (const call of calls) {
      pbx.reply(await call.leg.incoming('REFER'), 202);
      await call.leg.notify('200 OK', { over: true });
      await byed(call.leg);
    }
    assert.equal((await conference(a))[0], 'active');
    assert.equal((await own.bye()).status, 200);
    assert.equal(await ended(a, callIds[0]), 'normal_clearing');
  });

  test('the room refuses: failed, and both calls go on', async () => {
    const a = await bench.agent('5001');
    const { calls, invite } = await towards(a);
    pbx.reply(invite, 404, { tag: 'room' });
    assert.equal((await conference(a))[0], 'failed');
    assert.equal((await asked(a)).answerNeeded, false);
    for (const call of calls) {
      await stillWorks(a, call);
      await endCall(a, call);
    }
    assert.equal(pbx.received((m) => m.method === 'REFER').length, 0);
  });

  test('a far side that is not ready yet (400) is asked again, one that refuses stays where it is', async () => {
    const a = await bench.agent('5001');
    const { calls, callIds, invite } = await towards(a, ['out', 'in', 'in']);
    const own = answers(invite, 'room');
    await told(a);
    const [first, second, third] = calls;
    pbx.reply(await first.leg.incoming('REFER'), 400);
    pbx.reply(await second.leg.incoming('REFER'), 603);
    pbx.reply(await third.leg.incoming('REFER'), 202);
    await third.leg.notify('200 OK', { over: true });
    await byed(third.leg);
    pbx.reply(await first.leg.incoming('REFER'), 202);
    await first.leg.notify('200 OK', { over: true });
    await byed(first.leg);
    const [state, ids] = await conference(a);
    assert.deepEqual([state, [...ids].sort()], ['active', [callIds[0], callIds[2]].sort()]);
    assert.equal(await ended(a, callIds[2]), 'transferred');
    await stillWorks(a, second);
    await endCall(a, second);
    await endCall(a, { callId: callIds[0], peer: pbx, leg: own });
  });

  test('one far side hangs up on the way', async () => {
    const a = await bench.agent('5001');
    const { calls, callIds, invite } = await towards(a);
    assert.equal((await calls[1].leg.bye()).status, 200);
    assert.equal(await ended(a, callIds[1]), 'normal_clearing');
    const own = answers(invite, 'room');
    pbx.reply(await calls[0].leg.incoming('REFER'), 202);
    await calls[0].leg.notify('200 OK', { over: true });
    await byed(calls[0].leg);
    const [state, ids] = await conference(a);
    assert.deepEqual([state, ids], ['active', [callIds[0]]]);
    await endCall(a, { callId: callIds[0], peer: pbx, leg: own });
  });

  test('hung up while the room rings: nothing is left, the other call goes on', async () => {
    const a = await bench.agent('5001');
    const { calls, callIds, invite } = await towards(a);
    pbx.reply(invite, 180, { tag: 'room' });
    await a.expect('hangup', { callId: callIds[0], reason: 'user_hangup' }, 'callEnded');
    pbx.reply(await pbx.request('CANCEL'), 200);
    pbx.reply(invite, 487, { tag: 'room' });
    await byed(calls[0].leg);
    assert.ok(['failed', 'ended'].includes((await conference(a))[0]));
    await stillWorks(a, calls[1]);
    await endCall(a, calls[1]);
  });

  test('what cannot be joined', async () => {
    const a = await bench.agent('5001');
    const call = await begin(a, 'out');
    const { callId } = call;
    for (const [code, callIds] of [[400, []], [400, [callId]], [400, [callId, callId]], [404, [callId, 'nonsense']]]) {
      const { type, payload } = await a.request('conference', { callIds });
      assert.deepEqual([type, payload.code], ['error', code], JSON.stringify(callIds));
    }
    await a.never('conferenceUpdated', 50);
    await endCall(a, call);
    await until(() => endsOf(a, callId).length === 1);
  });
});
