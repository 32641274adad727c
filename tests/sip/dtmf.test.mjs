/** What a browser does in a call beside its media: digits, mute, recording. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer } from '../common/sdp.mjs';
import { farSdp } from './peer.mjs';
import { Bench, callIn, callOut, endCall, endsOf, hopByNumber, tm } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const timers = tm({ fr_timer: 1000, fr_inv_timer: 4000, wt_timer: 200 });

/** An answered call in that direction: { callId, leg, peer, a }. */
async function begin(direction = 'out', options = {}) {
  const [a, peer] = [await bench.agent('5001'), await bench.peer()];
  const call = direction === 'out' ? await callOut(a, peer, options) : await callIn(kamailio, a, peer, '5001', options);
  return { ...call, a };
}

/** The next INFO with a digit: [digit, duration, request]. */
async function digit(peer) {
  const info = await peer.request('INFO');
  assert.equal(info.header('Content-Type'), 'application/dtmf-relay');
  const [, signal, duration] = /^Signal=(.)\r\nDuration=(\d+)\r\n$/.exec(info.body) ?? assert.fail(info.body);
  return [signal, Number(duration), info];
}

const infos = (peer) => peer.received((m) => m.method === 'INFO').length;

describe('digits by INFO', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: timers, params: { dtmf_duration: 120 } });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  for (const direction of ['out', 'in']) {
    test(`in their order, one at a time, a call ${direction}`, async () => {
      const call = await begin(direction);
      const { a, callId, leg, peer } = call;
      const all = '0123456789*#ABCD';
      const id = a.send('dtmf', { callId, digit: all, duration: 250 });
      let last = 0;
      for (const [i, wanted] of [...all].entries()) {
        const [signal, duration, info] = await digit(peer);
        assert.deepEqual([signal, duration], [wanted, 250]);
        assert.deepEqual([info.callId, info.fromTag, info.toTag], [leg.callId, leg.remoteTag, leg.localTag]);
        assert.ok(info.cseq > last);
        last = info.cseq;
        if (i % 5 === 0) {
          await sleep(80);
          assert.equal(infos(peer), i + 1, 'not before the last one is answered');
        }
        assert.ok(!a.received.some((m) => m.type === 'ack' && m.id === id));
        peer.reply(info, 200);
      }
      const ack = await a.waitFor('ack', (p, m) => m.id === id);
      assert.deepEqual(ack, { callId });
      await endCall(a, call);
    });
  }

  test('several messages keep their order, each has its ack, the duration is the operator\'s', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const ids = ['1', '23', '4'].map((d) => a.send('dtmf', { callId, digit: d }));
    for (const wanted of '1234') {
      const [signal, duration, info] = await digit(peer);
      assert.deepEqual([signal, duration], [wanted, 120]);
      peer.reply(info, 200);
    }
    for (const id of ids) await a.waitFor('ack', (p, m) => m.id === id);
    assert.deepEqual(a.received.filter((m) => m.type === 'ack').map((m) => m.id), ids);
    // the same id again is the same request
    a.send('dtmf', { callId, digit: '23' }, { id: ids[1] });
    await a.waitFor('ack', (p, m) => m.id === ids[1]);
    await sleep(100);
    assert.equal(infos(peer), 4);
    await endCall(a, call);
  });

  test('refused in the middle: error, the rest of that message is not sent, the next one is', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const [first, second] = [a.send('dtmf', { callId, digit: '12345' }), a.send('dtmf', { callId, digit: '9' })];
    peer.reply((await digit(peer))[2], 200);
    const [two, , info] = await digit(peer);
    assert.equal(two, '2');
    peer.reply(info, 415);
    const error = await a.waitFor('error', (p, m) => m.id === first);
    assert.deepEqual([error.code, error.callId], [415, callId]);
    const [nine, , last] = await digit(peer);
    assert.equal(nine, '9');
    peer.reply(last, 200);
    await a.waitFor('ack', (p, m) => m.id === second);
    await a.never('callEnded', 100);
    await endCall(a, call);
  });

  test('a far side that never answers it: 408, and the call goes on', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const id = a.send('dtmf', { callId, digit: '12' });
    await digit(peer);
    const error = await a.waitFor('error', (p, m) => m.id === id);
    assert.deepEqual([error.code, error.callId], [408, callId]);
    await a.never('callEnded', 150);
    assert.equal(infos(peer), 1);
    await endCall(a, call);
  });

  test('481 ends the call', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const id = a.send('dtmf', { callId, digit: '12' });
    peer.reply((await digit(peer))[2], 481);
    assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 481);
    assert.deepEqual([(await a.waitFor('callEnded')).reason, endsOf(a, callId).length], ['network_error', 1]);
  });

  test('the call ends while digits wait', async () => {
    const call = await begin();
    const { a, callId, peer, leg } = call;
    const ids = [a.send('dtmf', { callId, digit: '12' }), a.send('dtmf', { callId, digit: '3' })];
    const [, , info] = await digit(peer);
    assert.equal((await leg.bye()).status, 200);
    for (const id of ids) assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 487);
    assert.equal((await a.waitFor('callEnded')).reason, 'normal_clearing');
    peer.reply(info, 200);
    await sleep(100);
    assert.equal(infos(peer), 1);
  });

  test('digits and a hold pass each other', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const [hold, dtmf] = [a.send('hold', { callId, hold: true }), a.send('dtmf', { callId, digit: '7' })];
    const invite = await peer.request('INVITE');
    const [, , info] = await digit(peer);
    assert.notEqual(invite.cseq, info.cseq);
    peer.reply(info, 200);
    await a.waitFor('ack', (p, m) => m.id === dtmf);
    peer.reply(invite, 200, { body: farSdp({ setup: 'active', version: 2, direction: 'recvonly' }) });
    await a.waitFor('callUpdated', (p, m) => m.id === hold);
    await endCall(a, call);
  });

  test('what is no digit, and what is no call', async () => {
    const call = await begin();
    const { a, callId } = call;
    for (const bad of [{ digit: 'x' }, { digit: '' }, { digit: '1\r\nSignal=2' }, { digit: 5 }, {}, { digit: '1', duration: -1 }]) {
      const { type, payload } = await a.request('dtmf', { callId, ...bad });
      assert.deepEqual([type, payload.code], ['error', 400], JSON.stringify(bad));
    }
    assert.equal((await a.request('dtmf', { callId: 'nonsense', digit: '1' })).payload.code, 404);
    const stranger = await bench.agent('5002');
    for (const [type, payload] of [
      ['dtmf', { digit: '1' }], ['mute', { muted: true }], ['recording', { action: 'start' }], ['update', { sdp: 'v=0' }],
      ['transfer', { to: '5003' }], ['conference', { callIds: [callId, 'nonsense'] }],
    ]) {
      assert.equal((await stranger.request(type, { callId, ...payload })).payload.code, 404, type);
    }
    assert.equal(infos(call.peer), 0);
    await endCall(a, call);
  });

  test('mute: noted, seen by RPC and in the snapshot, nothing is sent', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const before = peer.received().length;
    assert.deepEqual(await a.expect('mute', { callId, muted: true }, 'ack'), { callId });
    assert.equal((await kamailio.rpcRows('rtc_json.calls'))[0].muted, 1);
    await a.expect('mute', { callId, muted: true }, 'ack');
    await a.expect('mute', { callId, muted: false }, 'ack');
    assert.equal((await kamailio.rpcRows('rtc_json.calls'))[0].muted, 0);
    assert.equal(peer.received().length, before);
    assert.equal((await a.request('mute', { callId })).payload.code, 400);
    await endCall(a, call);
  });

  test('recording: start, pause, resume, stop', async () => {
    const call = await begin();
    const { a, callId, peer, leg } = call;
    assert.ok(!('recording' in (await kamailio.rpcRows('rtc_json.calls'))[0]));
    for (const [action, tell, state] of [
      ['start', 'on', 'recording'], ['pause', 'off', 'paused'], ['resume', 'on', 'recording'], ['stop', 'off', 'stopped'],
      ['start', 'on', 'recording'], ['pause', 'off', 'paused'],
    ]) {
      const id = a.send('recording', { callId, action });
      const info = await peer.request('INFO');
      assert.deepEqual([info.header('Record'), info.body, info.toTag], [tell, '', leg.localTag]);
      assert.ok(!a.received.some((m) => m.id === id), 'not before the far side has said yes');
      peer.reply(info, 200);
      assert.deepEqual(await a.waitFor('recordingUpdated', (p, m) => m.id === id), { callId, state });
      assert.equal((await kamailio.rpcRows('rtc_json.calls'))[0].recording, state);
      // asked for what is already so: nothing to send
      const count = infos(peer);
      assert.equal((await a.expect('recording', { callId, action }, 'recordingUpdated')).state, state);
      assert.equal(infos(peer), count);
    }
    // paused, to stopped: the far side records nothing any more as it is
    const count = infos(peer);
    assert.equal((await a.expect('recording', { callId, action: 'stop' }, 'recordingUpdated')).state, 'stopped');
    assert.equal(infos(peer), count);
    await endCall(a, call);
  });

  test('recording: what does not fit the state, and a change on its way', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const conflict = async (action) => {
      const { type, payload } = await a.request('recording', { callId, action });
      assert.deepEqual([type, payload.code, payload.callId], ['error', 409, callId], action);
    };
    await conflict('pause');
    await conflict('resume');
    const id = a.send('recording', { callId, action: 'start' });
    const info = await peer.request('INFO');
    for (const action of ['start', 'stop', 'pause']) {
      const { type, payload } = await a.request('recording', { callId, action });
      assert.deepEqual([type, payload.code, payload.retryable], ['error', 491, true], action);
    }
    peer.reply(info, 200);
    await a.waitFor('recordingUpdated', (p, m) => m.id === id);
    const pause = a.send('recording', { callId, action: 'pause' });
    peer.reply(await peer.request('INFO'), 200);
    await a.waitFor('recordingUpdated', (p, m) => m.id === pause);
    await conflict('start');
    assert.equal((await a.request('recording', { callId, action: 'erase' })).payload.code, 400);
    await endCall(a, call);
  });

  test('recording refused, or not answered: the state stays', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    const first = a.send('recording', { callId, action: 'start' });
    peer.reply(await peer.request('INFO'), 403);
    const error = await a.waitFor('error', (p, m) => m.id === first);
    assert.deepEqual([error.code, error.callId], [403, callId]);
    assert.ok(!('recording' in (await kamailio.rpcRows('rtc_json.calls'))[0]));
    const second = a.send('recording', { callId, action: 'start' });
    await peer.request('INFO');
    assert.equal((await a.waitFor('error', (p, m) => m.id === second)).code, 408);
    await a.never('callEnded', 100);
    const third = a.send('recording', { callId, action: 'start' });
    peer.reply(await peer.request('INFO'), 200);
    assert.equal((await a.waitFor('recordingUpdated', (p, m) => m.id === third)).state, 'recording');
    await endCall(a, call);
  });

  test('hold, mute and recording are in the snapshot of a browser that comes back', async () => {
    const call = await begin();
    const { a, callId, peer } = call;
    await a.expect('mute', { callId, muted: true }, 'ack');
    a.send('recording', { callId, action: 'start' });
    peer.reply(await peer.request('INFO'), 200);
    await a.waitFor('recordingUpdated');
    a.send('hold', { callId, hold: true });
    peer.reply(await peer.request('INVITE'), 200, { body: farSdp({ setup: 'active', version: 2, direction: 'recvonly' }) });
    await a.waitFor('callUpdated');
    // outcomes that the browser misses are there when it asks again
    const id = a.send('recording', { callId, action: 'pause' });
    const info = await peer.request('INFO');
    // Kamailio may not know yet that there is no connection any more
    bench.expectLog(/ws_frame\.c:\d+\]: (encode_and_send_ws_frame|ws_frame_transmit)\(\): sending /);
    a.terminate();
    await a.whenClosed();
    peer.reply(info, 200);
    await sleep(100);
    const b = await bench.client();
    const { calls: [snapshot] } = await b.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
    assert.deepEqual([snapshot.callId, snapshot.hold, snapshot.muted, snapshot.recording, snapshot.state], [callId, true, true, 'paused', 'established']);
    b.send('recording', { callId, action: 'pause' }, { id });
    assert.equal((await b.waitFor('recordingUpdated', (p, m) => m.id === id)).state, 'paused');
    const rows = await kamailio.rpcRows('rtc_json.agent', 's:5001').catch(() => kamailio.rpcRows('rtc_json.agent', '5001'));
    const row = rows.find((r) => r.callId === callId);
    assert.deepEqual([row.hold, row.remoteHold, row.muted, row.recording], [1, 0, 1, 'paused']);
    assert.equal(infos(peer), 2);
    await endCall(b, call);
  });
});

describe('digits in RTP', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: timers, params: { dtmf_mode: 'rfc4733' } });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  for (const direction of ['out', 'in']) {
    test(`telephone-event was agreed: the browser plays them, a call ${direction}`, async () => {
      const call = await begin(direction);
      const { a, callId, peer } = call;
      assert.deepEqual(await a.expect('dtmf', { callId, digit: '12' }, 'ack'), { callId, mode: 'rfc4733' });
      await sleep(100);
      assert.equal(infos(peer), 0);
      await endCall(a, call);
    });

    test(`it was not: INFO all the same, a call ${direction}`, async () => {
      const without = (sdp) => sdp.replace(/ 126\r\n/, '\r\n').replace(/a=(rtpmap|fmtp):126.*\r\n/g, '');
      const call = await begin(direction, direction === 'out'
        ? { body: without(farSdp({ setup: 'active' })) } : { body: without(farSdp()), answer: without(fakeAnswer()) });
      const { a, callId, peer } = call;
      const id = a.send('dtmf', { callId, digit: '5' });
      const [signal, duration, info] = await digit(peer);
      assert.deepEqual([signal, duration], ['5', 160]);
      peer.reply(info, 200);
      assert.deepEqual(await a.waitFor('ack', (p, m) => m.id === id), { callId });
      await endCall(a, call);
    });
  }
});
