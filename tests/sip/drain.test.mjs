/** A server that is to become empty (rtc_json.drain), with several workers: whichever process is asked, it knows. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep } from '../common/cleanup.mjs';
import { ask } from '../common/http.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { Bench, callIn, callOut, endCall, hopByNumber, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const drain = (...args) => kamailio.rpc('rtc_json.drain', ...args);
const notices = (client) => client.received.filter((m) => m.type === 'notice').map((m) => m.payload);
const health = async () => {
  const { status, text } = await ask(kamailio.wsPort, 'GET', '/api/health');
  return [status, JSON.parse(text).status];
};

/** An INVITE to that agent; the status that ends it. */
async function invited(far, dn) {
  const leg = far.leg(dn);
  leg.invite({});
  const answer = await leg.answer();
  return answer.status;
}

describe('draining', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: tm({ wt_timer: 200 }), workers: 4 });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(async () => {
    await drain(0);
    await bench.finish();
  });

  test('all browsers are told, once each', async () => {
    const agents = await Promise.all(['5001', '5002', '5003', '5003'].map((dn) => bench.agent(dn)));
    const stranger = await bench.client();
    assert.deepEqual(await drain(), { sessions: 4, calls: 0, draining: 1 });
    await Promise.all(agents.map((agent) => agent.waitFor('notice')));
    assert.equal((await drain(1)).draining, 1);
    for (const agent of agents) {
      await agent.expect('ping', {}, 'pong');
      assert.deepEqual(notices(agent), [{ reason: 'draining' }]);
    }
    await stranger.expect('ping', {}, 'pong');
    assert.deepEqual(notices(stranger), []);
    assert.deepEqual([(await kamailio.rpc('rtc_json.stats')).draining, await kamailio.stat('draining')], [1, 1]);
    assert.match(kamailio.log(), /NOTICE: .*drain: no new calls and sessions from now on/);
  });

  test('no worker lets a call begin, and all go on with those that are there', async () => {
    const a = await bench.agent('5001');
    const b = await bench.agent('5002');
    const far = await bench.peer();
    const out = await callOut(a, far);
    const into = await callIn(kamailio, b, far, '5002');
    await drain();
    // frames and requests that come one by one are taken by different processes
    for (let i = 0; i < 12; i += 1) {
      const client = i % 2 ? a : b;
      const { type, payload } = await client.request('call', { to: to(far), sdp: fakeOffer() });
      assert.deepEqual([type, payload.code, payload.retryable], ['error', 503, true]);
      assert.equal(await invited(far, i % 2 ? '5001' : '5002'), 503);
    }
    assert.equal(far.received((m) => m.method === 'INVITE' && m.callId !== out.leg.callId).length, 0, 'nothing went out');
    assert.equal(b.received.filter((m) => m.type === 'incomingCall').length, 1);
    assert.equal((await drain()).calls, 2);
    await endCall(a, out);
    await endCall(b, into);
    assert.equal((await drain()).calls, 0);
  });

  test('no browser registers; one with a call resumes, one without does not', async () => {
    const a = await bench.agent('5001');
    const b = await bench.agent('5002');
    const far = await bench.peer();
    const call = await callOut(a, far);
    await drain();
    for (let i = 0; i < 8; i += 1) {
      const client = await bench.client();
      const { type, payload } = await client.request('register', { dn: '5003', password: 'pw5003' });
      assert.deepEqual([type, payload.code], ['registrationFailed', 503]);
    }
    assert.equal((await kamailio.rpcRows('rtc_json.agents')).length, 2, 'nothing is left of them');
    a.close(1001);
    b.close(1001);
    await Promise.all([a.whenClosed(), b.whenClosed()]);
    const again = await bench.client();
    const registered = await again.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
    assert.deepEqual(registered.calls.map(({ callId }) => callId), [call.callId]);
    await again.waitFor('notice');
    const late = await bench.client();
    const { type, payload } = await late.request('register', { dn: '5002', resume: b.registered.session });
    assert.deepEqual([type, payload.code], ['registrationFailed', 503]);
    await endCall(again, call);
    await drain(0);
    await late.expect('register', { dn: '5002', resume: b.registered.session }, 'registered');
  });

  test('taken back, all is as before', async () => {
    const a = await bench.agent('5001');
    const far = await bench.peer();
    assert.deepEqual(await health(), [200, 'ok']);
    await drain();
    assert.deepEqual(await health(), [503, 'draining'], 'a load balancer may ask for it');
    assert.equal((await drain(0)).draining, 0);
    assert.deepEqual(await health(), [200, 'ok']);
    await endCall(a, await callOut(a, far));
    await endCall(a, await callIn(kamailio, a, far, '5001'));
    await bench.agent('5002');
    // whoever was told before is told again
    await drain();
    await sleep(100);
    assert.equal(notices(a).length, 2);
  });

  test('another parameter is refused, and changes nothing', async () => {
    for (const wrong of ['2', '100000', 's:off', 's:', '10']) await assert.rejects(drain(wrong), { code: 400 }, wrong);
    assert.equal(await kamailio.stat('draining'), 0);
    assert.equal((await drain('s:1')).draining, 1);
  });

  test('a restart ends it', async () => {
    await drain();
    await kamailio.restart();
    assert.equal(await kamailio.stat('draining'), 0);
    await bench.agent('5001');
  });
});
