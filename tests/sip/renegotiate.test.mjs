/** Descriptions after the first: the browser's own, those of the far side, offers that somebody else answers, late candidates. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { candidateLine, fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp } from './peer.mjs';
import { assertFollows, Bench, callIn, callOut, endCall, endsOf, hopByNumber, partsOf, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const timers = tm({ fr_timer: 1500, fr_inv_timer: 4000, wt_timer: 200 });
const trickles = 'Supported: trickle-ice';
const updates = 'Allow: INVITE, ACK, CANCEL, BYE, UPDATE, INFO';

/** A new offer (or answer) of the browser with other ICE credentials. */
const restarted = (sdp, ufrag = 'newU') => sdp.replace(/a=ice-ufrag:.*/, `a=ice-ufrag:${ufrag}`).replace(/a=ice-pwd:.*/, 'a=ice-pwd:aNewPasswordOf24Letters0');
/** The same of the far side. */
const movedSdp = (version, more = {}) => farSdp({ version, ufrag: `far${version}`, ...more });

/** An answered call in that direction: { callId, leg, peer, sent, a }. */
async function begin(direction, options = {}, dn = '5001') {
  const [a, peer] = [await bench.agent(dn), await bench.peer()];
  const call = direction === 'out' ? await callOut(a, peer, options) : await callIn(kamailio, a, peer, dn, options);
  return { ...call, a };
}

const outcomeOf = (a, id) => a.waitFor('callUpdated', (p, m) => m.id === id);
const asked = (a) => a.waitFor('callUpdated', (p) => p.answerNeeded !== undefined);

function usual() {
  afterEach(() => bench.finish());
  after(() => kamailio?.stop());
}

describe('in both directions', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: timers, params: { max_calls_per_agent: 8 } });
    bench = new Bench(kamailio);
  });
  usual();

  for (const direction of ['out', 'in']) {
    describe(`a call ${direction}`, () => {
      test('update: an ICE restart of the browser and its answer', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        const id = a.send('update', { callId, sdp: restarted(fakeOffer({ version: 7, candidates: [candidateLine(50123)] })) });
        const invite = await peer.request('INVITE');
        const [was, is] = [partsOf(call.sent), partsOf(invite.body)];
        assert.deepEqual([is.session, is.version, is.direction, is.ufrag], [was.session, was.version + 1, 'sendrecv', 'newU']);
        assert.ok(is.candidates.some((c) => c.includes('127.0.0.1 50123')) && is.candidates.some((c) => c.includes('0.0.0.0 9')), is.candidates);
        assert.doesNotMatch(invite.body, /opus/);
        peer.reply(invite, 200, { body: movedSdp(2, { setup: 'active' }) });
        const updated = await outcomeOf(a, id);
        assert.equal(partsOf(updated.sdp).ufrag, 'far2');
        assert.deepEqual([updated.answerNeeded, updated.hold, updated.remoteHold], [undefined, false, false]);
        await peer.waitFor((m) => m.method === 'ACK' && m.cseq === invite.cseq);
        // and what comes after it is made of it
        const hold = a.send('hold', { callId, hold: true });
        const held = await peer.request('INVITE');
        assertFollows(held.body, invite.body, 'sendonly');
        peer.reply(held, 200, { body: movedSdp(2, { setup: 'active', version: 3, direction: 'recvonly' }).replace('far3', 'far2') });
        assert.equal((await outcomeOf(a, hold)).hold, true);
        // an update of a held call holds it still
        const again = a.send('update', { callId, sdp: restarted(fakeOffer(), 'thirdU') });
        const third = await peer.request('INVITE');
        assert.deepEqual([partsOf(third.body).direction, partsOf(third.body).ufrag], ['sendonly', 'thirdU']);
        peer.reply(third, 200, { body: movedSdp(4, { setup: 'active', direction: 'recvonly' }) });
        assert.deepEqual([(await outcomeOf(a, again)).hold, (await kamailio.rpcRows('rtc_json.calls'))[0].hold], [true, 1]);
        await endCall(a, call);
      });

      test('update refused: the description before it holds', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        const id = a.send('update', { callId, sdp: restarted(fakeOffer()) });
        peer.reply(await peer.request('INVITE'), 488);
        assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 488);
        a.send('hold', { callId, hold: true });
        const held = await peer.request('INVITE');
        assertFollows(held.body, call.sent, 'sendonly', { refused: 1 });
        peer.reply(held, 200, { body: farSdp({ setup: 'active', version: 2, direction: 'recvonly' }) });
        await a.waitFor('callUpdated');
        const { type, payload } = await a.request('update', { callId, sdp: fakeOffer().replace(/a=fingerprint.*\r\n/g, '') });
        assert.deepEqual([type, payload.code, /fingerprint/.test(payload.details)], ['error', 488, true]);
        await endCall(a, call);
      });

      test('new media of the far side: the browser answers', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        leg.invite({ body: movedSdp(2) });
        const wanted = await asked(a);
        assert.deepEqual([wanted.callId, wanted.answerNeeded, partsOf(wanted.sdp).ufrag], [callId, true, 'far2']);
        await sleep(100);
        assert.equal(peer.received((m) => m.status >= 200 && m.branch === leg.inviteBranch).length, 0, 'not before the browser');
        // it cannot offer meanwhile
        const { type, payload } = await a.request('update', { callId, sdp: fakeOffer() });
        assert.deepEqual([type, payload.code, payload.retryable], ['error', 491, true]);
        await a.expect('answer', { callId, sdp: restarted(fakeAnswer()) }, 'ack');
        const ok = await leg.answer();
        assert.equal(ok.status, 200);
        const [was, is] = [partsOf(call.sent), partsOf(ok.body)];
        assert.deepEqual([is.session, is.version, is.ufrag, is.setup], [was.session, was.version + 1, 'newU', 'active']);
        assert.match(ok.header('Contact'), /<sip:5001@/);
        leg.ack(ok);
        assert.deepEqual((await a.request('answer', { callId, sdp: fakeAnswer() })).payload.code, 409, 'nothing to answer any more');
        // direction only, against the new description
        leg.invite({ body: movedSdp(2, { direction: 'sendonly' }).replace(/^(o=\S+ \S+) 2/m, '$1 3') });
        const held = await leg.answer();
        leg.ack(held);
        assert.deepEqual([held.status, partsOf(held.body).ufrag, partsOf(held.body).direction], [200, 'newU', 'recvonly']);
        assert.equal((await a.waitFor('callUpdated')).remoteHold, true);
        await endCall(a, call);
      });

      test('while the browser thinks: 500 with Retry-After for a second offer, CANCEL takes the first one back', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        leg.invite({ body: movedSdp(2) });
        const first = leg.inviteBranch;
        const firstCseq = leg.inviteCseq;
        await asked(a);
        leg.invite({ body: movedSdp(3) });
        const refused = await leg.answer();
        assert.equal(refused.status, 500);
        assert.ok(Number(refused.header('Retry-After')) <= 10, 'RFC 3261, 14.2');
        leg.ack(refused);
        assert.equal((await leg.request('UPDATE', { body: movedSdp(4) })).status, 500);
        // one without an offer only refreshes
        assert.equal((await leg.request('UPDATE')).status, 200);
        Object.assign(leg, { inviteBranch: first, inviteCseq: firstCseq });
        leg.cancel();
        assert.equal((await leg.reply(first, undefined, 3000, 'CANCEL')).status, 200);
        const final = await leg.answer();
        assert.equal(final.status, 487);
        leg.ack(final);
        const back = await asked(a);
        assert.deepEqual([back.answerNeeded, back.sdp], [false, undefined]);
        assert.equal((await a.request('answer', { callId, sdp: fakeAnswer() })).payload.code, 409);
        await endCall(a, call);
      });

      test('an offer that cannot be used is refused, and nothing else happens', async () => {
        const call = await begin(direction);
        const { a, leg } = call;
        for (const body of [farSdp({ version: 2 }).replace('a=fingerprint', 'a=no'), farSdp({ version: 2 }).replace(/ 0 126/, ' 8').replace(/PCMU/, 'PCMX')]) {
          leg.invite({ body });
          const refused = await leg.answer();
          leg.ack(refused);
          assert.equal(refused.status, 488);
        }
        // an UPDATE cannot wait for the browser
        assert.equal((await leg.request('UPDATE', { body: movedSdp(3) })).status, 504);
        await a.never('callUpdated', 100);
        await endCall(a, call);
      });

      test('the browser is gone while it should answer: told again when it is back', async () => {
        const call = await begin(direction);
        const { a, callId, leg } = call;
        // (Kamailio may hear of the end only when it sends)
        bench.expectLog(/ws_frame\.c:\d+\]: (encode_and_send_ws_frame|ws_frame_transmit)\(\): sending /);
        a.terminate();
        await a.whenClosed();
        leg.invite({ body: movedSdp(2) });
        await sleep(200);
        const b = await bench.client();
        await b.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
        const wanted = await asked(b);
        assert.deepEqual([wanted.answerNeeded, partsOf(wanted.sdp).ufrag], [true, 'far2']);
        await b.expect('answer', { callId, sdp: restarted(fakeAnswer()) }, 'ack');
        const ok = await leg.answer();
        assert.equal(partsOf(ok.body).ufrag, 'newU');
        leg.ack(ok);
        await endCall(b, call);
      });

      test('hung up while the far side waits for the answer', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        leg.invite({ body: movedSdp(2) });
        await asked(a);
        await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
        const final = await leg.answer();
        assert.equal(final.status, 487);
        leg.ack(final);
        peer.reply(await peer.request('BYE'), 200);
      });

      test('the far side goes while it waits for the answer', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        leg.invite({ body: movedSdp(2) });
        const invite = leg.inviteBranch;
        await asked(a);
        assert.equal((await leg.bye()).status, 200);
        assert.equal((await a.waitFor('callEnded')).reason, 'normal_clearing');
        // RFC 3261, 15.1.2: what is still open gets 487
        const final = await leg.reply(invite, undefined, 3000, 'INVITE');
        assert.equal(final.status, 487);
        leg.ack(final);
        assert.equal((await a.request('answer', { callId, sdp: fakeAnswer() })).payload.code, 404);
        assert.equal(peer.received((m) => m.method === 'BYE').length, 0);
      });

      test('an offer is asked for: the browser makes one, the answer comes with the ACK', async () => {
        const call = await begin(direction);
        const { a, callId, leg } = call;
        leg.invite({ body: '' });
        const wanted = await asked(a);
        assert.deepEqual([wanted.callId, wanted.answerNeeded, wanted.sdp], [callId, true, undefined]);
        await a.expect('answer', { callId, sdp: restarted(fakeOffer({ version: 9 })) }, 'ack');
        const ok = await leg.answer();
        const [was, is] = [partsOf(call.sent), partsOf(ok.body)];
        assert.deepEqual([ok.status, is.ufrag, is.setup, is.session, is.version], [200, 'newU', 'actpass', was.session, was.version + 1]);
        leg.ack(ok, { body: movedSdp(5, { setup: 'active' }) });
        const answer = await a.waitFor('callUpdated');
        assert.deepEqual([partsOf(answer.sdp).ufrag, answer.answerNeeded], ['far5', undefined]);
        // the next ones go on from there
        const id = a.send('hold', { callId, hold: true });
        const held = await leg.peer.request('INVITE');
        assertFollows(held.body, ok.body, 'sendonly');
        leg.peer.reply(held, 200, { body: movedSdp(5, { setup: 'active', direction: 'recvonly' }) });
        assert.equal((await outcomeOf(a, id)).sdp, undefined);
        await endCall(a, call);
      });

      test('an offer is asked for while the browser is away: its last one, and it learns the answer when it is back', async () => {
        const call = await begin(direction);
        const { a, callId, leg } = call;
        a.terminate();
        await a.whenClosed();
        // Kamailio's websocket module tells of the end a second later
        await sleep(2200);
        leg.invite({ body: '' });
        const ok = await leg.answer();
        assert.equal(ok.status, 200);
        assert.deepEqual([partsOf(ok.body).ufrag, partsOf(ok.body).candidates], [partsOf(call.sent).ufrag, partsOf(call.sent).candidates]);
        leg.ack(ok, { body: movedSdp(5, { setup: 'active' }) });
        await sleep(200);
        const b = await bench.client();
        const { calls } = await b.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
        assert.deepEqual(calls.map((c) => [c.callId, partsOf(c.sdp).ufrag]), [[callId, 'far5']]);
        const told = await b.waitFor('callUpdated', () => true, 1500);
        assert.deepEqual([told.callId, partsOf(told.sdp).ufrag, told.answerNeeded], [callId, 'far5', undefined]);
        await endCall(b, call);
      });

      test('an ACK without the answer that it owes ends the call', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        leg.invite({ body: '' });
        await asked(a);
        await a.expect('answer', { callId, sdp: fakeOffer() }, 'ack');
        leg.ack(await leg.answer());
        const ended = await a.waitFor('callEnded');
        assert.deepEqual([ended.reason, endsOf(a, callId).length], ['media_error', 1]);
        peer.reply(await peer.request('BYE'), 200);
      });

      test('glare: our offer is open, theirs gets 491', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        const id = a.send('update', { callId, sdp: restarted(fakeOffer()) });
        const ours = await peer.request('INVITE');
        for (const body of [movedSdp(2), farSdp({ version: 2, direction: 'sendonly' }), '']) {
          leg.invite({ body });
          const refused = await leg.answer();
          leg.ack(refused);
          assert.equal(refused.status, 491, body.length);
        }
        assert.equal((await leg.request('UPDATE', { body: farSdp({ version: 2, direction: 'sendonly' }) })).status, 491);
        assert.equal((await leg.request('UPDATE')).status, 200, 'one without an offer only refreshes');
        peer.reply(ours, 200, { body: movedSdp(3, { setup: 'active' }) });
        assert.equal(partsOf((await outcomeOf(a, id)).sdp).ufrag, 'far3');
        await a.never('callUpdated', 50);
        await endCall(a, call);
      });

      test('glare: their offer has come, what the browser had offered waits no longer', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        // the hold is open, the update waits behind it, and then the far side refuses with 491 and offers itself
        const hold = a.send('hold', { callId, hold: true });
        const update = a.send('update', { callId, sdp: restarted(fakeOffer()) });
        for (let crossed = true; crossed;) {
          peer.reply(await peer.request('INVITE'), 491);
          await peer.request('ACK');
          const branch = leg.invite({ body: movedSdp(2) });
          // who did not begin the call may try again at once (RFC 3261, 14.1), and be faster than this offer: then once more
          const refused = () => peer.received((m) => m.status === 491 && m.branch === branch)[0];
          await until(() => refused() || a.received.some((m) => m.payload.answerNeeded !== undefined), { what: 'a reply or a question' });
          crossed = refused() !== undefined;
          if (crossed) leg.ack(await leg.answer());
        }
        assert.equal((await asked(a)).answerNeeded, true);
        const error = await a.waitFor('error', (p, m) => m.id === update);
        assert.deepEqual([error.code, error.retryable], [491, true]);
        await a.expect('answer', { callId, sdp: restarted(fakeAnswer(), 'ansU') }, 'ack');
        const ok = await leg.answer();
        leg.ack(ok);
        // the hold was only put off
        const held = await peer.request('INVITE', 6000);
        assertFollows(held.body, ok.body.replace('a=setup:active', partsOf(held.body).setup ? `a=setup:${partsOf(held.body).setup}` : ''), 'sendonly');
        peer.reply(held, 200, { body: movedSdp(2, { setup: 'active', direction: 'recvonly' }) });
        assert.equal((await outcomeOf(a, hold)).hold, true);
        await endCall(a, call);
      });

      test('another connection of the far side: its new Contact is where we send', async () => {
        const call = await begin(direction);
        const { a, callId, leg } = call;
        const other = await bench.peer();
        leg.send('UPDATE', { headers: [] });
        await leg.peer.waitFor((m) => m.status === 200 && m.cseqMethod === 'UPDATE');
        // the same request with another Contact
        const send = leg.peer.send.bind(leg.peer);
        leg.peer.send = (text) => send(text.replace(/^Contact: .*$/m, `Contact: <sip:moved@127.0.0.1:${other.port}>`));
        assert.equal((await leg.request('UPDATE')).status, 200);
        leg.peer.send = send;
        const id = a.send('hangup', { callId, reason: 'user_hangup' });
        const bye = await other.request('BYE');
        assert.equal(bye.uri, `sip:moved@127.0.0.1:${other.port}`);
        other.reply(bye, 200);
        await a.waitFor('callEnded', (p, m) => m.id === id);
      });

      test('candidates in an UPDATE reach the browser', async () => {
        const call = await begin(direction);
        const { a, callId, leg } = call;
        const base = partsOf(farSdp()).candidates[0];
        const fresh = '2 1 UDP 1694498815 192.0.2.7 4444 typ srflx raddr 127.0.0.1 rport 9';
        const body = farSdp({ version: 2, candidates: [`a=candidate:${base}`, `a=candidate:${fresh}`] });
        assert.equal((await leg.request('UPDATE', { body })).status, 200);
        const told = await a.waitFor('iceCandidate');
        assert.deepEqual([told.callId, told.candidate.candidate], [callId, `candidate:${fresh}`]);
        await a.never('iceCandidate', 80);
        await endCall(a, call);
      });
    });
  }

  test('early media: 183 with SDP once, then the 200', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    const invite = await peer.request('INVITE');
    const body = farSdp({ setup: 'active' });
    peer.reply(invite, 183, { body });
    const early = await a.waitFor('callProgress', (p) => p.state === 'early');
    assert.equal(partsOf(early.sdp).ufrag, 'sipp');
    peer.reply(invite, 183, { body });
    peer.reply(invite, 180);
    await a.waitFor('callProgress', (p) => p.state === 'ringing');
    peer.reply(invite, 200, { body });
    const accepted = await a.waitFor('callAccepted', (p, m) => m.id === id);
    assert.equal(accepted.sdp, early.sdp);
    assert.deepEqual(a.received.filter((m) => m.type === 'callProgress').map((m) => m.payload.state), ['trying', 'early', 'ringing']);
    await peer.request('ACK');
    await endCall(a, { callId: accepted.callId, peer, leg: peer.legOf(invite) });
  });

  test('early media, and a 200 that does not repeat it', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    const invite = await peer.request('INVITE');
    peer.reply(invite, 183, { body: farSdp({ setup: 'active' }) });
    const early = await a.waitFor('callProgress', (p) => p.state === 'early');
    peer.reply(invite, 200);
    const accepted = await a.waitFor('callAccepted', (p, m) => m.id === id);
    assert.equal(accepted.sdp, early.sdp);
    await peer.request('ACK');
    await endCall(a, { callId: accepted.callId, peer, leg: peer.legOf(invite) });
  });

  test('a 200 without any SDP cannot be a call: ACK and BYE', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    peer.reply(await peer.request('INVITE'), 200);
    await peer.request('ACK');
    peer.reply(await peer.request('BYE'), 200);
    assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 488);
    assert.equal((await a.waitFor('callEnded')).reason, 'not_acceptable');
  });

  test('a call without an offer: the browser makes it, the answer comes with the ACK', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite({ body: '' });
    const { callId, sdp } = await a.waitFor('incomingCall');
    assert.equal(sdp, undefined);
    await a.expect('answer', { callId, sdp: fakeOffer() }, 'ack');
    const ok = await leg.answer();
    assert.deepEqual([ok.status, partsOf(ok.body).setup], [200, 'actpass']);
    assert.match(ok.body, /0\.0\.0\.0 9 typ host/);
    leg.ack(ok, { body: farSdp({ setup: 'active' }) });
    const answer = await a.waitFor('callUpdated');
    assert.deepEqual([partsOf(answer.sdp).ufrag, answer.answerNeeded], ['sipp', undefined]);
    // a third party moves the call on: offer from here, answer from another endpoint
    leg.invite({ body: '' });
    await asked(a);
    await a.expect('answer', { callId, sdp: restarted(fakeOffer()) }, 'ack');
    const second = await leg.answer();
    // with other credentials the placeholder has another foundation, all else is as it was
    const placeholder = (sdp) => /^a=candidate:(\d+) 1 udp 1 0\.0\.0\.0 9 typ host\r$/m.exec(sdp)[1];
    assert.deepEqual([placeholder(ok.body), placeholder(second.body)], ['1', '2']);
    const plain = (sdp) => sdp.replace(/a=ice-(ufrag|pwd).*\r\n/g, '').replace('a=candidate:2 ', 'a=candidate:1 ');
    assertFollows(plain(second.body), plain(ok.body), 'sendrecv');
    leg.ack(second, { body: movedSdp(2, { setup: 'passive' }) });
    assert.equal(partsOf((await a.waitFor('callUpdated')).sdp).ufrag, 'far2');
    await endCall(a, { callId, peer, leg });
  });

  test('a call without an offer whose ACK brings no answer is ended', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite({ body: '' });
    const { callId } = await a.waitFor('incomingCall');
    await a.expect('answer', { callId, sdp: fakeOffer() }, 'ack');
    leg.ack(await leg.answer());
    assert.equal((await a.waitFor('callEnded')).reason, 'media_error');
    peer.reply(await peer.request('BYE'), 200);
  });

  test('a browser that does not answer: 480 after a quarter of a minute, and the call goes on', async () => {
    const calls = [await begin('out', {}, '5001'), await begin('in', {}, '5002'), await begin('in', {}, '5003')];
    await Promise.all(calls.map(async (call, i) => {
      const { a, callId, leg } = call;
      leg.invite({ body: i === 2 ? '' : movedSdp(2) });
      const began = performance.now();
      assert.equal((await asked(a)).answerNeeded, true);
      const final = await leg.answer(20_000);
      assert.equal(final.status, 480);
      leg.ack(final);
      const waited = performance.now() - began;
      assert.ok(waited > 14_000 && waited < 18_000, `${waited} ms`);
      const back = await asked(a);
      assert.deepEqual([back.answerNeeded, back.sdp], [false, undefined]);
      assert.equal((await a.request('answer', { callId, sdp: fakeAnswer() })).payload.code, 409, 'too late');
      await endCall(a, call);
    }));
  });
});

// which way a candidate goes: by what the far side says it takes, and by whether it shows where it is
const hidden = farSdp({ setup: 'active', candidates: [] });
const shown = farSdp({ setup: 'active' });
const fars = [
  ['knows neither', [], hidden], ['takes INFO', [trickles], shown], ['takes UPDATE and hides', [updates], hidden],
  ['takes UPDATE and shows itself', [updates], shown], ['takes both and hides', [trickles, updates], hidden],
];
for (const [mode, ways] of [
  ['off', [0, 0, 0, 0, 0]], ['info', [0, 'INFO', 0, 0, 'INFO']], ['update', [0, 0, 'UPDATE', 'UPDATE', 'UPDATE']],
  ['auto', [0, 'INFO', 'UPDATE', 0, 'INFO']],
]) {
  describe(`trickle ${mode}`, () => {
    before(async () => {
      kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: timers, params: { trickle: mode } });
      bench = new Bench(kamailio);
    });
    usual();

    for (const [i, [what, headers, body]] of fars.entries()) {
      const way = ways[i];
      test(`a far side that ${what}: ${way || 'nothing'}`, async () => {
        const call = await begin('out', { headers, body });
        const { a, callId, peer } = call;
        const line = candidateLine(50777).slice(2);
        a.send('iceCandidate', { callId, candidate: { candidate: line, sdpMid: '0', sdpMLineIndex: 0 } });
        if (!way) {
          await sleep(250);
          assert.deepEqual(peer.received((m) => ['INFO', 'UPDATE'].includes(m.method)), []);
        } else {
          const request = await peer.request(way);
          assert.ok(request.body.includes(line), request.body);
          if (way === 'INFO') {
            assert.equal(request.header('Info-Package'), 'trickle-ice');
            assert.match(request.header('Content-Type'), /trickle-ice-sdpfrag/);
            peer.reply(request, 200);
          } else {
            assert.equal(partsOf(request.body).version, partsOf(call.sent).version + 1);
            assert.ok(partsOf(request.body).candidates.some((c) => c.includes('0.0.0.0 9')));
            peer.reply(request, 200, { body });
          }
          // one at a time, and a refusal changes nothing for the call
          const next = candidateLine(50778).slice(2);
          a.send('iceCandidate', { callId, candidate: { candidate: next, sdpMid: '0', sdpMLineIndex: 0 } });
          const second = await peer.request(way);
          assert.ok(second.body.includes(next) && second.cseq > request.cseq);
          peer.reply(second, 405);
        }
        await a.never('callUpdated', 50);
        await a.never('error', 50);
        const id = a.send('hold', { callId, hold: true });
        const held = await peer.request('INVITE');
        assert.equal(partsOf(held.body).direction, 'sendonly');
        peer.reply(held, 200, { body: body.replace('sendrecv', 'recvonly') });
        await outcomeOf(a, id);
        await endCall(a, call);
      });
    }
  });
}
