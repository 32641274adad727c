/** The life of calls, out and in: every way to end, every refusal, and that nothing stays behind. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { checkDigest, digestFields } from '../common/digest.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer, Registrar } from './peer.mjs';
import { Bench, callsBecome, endsOf, hopByNumber, messageOf, tm, to } from './support.mjs';

const ringTimeout = 5;
// A transaction waits 0.2 s for stragglers, not 5 s, so that each test can see that none is left.
const timers = { fr_timer: 1500, fr_inv_timer: 4000, wt_timer: 200 };

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

/** So many seconds at least, and not more than have gone by since `from`: the machine may have been slow. */
function assertLasted(duration, atLeast, from) {
  const most = Math.ceil((performance.now() - from) / 1000);
  assert.ok(duration >= atLeast && duration <= most, `${duration} s, wanted ${atLeast} to ${most}`);
}

/** Sends a `call` and gives its id. */
const call = (client, number, more = {}) => client.send('call', { to: number, sdp: fakeOffer(), iceServers: [], ...more });

/** The outcome of a `call` that must be refused, and its callEnded. */
async function refused(client, id, ms = 5000) {
  const error = await client.waitFor('error', (p, m) => m.id === id, ms);
  const ended = await client.waitFor('callEnded', (p) => p.callId === error.callId);
  assert.equal(error.request, id);
  assert.equal(error.details, ended.reason);
  assert.equal(error.code, ended.code);
  assert.equal(ended.duration, 0);
  assert.equal(endsOf(client, ended.callId).length, 1);
  return { error, ended };
}

/** A call to that far side, answered. @returns {Promise<{ callId: string, sdp: string, id: string }>} */
async function answered(client, far) {
  const id = call(client, to(far));
  const { callId, sdp } = await client.waitFor('callAccepted', (p, m) => m.id === id);
  return { callId, sdp, id };
}

/** A call from that endpoint, answered by the browser. */
async function comesIn(client, peer, dn) {
  const leg = peer.leg(dn);
  leg.invite();
  const { callId } = await client.waitFor('incomingCall');
  await client.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
  const ok = await leg.answer();
  assert.equal(ok.status, 200);
  leg.ack(ok);
  // another worker may be faster with the next request than this one with the ACK
  await callsBecome(kamailio, (rows) => rows.find((row) => row.callId === callId)?.state === 'established');
  return { leg, callId, ok };
}

async function hangup(client, callId, reason = 'user_hangup') {
  const id = client.send('hangup', { callId, reason });
  const ended = await client.waitFor('callEnded', (p, m) => m.id === id);
  assert.equal(ended.callId, callId);
  assert.equal(endsOf(client, callId).length, 1, client.transcript());
  return ended;
}

describe('calls', () => {
  before(async () => {
    kamailio = await startKamailio({
      cfg: hopByNumber(), cfgExtra: tm(timers), params: { max_calls_per_agent: 2, ring_timeout: ringTimeout },
    });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  describe('out', () => {
    test('answered, and ended by the browser', async () => {
      const before = { out: await kamailio.stat('calls_out'), answered: await kamailio.stat('calls_answered') };
      const far = await bench.far('uas-answer', { ring: 100 });
      const a = await bench.agent('5001');
      const id = call(a, to(far), { displayName: 'Ann "A" \\ Agent' });
      const trying = await a.waitFor('callProgress', (p) => p.state === 'trying');
      assert.equal(messageOf(a, 'callProgress', id).payload, trying, 'trying carries the id of the request');
      const ringing = await a.waitFor('callProgress', (p) => p.state === 'ringing');
      assert.deepEqual([ringing.callId, ringing.request], [trying.callId, id]);
      const from = performance.now();
      const accepted = await a.waitFor('callAccepted', (p, m) => m.id === id);
      assert.equal(accepted.callId, trying.callId);
      assert.match(accepted.sdp, /^m=audio \d+ UDP\/TLS\/RTP\/SAVPF 0 126\r$/m);
      assert.match(accepted.sdp, /^a=setup:active\r$/m);

      const [row] = await callsBecome(kamailio, (rows) => rows[0]?.state === 'established');
      assert.deepEqual([row.callId, row.dn, row.direction, row.peer], [accepted.callId, 5001, 'out', far.port + 700000]);
      assert.equal(await kamailio.stat('calls'), 1);
      await sleep(1050);
      const ended = await hangup(a, accepted.callId);
      assert.equal(ended.reason, 'normal_clearing');
      assertLasted(ended.duration, 1, from);
      assert.ok(ended.timings.answered >= ended.timings.ringing && ended.timings.answered >= 100, JSON.stringify(ended));
      await far.ok();

      const is = (method) => (m) => m.dir === 'in' && m.method === method;
      assert.deepEqual(far.messages().filter((m) => m.dir === 'in').map((m) => m.method), ['INVITE', 'ACK', 'BYE']);
      assert.match(far.messages()[0].start, new RegExp(`^INVITE sip:${to(far)}@127\\.0\\.0\\.1 SIP/2\\.0$`));
      assert.match(far.header('From', is('INVITE')), /^"Ann \\"A\\" \\\\ Agent" <sip:5001@127\.0\.0\.1>;tag=\S+$/);
      assert.match(far.header('To', is('INVITE')), /^<sip:7\d+@127\.0\.0\.1>$/);
      assert.equal(far.header('Contact', is('INVITE')), `<sip:5001@127.0.0.1:${kamailio.sipPort}>`);
      assert.equal(far.header('CSeq', is('INVITE')), '1 INVITE');
      assert.equal(far.header('CSeq', is('ACK')), '1 ACK');
      assert.equal(far.header('CSeq', is('BYE')), '2 BYE');
      assert.equal(far.header('To', is('BYE')), far.header('To', (m) => m.dir === 'out' && m.status === 200));
      assert.equal(far.header('From', is('BYE')), far.header('From', is('INVITE')));
      assert.deepEqual({ out: await kamailio.stat('calls_out'), answered: await kamailio.stat('calls_answered') },
        { out: before.out + 1, answered: before.answered + 1 });
    });

    test('what the offer becomes on its way to SIP', async () => {
      const far = await bench.far('uas-answer');
      const a = await bench.agent('5001');
      const { callId } = await answered(a, far);
      await hangup(a, callId);
      await far.ok();
      const [, sdp] = far.messages()[0].text.split(/\r?\n\r?\n/);
      assert.match(sdp, /^m=audio \d+ UDP\/TLS\/RTP\/SAVPF 0 126\r?$/m);
      for (const gone of [111, 63, 9, 8, 13, 110]) assert.doesNotMatch(sdp, new RegExp(`^a=(rtpmap|fmtp|rtcp-fb):${gone} `, 'm'));
      assert.match(sdp, /^a=candidate:\S+ 1 udp \d+ 0\.0\.0\.0 9 typ host/im);
      assert.match(sdp, /^c=IN IP4 127\.0\.0\.1\r?$/m);
      assert.match(sdp, /^a=fingerprint:sha-256 B8:A9:10:76/im);
      assert.match(sdp, /^a=ice-pwd:05i9uoUVFeZD4NuNKpcuPfbG\r?$/m);
    });

    test('early media, then the answer', async () => {
      const far = await bench.far('uas-early', { ring: 200 });
      const a = await bench.agent('5001');
      const id = call(a, to(far));
      const early = await a.waitFor('callProgress', (p) => p.state === 'early');
      assert.match(early.sdp, /^a=fingerprint:/m);
      assert.equal(early.request, id);
      const accepted = await a.waitFor('callAccepted', (p, m) => m.id === id);
      assert.match(accepted.sdp, /^a=fingerprint:/m);
      await hangup(a, accepted.callId);
      await far.ok();
    });

    test('answered without any provisional reply', async () => {
      const far = await bench.far('uas-late', { ring: 300 });
      const a = await bench.agent('5001');
      const { callId } = await answered(a, far);
      assert.equal(a.received.filter((m) => m.type === 'callProgress').length, 1);
      await hangup(a, callId);
      await far.ok();
    });

    test('the far side hangs up: the duration and the cause arrive', async () => {
      const far = await bench.far('uas-bye', { talk: 2050 });
      const a = await bench.agent('5001');
      const from = performance.now();
      const { callId } = await answered(a, far);
      const ended = await a.waitFor('callEnded');
      assert.deepEqual([ended.callId, ended.reason, ended.cause], [callId, 'normal_clearing', 16]);
      assertLasted(ended.duration, 2, from);
      await far.ok();
      // it is over for the browser, too
      const late = await a.request('hangup', { callId, reason: 'user_hangup' });
      assert.deepEqual([late.type, late.payload.code, late.payload.callId], ['error', 404, callId]);
    });

    test('busy, after ringing', async () => {
      const far = await bench.far('uas-busy');
      const a = await bench.agent('5001');
      const id = call(a, to(far));
      const { ended } = await refused(a, id);
      assert.deepEqual([ended.code, ended.reason], [486, 'user_busy']);
      assert.ok(a.received.some((m) => m.type === 'callProgress' && m.payload.state === 'ringing'));
      await far.ok();
    });

    // A cause that is not in any table (127) leaves the word to the status.
    for (const [code, cause, reason] of [
      [603, 21, 'call_rejected'], [603, 127, 'call_rejected'], [404, 1, 'unallocated_number'], [404, 127, 'unallocated_number'],
      [480, 19, 'no_answer'], [480, 127, 'no_answer'], [408, 127, 'no_answer'], [486, 17, 'user_busy'], [600, 127, 'user_busy'],
      [503, 41, 'service_unavailable'], [488, 88, 'not_acceptable'], [500, 17, 'user_busy'], [500, 127, 'internal_error'],
    ]) {
      test(`refused with ${code}, cause ${cause}: ${reason}`, async () => {
        const far = await bench.far('uas-reject', { code, cause });
        const a = await bench.agent('5001');
        const { error, ended } = await refused(a, call(a, to(far)));
        assert.deepEqual([ended.code, ended.cause, ended.reason], [code, cause, reason]);
        assert.equal(error.cause, cause);
        await far.ok();
      });
    }

    test('nobody answers: the timer of tm cancels the call', async () => {
      const far = await bench.far('uas-noanswer-cancel');
      const a = await bench.agent('5001');
      const began = Date.now();
      const { ended } = await refused(a, call(a, to(far)), 8000);
      assert.deepEqual([ended.code, ended.reason], [408, 'no_answer']);
      assert.ok(Date.now() - began >= 3500, 'not before the timer');
      await far.ok();
    });

    test('nobody listens, UDP: given up after the timer of tm', async () => {
      const a = await bench.agent('5001');
      const { error, ended } = await refused(a, call(a, `7${await freePort()}`));
      assert.deepEqual([ended.code, ended.reason, error.retryable], [408, 'network_error', true]);
    });

    test('the next hop refuses TCP: given up after the timer of tm', async () => {
      // tm gives no sign that it could not send; its timer is what ends the transaction
      bench.expectLog(/tcpconn_1st_send\(\): .*Connection refused/, /tm .*(tcp_send failed|Attempt to send to precreated request failed)/);
      const a = await bench.agent('5001');
      const { ended } = await refused(a, call(a, `8${await freePort()}`));
      assert.deepEqual([ended.code, ended.reason], [408, 'network_error']);
    });

    test('hung up before any reply, which never comes', async () => {
      const far = await bench.far('uas-silent', { talk: 4000 });
      const a = await bench.agent('5001');
      const id = call(a, to(far));
      const { callId } = await a.waitFor('callProgress');
      await until(() => far.messages().length > 0);
      assert.equal((await hangup(a, callId)).reason, 'cancelled');
      const error = await a.waitFor('error', (p, m) => m.id === id);
      assert.deepEqual([error.code, error.details], [487, 'cancelled']);
      assert.equal(await kamailio.stat('calls'), 0, 'no call for the browser');
      const rows = await kamailio.rpcRows('rtc_json.calls');
      assert.equal(rows[0]?.state, 'cancelling', 'and yet the INVITE has still to end');
      await sleep(300);
      assert.ok(far.messages().every((m) => m.method !== 'CANCEL'), 'RFC 3261, 9.1: no CANCEL before a provisional reply');
    });

    test('hung up before any reply: the first provisional one is answered by CANCEL', async () => {
      const peer = await bench.peer();
      const a = await bench.agent('5001');
      call(a, to(peer));
      const invite = await peer.request('INVITE');
      const { callId } = await a.waitFor('callProgress');
      await hangup(a, callId);
      await sleep(200);
      assert.equal(peer.received((m) => m.method === 'CANCEL').length, 0);
      peer.reply(invite, 180);
      const cancel = await peer.request('CANCEL');
      assert.deepEqual([cancel.branch, cancel.cseq, cancel.uri, cancel.fromTag], [invite.branch, invite.cseq, invite.uri, invite.fromTag]);
      peer.reply(cancel, 200);
      peer.reply(invite, 487);
      await peer.request('ACK');
    });

    test('hung up before any reply, and answered all the same: ACK and BYE', async () => {
      const peer = await bench.peer();
      const a = await bench.agent('5001');
      call(a, to(peer));
      const invite = await peer.request('INVITE');
      await hangup(a, (await a.waitFor('callProgress')).callId);
      peer.reply(invite, 200, { body: farSdp({ setup: 'active' }) });
      await peer.request('ACK');
      peer.reply(await peer.request('BYE'), 200);
      assert.ok(!a.received.some((m) => m.type === 'callAccepted'));
    });

    test('hung up while it rings: CANCEL, 487', async () => {
      const far = await bench.far('uas-noanswer-cancel');
      const a = await bench.agent('5001');
      const id = call(a, to(far));
      const { callId } = await a.waitFor('callProgress', (p) => p.state === 'ringing');
      const ended = await hangup(a, callId);
      assert.deepEqual([ended.reason, ended.code, ended.duration], ['cancelled', 487, 0]);
      const error = await a.waitFor('error', (p, m) => m.id === id);
      assert.deepEqual([error.code, error.details, error.callId], [487, 'cancelled', callId]);
      await far.ok();
      await a.never('error', 300);
    });

    test('a BYE with other tags belongs to no call: 481, and the call lives on', async () => {
      const peer = await bench.peer();
      const a = await bench.agent('5001');
      call(a, to(peer));
      const invite = await peer.request('INVITE');
      peer.reply(invite, 200, { body: farSdp({ setup: 'active' }) });
      await peer.request('ACK');
      const { callId } = await a.waitFor('callAccepted');
      const leg = peer.legOf(invite);
      for (const wrong of [{ localTag: 'other' }, { remoteTag: 'other' }, { callId: 'other@there' }]) {
        const stranger = Object.assign(peer.legOf(invite), wrong);
        assert.equal((await stranger.bye()).status, 481, JSON.stringify(wrong));
      }
      assert.equal((await peer.leg('5001', { callId: invite.callId }).bye()).status, 481, 'no To tag');
      await a.never('callEnded', 100);
      assert.equal((await leg.request('OPTIONS')).status, 200);
      assert.equal((await leg.bye()).status, 200);
      assert.equal((await a.waitFor('callEnded')).callId, callId);
    });

    test('of requests whose order matters one with a lower CSeq is refused', async () => {
      const peer = await bench.peer();
      const a = await bench.agent('5001');
      call(a, to(peer));
      const invite = await peer.request('INVITE');
      peer.reply(invite, 200, { body: farSdp({ setup: 'active' }) });
      await peer.request('ACK');
      await a.waitFor('callAccepted');
      const leg = peer.legOf(invite);
      assert.equal((await leg.request('UPDATE', { cseq: 7 })).status, 200);
      assert.equal((await leg.request('UPDATE', { cseq: 6 })).status, 500);
      // these may have overtaken each other
      assert.equal((await leg.request('INFO', { cseq: 5 })).status, 200);
      assert.equal((await leg.request('BYE', { cseq: 6 })).status, 200);
      await a.waitFor('callEnded');
    });

    test('the far side holds by re-INVITE and takes the call back', async () => {
      const far = await bench.far('uas-reinvite', { talk: 200 });
      const a = await bench.agent('5001');
      const { callId } = await answered(a, far);
      for (const remoteHold of [true, false]) {
        const update = await a.waitFor('callUpdated');
        assert.deepEqual([update.callId, update.remoteHold, update.hold], [callId, remoteHold, false]);
        assert.equal(update.answerNeeded, undefined, 'answered by the server');
      }
      await until(() => far.messages().filter((m) => m.dir === 'out' && m.method === 'ACK').length === 2);
      await hangup(a, callId);
      await far.ok();
      const answers = far.messages().filter((m) => m.dir === 'in' && m.status === 200).map((m) => /a=(send\w+|recv\w+)/.exec(m.text)?.[1]);
      assert.deepEqual(answers, ['recvonly', 'sendrecv']);
    });

    test('more calls than max_calls_per_agent: 503', async () => {
      const far = await bench.far('uas-answer', {}, { calls: 2 });
      const a = await bench.agent('5001');
      const calls = [await answered(a, far), await answered(a, far)];
      const third = await a.request('call', { to: to(far), sdp: fakeOffer() });
      assert.deepEqual([third.type, third.payload.code, third.payload.callId], ['error', 503, undefined]);
      for (const { callId } of calls) await hangup(a, callId);
      await far.ok();
    });

    test('two agents of this server call each other', async () => {
      const a = await bench.agent('5001', { displayName: 'Ann' });
      const b = await bench.agent('5002');
      const id = call(a, '5002');
      const incoming = await b.waitFor('incomingCall');
      assert.deepEqual([incoming.from, incoming.displayName, incoming.to], ['5001', 'Ann', '5002']);
      await b.expect('answer', { callId: incoming.callId, sdp: fakeAnswer() }, 'ack');
      const { callId } = await a.waitFor('callAccepted', (p, m) => m.id === id);
      assert.notEqual(callId, incoming.callId);
      // to each its own: the other's id is as good as none
      const foreign = await a.request('hangup', { callId: incoming.callId, reason: 'user_hangup' });
      const none = await a.request('hangup', { callId: 'none', reason: 'user_hangup' });
      assert.deepEqual({ ...foreign.payload, callId: 0, request: 0 }, { ...none.payload, callId: 0, request: 0 });
      assert.equal(foreign.payload.code, 404);
      await hangup(b, incoming.callId);
      assert.equal((await a.waitFor('callEnded')).callId, callId);
    });
  });

  describe('in', () => {
    test('answered, and ended by the caller', async () => {
      const b = await bench.agent('5002');
      const far = await bench.far('uac-call', { talk: 1100 }, { service: '5002' });
      const incoming = await b.waitFor('incomingCall');
      assert.deepEqual([incoming.from, incoming.displayName, incoming.to], ['sipp', 'SIPp', '5002']);
      assert.match(incoming.sdp, /^a=setup:actpass\r$/m);
      assert.match(incoming.sdp, /^m=audio \d+ UDP\/TLS\/RTP\/SAVPF 0 126\r$/m);
      const from = performance.now();
      await b.expect('answer', { callId: incoming.callId, sdp: fakeAnswer() }, 'ack');
      const ended = await b.waitFor('callEnded');
      assert.deepEqual([ended.callId, ended.reason], [incoming.callId, 'normal_clearing']);
      assertLasted(ended.duration, 1, from);
      await far.ok();
      const ok = far.messages().find((m) => m.dir === 'in' && m.status === 200);
      assert.match(ok.text, /^Contact: *<sip:5002@127\.0\.0\.1:\d+>/im);
      assert.match(ok.text, /^a=fingerprint:sha-256 D1:E1:F2:FD/im);
      assert.match(ok.text, /^a=candidate:\S+ 1 udp \d+ 0\.0\.0\.0 9 typ host/im);
      const tag = (m) => /^To:.*;tag=(\S+)/im.exec(m.text)?.[1];
      assert.equal(tag(ok), tag(far.messages().find((m) => m.status === 180)), 'one dialog from the 180 on');
    });

    test('answered, and ended by the browser', async () => {
      const b = await bench.agent('5002');
      const far = await bench.far('uac-bye-wait', {}, { service: '5002' });
      const { callId } = await b.waitFor('incomingCall');
      await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      await callsBecome(kamailio, (rows) => rows[0]?.state === 'established');
      assert.equal((await hangup(b, callId)).reason, 'normal_clearing');
      await far.ok();
    });

    for (const [reason, code, word] of [['busy', 486, 'user_busy'], ['declined', 603, 'call_rejected']]) {
      test(`${reason}: ${code}`, async () => {
        const b = await bench.agent('5002');
        const far = await bench.far('uac-refused', { code }, { service: '5002' });
        const { callId } = await b.waitFor('incomingCall');
        const ended = await hangup(b, callId, reason);
        assert.deepEqual([ended.reason, ended.code, ended.duration], [word, code, 0]);
        await far.ok();
      });
    }

    test('nobody answers: 480 after ring_timeout', async () => {
      const b = await bench.agent('5002');
      const began = Date.now();
      const far = await bench.far('uac-refused', { code: 480 }, { service: '5002' });
      const { callId } = await b.waitFor('incomingCall');
      const ended = await b.waitFor('callEnded', undefined, ringTimeout * 1000 + 2000);
      assert.deepEqual([ended.callId, ended.reason, ended.code], [callId, 'no_answer', 480]);
      assert.ok(Date.now() - began >= ringTimeout * 1000 - 50);
      await far.ok();
    });

    test('the caller gives up', async () => {
      const b = await bench.agent('5002');
      const far = await bench.far('uac-cancel', { ring: 200 }, { service: '5002' });
      const { callId } = await b.waitFor('incomingCall');
      const ended = await b.waitFor('callEnded');
      assert.deepEqual([ended.callId, ended.reason, ended.code, ended.duration], [callId, 'cancelled', 487, 0]);
      await far.ok();
      const late = await b.request('answer', { callId, sdp: fakeAnswer() });
      assert.deepEqual([late.type, late.payload.code], ['error', 404]);
    });

    test('a CANCEL with "answered elsewhere"; a CANCEL for no call: 481', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const leg = peer.leg('5002');
      leg.invite();
      await leg.reply(leg.inviteBranch, (s) => s === 180);
      assert.equal((await peer.leg('5002').request('CANCEL')).status, 481);
      leg.send('CANCEL', { cseq: leg.inviteCseq, branch: leg.inviteBranch, headers: ['Reason: SIP;cause=200;text="Call completed elsewhere"'] });
      const terminated = await leg.answer();
      assert.equal(terminated.status, 487);
      leg.ack(terminated);
      assert.equal((await b.waitFor('callEnded')).reason, 'answered_elsewhere');
    });

    test('rings in two browsers: the first answer wins', async () => {
      const first = await bench.agent('5002');
      const second = await bench.agent('5002');
      const far = await bench.far('uac-call', { talk: 600 }, { service: '5002' });
      const [{ callId }, other] = await Promise.all([first.waitFor('incomingCall'), second.waitFor('incomingCall')]);
      assert.equal(other.callId, callId);
      await second.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      const elsewhere = await first.waitFor('callEnded');
      assert.deepEqual([elsewhere.callId, elsewhere.reason], [callId, 'answered_elsewhere']);
      const late = await first.request('answer', { callId, sdp: fakeAnswer() });
      assert.deepEqual([late.type, late.payload.code], ['error', 409]);
      assert.equal((await second.waitFor('callEnded')).reason, 'normal_clearing');
      await first.never('callEnded', 200);
      await far.ok();
    });

    test('busy in one of two browsers refuses the call in both', async () => {
      const first = await bench.agent('5002');
      const second = await bench.agent('5002');
      const far = await bench.far('uac-refused', { code: 603 }, { service: '5002' });
      const { callId } = await first.waitFor('incomingCall');
      await hangup(first, callId, 'declined');
      assert.equal((await second.waitFor('callEnded')).callId, callId);
      await far.ok();
    });

    test('an answer without DTLS is refused, the call rings on', async () => {
      const b = await bench.agent('5002');
      const far = await bench.far('uac-refused', { code: 486 }, { service: '5002' });
      const { callId } = await b.waitFor('incomingCall');
      const bad = await b.request('answer', { callId, sdp: fakeAnswer().replace(/^a=fingerprint:.*\r\n/m, '') });
      assert.deepEqual([bad.type, bad.payload.code, bad.payload.callId], ['error', 488, callId]);
      assert.match(bad.payload.details, /fingerprint/);
      await hangup(b, callId, 'busy');
      await far.ok();
    });

    test('more calls than max_calls_per_agent: 486', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const legs = [await comesIn(b, peer, '5002'), await comesIn(b, peer, '5002')];
      const third = await bench.far('uac-refused', { code: 486 }, { service: '5002' });
      await third.ok();
      await b.never('incomingCall', 100);
      for (const { leg } of legs) assert.equal((await leg.bye()).status, 200);
    });

    test('an INVITE without an offer', async () => {
      const b = await bench.agent('5002');
      const far = await bench.far('uac-offerless', { talk: 500 }, { service: '5002' });
      const incoming = await b.waitFor('incomingCall');
      assert.equal('sdp' in incoming, false);
      await b.expect('answer', { callId: incoming.callId, sdp: fakeOffer() }, 'ack');
      const update = await b.waitFor('callUpdated');
      assert.equal(update.callId, incoming.callId);
      assert.match(update.sdp, /^a=setup:active\r$/m);
      assert.equal((await b.waitFor('callEnded')).reason, 'normal_clearing');
      await far.ok();
      const ok = far.messages().find((m) => m.dir === 'in' && m.status === 200);
      assert.match(ok.text, /^a=setup:actpass/m);
      assert.match(ok.text, /^m=audio \d+ UDP\/TLS\/RTP\/SAVPF 0 126/m);
    });

    test('the caller holds by re-INVITE and takes the call back', async () => {
      const b = await bench.agent('5002');
      const far = await bench.far('uac-reinvite', { talk: 200 }, { service: '5002' });
      const { callId } = await b.waitFor('incomingCall');
      await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      for (const remoteHold of [true, false]) {
        const update = await b.waitFor('callUpdated');
        assert.deepEqual([update.callId, update.remoteHold], [callId, remoteHold]);
      }
      await b.waitFor('callEnded');
      await far.ok();
      const answers = far.messages().filter((m) => m.dir === 'in' && m.status === 200).flatMap((m) => /a=(send\w+|recv\w+)/.exec(m.text)?.[1] ?? []);
      assert.deepEqual(answers, ['sendrecv', 'recvonly', 'sendrecv']);
    });

    test('the caller holds by UPDATE', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const { leg, callId } = await comesIn(b, peer, '5002');
      for (const [version, direction, remoteHold, answer] of [[2, 'sendonly', true, 'recvonly'], [3, 'inactive', true, 'inactive'], [4, 'sendrecv', false, 'sendrecv']]) {
        const reply = await leg.request('UPDATE', { body: farSdp({ version, direction }) });
        assert.equal(reply.status, 200);
        assert.match(reply.body, new RegExp(`^a=${answer}\r$`, 'm'));
        assert.match(reply.body, /^a=setup:active\r$/m, 'an answer names its role');
        assert.match(reply.body, /0\.0\.0\.0 9 typ host/, 'with the candidates of the first answer');
        // from one hold to the other nothing is new for the browser
        if (direction !== 'inactive') {
          const update = await b.waitFor('callUpdated');
          assert.deepEqual([update.callId, update.remoteHold], [callId, remoteHold]);
        }
      }
      assert.equal(b.received.filter((m) => m.type === 'callUpdated').length, 2);
      // a session refresh without an offer (RFC 3311)
      const refresh = await leg.request('UPDATE');
      assert.deepEqual([refresh.status, refresh.body], [200, '']);
      const versions = peer.received((m) => m.status === 200 && m.body).map((m) => Number(/^o=\S+ \d+ (\d+)/m.exec(m.body)[1]));
      assert.deepEqual(versions, [...versions].sort((x, y) => x - y));
      assert.equal(new Set(versions).size, versions.length, `each SDP has its version: ${versions}`);
      assert.equal((await leg.bye()).status, 200);
      await b.waitFor('callEnded');
    });

    test('a re-INVITE with other media is for the browser to answer', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const { leg, callId } = await comesIn(b, peer, '5002');
      leg.invite({ body: farSdp({ version: 2 }).replace(/^a=ice-ufrag:.*$/m, 'a=ice-ufrag:other') });
      const update = await b.waitFor('callUpdated');
      assert.deepEqual([update.callId, update.answerNeeded], [callId, true]);
      assert.match(update.sdp, /^a=ice-ufrag:other\r$/m);
      await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      const reply = await leg.reply(leg.inviteBranch, undefined, 5000, 'INVITE');
      leg.ack(reply);
      assert.equal(reply.status, 200);
      await hangup(b, callId);
      peer.reply(await peer.request('BYE'), 200);
    });

    test('OPTIONS, in and out of a dialog', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const outside = await peer.leg('5002').request('OPTIONS');
      assert.equal(outside.status, 200);
      for (const method of ['INVITE', 'ACK', 'CANCEL', 'BYE', 'OPTIONS', 'UPDATE']) assert.match(outside.header('Allow'), new RegExp(`\\b${method}\\b`));
      const { leg } = await comesIn(b, peer, '5002');
      assert.equal((await leg.request('OPTIONS')).status, 200);
      assert.equal((await leg.request('INFO')).status, 200);
      const odd = await leg.request('SUBSCRIBE');
      assert.deepEqual([odd.status, odd.headers('Allow').length], [405, 1]);
      assert.equal((await leg.bye()).status, 200);
      await b.waitFor('callEnded');
      assert.equal((await leg.request('OPTIONS')).status, 481, 'the dialog is gone');
      assert.equal((await peer.leg('9999').request('OPTIONS')).status, 404, 'for the script');
    });

    test('an INVITE for an unknown number is left to the script: 404', async () => {
      const far = await bench.far('uac-refused', { code: 404 }, { service: '9999' });
      await far.ok();
    });

    test('an INVITE for an agent that has gone is left to the script', async () => {
      const b = await bench.agent('5002');
      await b.expect('unregister', {}, 'unregistered');
      const far = await bench.far('uac-refused', { code: 404 }, { service: '5002' });
      await far.ok();
    });

    test('a retransmitted INVITE rings once; one that came another way gets 482', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const leg = peer.leg('5002');
      const branch = leg.invite();
      await leg.reply(branch, (s) => s === 180);
      for (let i = 0; i < 3; i += 1) leg.send('INVITE', { cseq: 1, branch, body: farSdp() });
      const merged = leg.send('INVITE', { cseq: 1, body: farSdp() });
      const reply = await leg.reply(merged);
      assert.equal(reply.status, 482);
      leg.ack(reply);
      const { callId } = await b.waitFor('incomingCall');
      await b.never('incomingCall', 300);
      const ringing = peer.log.filter((e) => e.dir === 'in' && e.message.status === 180);
      assert.ok(ringing.length > 1, 'tm repeats the last reply');
      await hangup(b, callId, 'busy');
      leg.ack(await leg.answer());
    });

    test('the caller hangs up before its ACK', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const leg = peer.leg('5002');
      leg.invite();
      const { callId } = await b.waitFor('incomingCall');
      await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      const ok = await leg.answer();
      assert.equal((await leg.bye()).status, 200);
      assert.equal((await b.waitFor('callEnded')).callId, callId);
      leg.ack(ok);
    });

    test('the answer of the far side to our BYE does not come: nothing stays', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const { callId } = await comesIn(b, peer, '5002');
      await hangup(b, callId);
      await peer.request('BYE');
      await callsBecome(kamailio, (rows) => rows.length === 0, 4000);
    });

    test('unregister ends the calls', async () => {
      const b = await bench.agent('5002');
      const peer = await bench.peer();
      const { callId } = await comesIn(b, peer, '5002');
      const ringing = peer.leg('5002');
      ringing.invite();
      const second = await b.waitFor('incomingCall');
      await b.expect('unregister', {}, 'unregistered');
      peer.reply(await peer.request('BYE'), 200);
      const refusal = await ringing.answer();
      assert.equal(refusal.status, 480);
      ringing.ack(refusal);
      assert.deepEqual([endsOf(b, callId).length, endsOf(b, second.callId).length], [1, 1]);
    });
  });
});

describe('calls of agents that a registrar knows', () => {
  let registrar;
  let registrarPeer;
  before(async () => {
    const port = await freePort();
    kamailio = await startKamailio({ mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfg: hopByNumber(), cfgExtra: tm(timers) });
    registrarPeer = await openPeer(kamailio.sipPort, { port });
    registrar = new Registrar(registrarPeer, { realm, algorithms: ['MD5'] });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); await registrarPeer?.close(); });
  afterEach(() => bench.finish());

  for (const algorithm of ['MD5', 'SHA-256']) {
    test(`an INVITE that is challenged (407, ${algorithm}) is sent again with the answer`, async () => {
      const far = await bench.far('uas-challenge', { algorithm, realm });
      const a = await bench.agent('5001');
      const { callId } = await answered(a, far);
      await hangup(a, callId);
      await far.ok();
      const invites = far.messages().filter((m) => m.dir === 'in' && m.method === 'INVITE').map((m) => m.text);
      assert.equal(invites.length, 2);
      const value = (text, name) => new RegExp(`^${name}: *(.*?)\r?$`, 'im').exec(text)?.[1];
      const given = value(invites[1], 'Proxy-Authorization');
      assert.ok(checkDigest(given, { method: 'INVITE', password: 'pw5001' }), given);
      assert.deepEqual([digestFields(given).username, digestFields(given).uri], ['5001', `sip:${to(far)}@127.0.0.1`]);
      for (const same of ['Call-ID', 'From', 'To']) assert.equal(value(invites[1], same), value(invites[0], same));
      assert.deepEqual(invites.map((text) => value(text, 'CSeq')), ['1 INVITE', '2 INVITE']);
      assert.equal(a.received.filter((m) => m.type === 'callProgress' && m.payload.state === 'trying').length, 1, 'invisible to the browser');
    });
  }

  test('challenged again and again: refused', async () => {
    const peer = await bench.peer();
    peer.onRequest((m, repeat) => {
      if (m.method === 'INVITE' && !repeat) {
        peer.reply(m, 401, { headers: [`WWW-Authenticate: Digest realm="${realm}", nonce="n${m.cseq}", algorithm=MD5, qop="auth"`] });
      }
    });
    const a = await bench.agent('5001');
    const { ended } = await refused(a, call(a, to(peer)));
    assert.deepEqual([ended.code, ended.reason], [401, 'call_rejected']);
    assert.equal(peer.received((m) => m.method === 'INVITE').length, 2);
    assert.ok(peer.received((m) => m.method === 'INVITE')[1].header('Authorization'));
  });

  test('challenged for a realm whose password is not known: refused', async () => {
    const far = await bench.far('uas-challenge', { algorithm: 'MD5', realm: 'elsewhere' });
    const a = await bench.agent('5001');
    const { ended } = await refused(a, call(a, to(far)));
    assert.deepEqual([ended.code, ended.reason], [407, 'call_rejected']);
    assert.equal(registrar.bindings.size, 1, 'still registered');
  });

  test('a BYE that is challenged is sent again with the answer', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    call(a, to(peer));
    const invite = await peer.request('INVITE');
    peer.reply(invite, 200, { body: farSdp({ setup: 'active' }) });
    await peer.request('ACK');
    await hangup(a, (await a.waitFor('callAccepted')).callId);
    const bye = await peer.request('BYE');
    peer.reply(bye, 407, { headers: [`Proxy-Authenticate: Digest realm="${realm}", nonce="n1", algorithm=MD5, qop="auth"`] });
    const again = await peer.request('BYE');
    assert.equal(again.cseq, bye.cseq + 1);
    assert.ok(checkDigest(again.header('Proxy-Authorization'), { method: 'BYE', password: 'pw5001' }));
    peer.reply(again, 200);
  });
});
