/** Hold, by the browser and by the far side: the description, the flags, and what happens when it is refused or crosses. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep } from '../common/cleanup.mjs';
import { checkDigest, digestFields } from '../common/digest.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer, Registrar } from './peer.mjs';
import { assertFollows, Bench, callIn, callOut, callsBecome, endCall, endsOf, hopByNumber, partsOf, tm } from './support.mjs';

const timers = { fr_timer: 1500, fr_inv_timer: 4000, wt_timer: 200 };

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

/** An answered call in that direction: { callId, leg, peer, sent, a }. */
async function begin(direction, options = {}) {
  const [a, peer] = [await bench.agent('5001'), await bench.peer()];
  const call = direction === 'out' ? await callOut(a, peer, options) : await callIn(kamailio, a, peer, '5001', options);
  return { ...call, a };
}

const mirrored = { sendrecv: 'sendrecv', sendonly: 'recvonly', recvonly: 'sendonly', inactive: 'inactive' };

/** The far side takes the next re-INVITE as it should. @returns the re-INVITE */
async function agree(peer, { version = 2, direction } = {}) {
  const invite = await peer.request('INVITE');
  peer.reply(invite, 200, { body: farSdp({ setup: 'active', version, direction: direction ?? mirrored[partsOf(invite.body).direction] }) });
  await peer.waitFor((m) => m.method === 'ACK' && m.cseq === invite.cseq, 5000, 'ACK');
  return invite;
}

/** `hold` that the far side takes. */
async function hold({ a, callId, peer }, on) {
  const id = a.send('hold', { callId, hold: on });
  const invite = await agree(peer);
  const updated = await a.waitFor('callUpdated', (p, m) => m.id === id);
  assert.deepEqual(updated, { callId, hold: on, remoteHold: false });
  return invite;
}

/** A description of the far side in its re-INVITE or UPDATE, and our answer. */
async function offer({ leg }, method, sdp) {
  if (method === 'UPDATE') {
    const ok = await leg.request('UPDATE', { body: sdp });
    assert.equal(ok.status, 200);
    return ok;
  }
  leg.invite({ body: sdp });
  const ok = await leg.answer();
  assert.equal(ok.status, 200);
  leg.ack(ok);
  return ok;
}

const flags = (p) => [p.hold, p.remoteHold, p.sdp, p.answerNeeded];

describe('hold', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: tm(timers) });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  for (const direction of ['out', 'in']) {
    describe(`a call ${direction}`, () => {
      test('hold and resume: the last description with another direction', async () => {
        const call = await begin(direction);
        const { a, leg, callId } = call;
        const held = await hold(call, true);
        assertFollows(held.body, call.sent, 'sendonly');
        assert.ok(partsOf(held.body).candidates.some((c) => c.includes('0.0.0.0 9 typ host')));
        assert.equal(held.uri, leg.peer.uri.replace('sip:', 'sip:far@'));
        assert.deepEqual([held.callId, held.fromTag, held.toTag], [leg.callId, leg.remoteTag, leg.localTag]);
        assert.match(held.header('Contact'), /<sip:5001@127\.0\.0\.1:\d+>/);
        assert.match(held.header('Allow'), /UPDATE/);
        const [row] = await kamailio.rpcRows('rtc_json.calls');
        assert.deepEqual([row.hold, row.remoteHold], [1, 0]);
        const back = await hold(call, false);
        assertFollows(back.body, held.body, 'sendrecv');
        assert.equal(back.cseq, held.cseq + 1);
        assert.equal((await kamailio.rpcRows('rtc_json.calls'))[0].hold, 0);
        assert.equal(a.received.filter((m) => m.type === 'callUpdated').length, 2);
        await endCall(a, call);
        assert.equal(endsOf(a, callId).length, 1);
      });

      test('hold twice: the second finds it done', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        await hold(call, true);
        assert.deepEqual(await a.expect('hold', { callId, hold: true }, 'callUpdated'), { callId, hold: true, remoteHold: false });
        await hold(call, false);
        assert.deepEqual(await a.expect('hold', { callId, hold: false }, 'callUpdated'), { callId, hold: false, remoteHold: false });
        assert.equal(peer.received((m) => m.method === 'INVITE').length, direction === 'out' ? 3 : 2);
        await endCall(a, call);
      });

      test('refused: error, the call goes on as it was, and the next one is taken', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        for (const code of [488, 603, 500]) {
          const id = a.send('hold', { callId, hold: true });
          peer.reply(await peer.request('INVITE'), code);
          const error = await a.waitFor('error', (p, m) => m.id === id);
          assert.deepEqual([error.code, error.callId, error.request], [code, callId, id]);
          await peer.request('ACK');
        }
        assert.deepEqual((await kamailio.rpcRows('rtc_json.calls')).map((r) => [r.state, r.hold]), [['established', 0]]);
        assertFollows((await hold(call, true)).body, call.sent, 'sendonly', { refused: 3 });
        await a.never('callEnded', 100);
        await endCall(a, call);
      });

      test('491: once more after the pause of RFC 3261, 14.1', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        const id = a.send('hold', { callId, hold: true });
        const first = await peer.request('INVITE');
        peer.reply(first, 491);
        const refused = performance.now();
        const second = await peer.request('INVITE', 6000);
        const pause = performance.now() - refused;
        // the owner of the Call-ID waits 2.1 to 4 s, the other one 0 to 2; Kamailio's timer has a grain
        const [low, high] = direction === 'out' ? [2000, 4800] : [0, 2800];
        assert.ok(pause >= low && pause <= high, `${pause} ms`);
        assertFollows(second.body, call.sent, 'sendonly', { refused: 1 });
        assert.ok(second.cseq > first.cseq);
        peer.reply(second, 200, { body: farSdp({ setup: 'active', version: 2, direction: 'recvonly' }) });
        assert.deepEqual(flags(await a.waitFor('callUpdated', (p, m) => m.id === id)), [true, false, undefined, undefined]);
        await endCall(a, call);
      });

      test('several at once go one after the other, each with its outcome', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        const wanted = [true, false, true, false];
        const ids = wanted.map((on) => a.send('hold', { callId, hold: on }));
        let last = call.sent;
        for (const on of wanted) {
          const invite = await peer.request('INVITE');
          await sleep(60);
          assert.equal(peer.received((m) => m.method === 'INVITE' && m.cseq > invite.cseq).length, 0, 'one at a time');
          assertFollows(invite.body, last, on ? 'sendonly' : 'sendrecv');
          last = invite.body;
          peer.reply(invite, 200, { body: farSdp({ setup: 'active', version: 2, direction: on ? 'recvonly' : 'sendrecv' }) });
        }
        for (const [i, id] of ids.entries()) assert.equal((await a.waitFor('callUpdated', (p, m) => m.id === id)).hold, wanted[i]);
        assert.deepEqual(a.received.filter((m) => m.type === 'callUpdated').map((m) => m.id), ids);
        await endCall(a, call);
      });

      test('hung up while the re-INVITE is open', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        const id = a.send('hold', { callId, hold: true });
        const invite = await peer.request('INVITE');
        const bye = a.send('hangup', { callId, reason: 'user_hangup' });
        assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 487);
        await a.waitFor('callEnded', (p, m) => m.id === bye);
        const request = await peer.request('BYE');
        assert.equal(request.callId, leg.callId);
        peer.reply(request, 200);
        peer.reply(invite, 200, { body: farSdp({ setup: 'active', version: 2, direction: 'recvonly' }) });
        await peer.waitFor((m) => m.method === 'ACK' && m.cseq === invite.cseq);
        await sleep(200);
        assert.equal(peer.received((m) => m.method === 'BYE').length, 1, 'and no second BYE');
        assert.equal(endsOf(a, callId).length, 1);
      });

      test('the far side hangs up while the re-INVITE is open', async () => {
        const call = await begin(direction);
        const { a, callId, peer, leg } = call;
        const id = a.send('hold', { callId, hold: true });
        const invite = await peer.request('INVITE');
        assert.equal((await leg.bye()).status, 200);
        peer.reply(invite, 487);
        assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 487);
        assert.equal((await a.waitFor('callEnded')).reason, 'normal_clearing');
        await peer.waitFor((m) => m.method === 'ACK' && m.cseq === invite.cseq);
        assert.equal(endsOf(a, callId).length, 1);
      });

      test('a far side that does not answer the re-INVITE is gone (RFC 3261, 14.1)', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        const id = a.send('hold', { callId, hold: true });
        await peer.request('INVITE');
        peer.onRequest((m, repeat) => { if (m.method === 'BYE' && !repeat) peer.reply(m, 200); });
        assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 408);
        const ended = await a.waitFor('callEnded');
        assert.deepEqual([ended.callId, ended.reason, ended.code], [callId, 'network_error', 408]);
        await peer.request('BYE');
      });

      test('481 to the re-INVITE: the dialog is lost, and so is the call', async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        const id = a.send('hold', { callId, hold: true });
        peer.reply(await peer.request('INVITE'), 481);
        assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 481);
        assert.deepEqual([(await a.waitFor('callEnded')).reason, endsOf(a, callId).length], ['network_error', 1]);
        await sleep(150);
        assert.equal(peer.received((m) => m.method === 'BYE').length, 0);
      });

      for (const method of ['INVITE', 'UPDATE']) {
        test(`the far side holds by ${method}: answered here, the browser learns it`, async () => {
          const call = await begin(direction);
          const { a, callId } = call;
          let version = 1;
          let last = call.sent;
          const step = async (options, wanted, held, told) => {
            version += 1;
            const ok = await offer(call, method, farSdp({ version, ...options }));
            const [was, is] = [partsOf(last), partsOf(ok.body)];
            last = ok.body;
            assert.equal(is.direction, wanted, JSON.stringify(options));
            assert.deepEqual([is.session, is.version], [was.session, was.version + 1]);
            assert.ok(['active', 'passive'].includes(is.setup), 'an answer names its role');
            assert.deepEqual(is.rest.filter((l) => !l.startsWith('a=setup')), was.rest.filter((l) => !l.startsWith('a=setup')));
            assert.match(ok.header('Contact'), /<sip:5001@127\.0\.0\.1:\d+>/);
            if (told) assert.deepEqual(flags(await a.waitFor('callUpdated')), [false, held, undefined, undefined]);
            else await a.never('callUpdated', 60);
            assert.equal((await kamailio.rpcRows('rtc_json.calls'))[0].remoteHold, Number(held));
            return is;
          };
          const setup = direction === 'out' ? 'passive' : 'active';
          assert.equal((await step({ direction: 'sendonly' }, 'recvonly', true, true)).setup, setup, 'the role that was agreed');
          await step({ direction: 'sendonly' }, 'recvonly', true, false);
          await step({ direction: 'inactive' }, 'inactive', true, false);
          await step({ direction: 'sendrecv' }, 'sendrecv', false, true);
          await step({ direction: 'sendrecv', address: '0.0.0.0' }, 'recvonly', true, true);
          await step({ direction: 'inactive', address: '0.0.0.0' }, 'inactive', true, false);
          await step({ direction: 'sendrecv' }, 'sendrecv', false, true);
          // a listener holds nobody
          await step({ direction: 'recvonly' }, 'sendonly', false, false);
          await step({ direction: 'sendrecv' }, 'sendrecv', false, false);
          assert.equal(endsOf(a, callId).length, 0);
          await endCall(a, call);
        });

        test(`both hold, the far side by ${method}`, async () => {
          const call = await begin(direction);
          const { a, callId, peer } = call;
          await hold(call, true);
          let ok = await offer(call, method, farSdp({ version: 3, direction: 'sendonly' }));
          assert.equal(partsOf(ok.body).direction, 'inactive');
          assert.deepEqual(flags(await a.waitFor('callUpdated')), [true, true, undefined, undefined]);
          // the far side lets go first: we still hold
          ok = await offer(call, method, farSdp({ version: 4, direction: 'sendrecv' }));
          assert.equal(partsOf(ok.body).direction, 'sendonly');
          assert.deepEqual(flags(await a.waitFor('callUpdated')), [true, false, undefined, undefined]);
          await hold(call, false);
          // and the other way round
          await offer(call, method, farSdp({ version: 6, direction: 'sendonly' }));
          assert.deepEqual(flags(await a.waitFor('callUpdated')), [false, true, undefined, undefined]);
          let id = a.send('hold', { callId, hold: true });
          assert.equal(partsOf((await agree(peer, { direction: 'inactive' })).body).direction, 'inactive');
          assert.deepEqual(flags(await a.waitFor('callUpdated', (p, m) => m.id === id)), [true, true, undefined, undefined]);
          id = a.send('hold', { callId, hold: false });
          await agree(peer, { direction: 'sendonly' });
          assert.deepEqual(flags(await a.waitFor('callUpdated', (p, m) => m.id === id)), [false, true, undefined, undefined], 'the far side still holds');
          await offer(call, method, farSdp({ version: 9, direction: 'sendrecv' }));
          assert.deepEqual(flags(await a.waitFor('callUpdated')), [false, false, undefined, undefined]);
          await endCall(a, call);
        });
      }
    });
  }

  test('both hold at the same instant: one gives way, both are held in the end', async () => {
    const call = await begin('in');
    const { a, callId, peer, leg } = call;
    const id = a.send('hold', { callId, hold: true });
    const ours = await peer.request('INVITE');
    // the far side's re-INVITE crosses
    leg.invite({ body: farSdp({ version: 2, direction: 'sendonly' }) });
    const refusal = await leg.answer();
    assert.equal(refusal.status, 491);
    leg.ack(refusal);
    peer.reply(ours, 491);
    // ours waits 0 to 2 s, for the Call-ID is the far side's; that one waits longer
    assert.equal(partsOf((await agree(peer)).body).direction, 'sendonly');
    assert.deepEqual(flags(await a.waitFor('callUpdated', (p, m) => m.id === id)), [true, false, undefined, undefined]);
    const ok = await offer(call, 'INVITE', farSdp({ version: 3, direction: 'sendonly' }));
    assert.equal(partsOf(ok.body).direction, 'inactive');
    assert.deepEqual(flags(await a.waitFor('callUpdated')), [true, true, undefined, undefined]);
    await endCall(a, call);
  });

  test('hold before the ACK of the far side waits for it', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const leg = peer.leg('5001');
    leg.invite();
    const { callId } = await a.waitFor('incomingCall');
    await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    const ok = await leg.answer();
    const id = a.send('hold', { callId, hold: true });
    await sleep(250);
    assert.equal(peer.received((m) => m.method === 'INVITE').length, 0);
    leg.ack(ok);
    assert.equal(partsOf((await agree(peer)).body).direction, 'sendonly');
    assert.equal((await a.waitFor('callUpdated', (p, m) => m.id === id)).hold, true);
    await endCall(a, { callId, peer, leg });
  });

  test('held and away: the snapshot says so, and a hold sent again is the same one', async () => {
    const call = await begin('out');
    const { a, callId, peer } = call;
    await hold(call, true);
    await offer(call, 'INVITE', farSdp({ version: 3, direction: 'sendonly' }));
    await a.waitFor('callUpdated');
    const id = a.send('hold', { callId, hold: false });
    const open = await peer.request('INVITE');
    a.terminate();
    await a.whenClosed();
    const b = await bench.client();
    const { calls } = await b.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
    assert.deepEqual(calls.map((c) => [c.callId, c.state, c.hold, c.remoteHold]), [[callId, 'established', true, true]]);
    b.send('hold', { callId, hold: false }, { id });
    peer.reply(open, 200, { body: farSdp({ setup: 'active', version: 4, direction: 'sendrecv' }) });
    assert.deepEqual(flags(await b.waitFor('callUpdated', (p, m) => m.id === id)), [false, false, undefined, undefined]);
    await sleep(100);
    assert.equal(peer.received((m) => m.method === 'INVITE').length, 3, 'not done twice');
    await endCall(b, call);
  });

  test('the wrong call: 404, before it is answered: 409', async () => {
    const call = await begin('out');
    const stranger = await bench.agent('5002');
    for (const callId of [call.callId, 'nonsense']) {
      const { type, payload } = await stranger.request('hold', { callId, hold: true });
      assert.deepEqual([type, payload.code], ['error', 404]);
    }
    await endCall(call.a, call);
    const peer = await bench.peer();
    const id = call.a.send('call', { to: `7${peer.port}`, sdp: fakeOffer() });
    const { callId } = await call.a.waitFor('callProgress', (p, m) => m.id === id);
    const invite = await peer.request('INVITE');
    const { type, payload } = await call.a.request('hold', { callId, hold: true });
    assert.deepEqual([type, payload.code], ['error', 409]);
    peer.reply(invite, 486);
    await call.a.waitFor('callEnded', (p) => p.callId === callId);
    await callsBecome(kamailio, (rows) => rows.length === 0);
  });
});

describe('agents whose secret is known: a challenge on the re-INVITE', () => {
  let registrar;
  before(async () => {
    const port = await freePort();
    kamailio = await startKamailio({ mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfg: hopByNumber(), cfgExtra: tm(timers) });
    registrar = await openPeer(kamailio.sipPort, { port });
    new Registrar(registrar, { realm });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); await registrar?.close(); });
  afterEach(() => bench.finish());

  for (const direction of ['out', 'in']) {
    for (const [code, challenge, credentials] of [[401, 'WWW-Authenticate', 'Authorization'], [407, 'Proxy-Authenticate', 'Proxy-Authorization']]) {
      test(`${code} in a call ${direction}`, async () => {
        const call = await begin(direction);
        const { a, callId, peer } = call;
        const id = a.send('hold', { callId, hold: true });
        const first = await peer.request('INVITE');
        peer.reply(first, code, { headers: [`${challenge}: Digest realm="${realm}", nonce="n1", algorithm=MD5, qop="auth"`] });
        const second = await agree(peer);
        assert.ok(checkDigest(second.header(credentials), { method: 'INVITE', password: 'pw5001' }));
        assert.deepEqual([digestFields(second.header(credentials)).uri, second.cseq, second.body], [second.uri, first.cseq + 1, first.body]);
        await a.waitFor('callUpdated', (p, m) => m.id === id);
        // refused for good when the answer is not taken
        const again = a.send('hold', { callId, hold: false });
        for (let i = 0; i < 2; i += 1) {
          peer.reply(await peer.request('INVITE'), code, { headers: [`${challenge}: Digest realm="${realm}", nonce="n2", algorithm=MD5, qop="auth"`] });
        }
        assert.equal((await a.waitFor('error', (p, m) => m.id === again)).code, code);
        await endCall(a, call);
      });
    }

  }
});
