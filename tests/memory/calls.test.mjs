/** Calls in both directions, each way to end, refusals, rubbish: for a Kamailio that runs under valgrind, where all takes its time. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer } from '../sip/peer.mjs';
import { hopByNumber, idle, to } from '../sip/support.mjs';
import { freePort } from '../common/ports.mjs';

const slow = { ms: 60_000 };
const ROUNDS = 5;

let kamailio;
let browser;
let other;
let peer;
before(async () => {
  kamailio = await startKamailio({ mode: 'local', cfg: hopByNumber(), workers: 2, params: { call_history: 3 } });
  peer = await openPeer(kamailio.sipPort, { port: await freePort() });
  peer.onRequest((m, repeat) => { if (['BYE', 'INFO', 'MESSAGE', 'REFER'].includes(m.method) && !repeat) peer.reply(m, 200); });
  [browser, other] = await Promise.all([connect(kamailio.wsUrl, slow), connect(kamailio.wsUrl, slow)]);
  const register = (client, dn) => client.expect('register', { dn, password: `pw${dn}` }, 'registered', slow);
  await register(browser, '5001');
  await register(other, '5002');
});
after(async () => {
  await peer?.close();
  await kamailio?.stop();
});

const call = (number, sdp = fakeOffer()) => browser.send('call', { to: number, sdp, iceServers: [] });
const invite = () => peer.waitFor((m) => m.method === 'INVITE', slow.ms, 'INVITE');
const outcome = (id, type) => browser.waitFor(type, (p, m) => m.id === id, slow.ms);

test('out: answered, with digits and hold, ended by the browser and by the far side', async () => {
  for (let i = 0; i < ROUNDS; i += 1) {
    const id = call(to(peer));
    peer.reply(await invite(), 200, { body: farSdp({ setup: 'active' }) });
    const { callId } = await outcome(id, 'callAccepted');
    await browser.expect('dtmf', { callId, digit: '12#' }, 'ack', slow);
    const hold = browser.send('hold', { callId, hold: true });
    peer.reply(await invite(), 200, { body: farSdp({ setup: 'active', version: 2, direction: 'recvonly' }) });
    await outcome(hold, 'callUpdated');
    await browser.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded', slow);
  }
});

test('out: refused, cancelled, redirected, an SDP that none can take', async () => {
  for (const [status, headers, body] of [[486, [], ''], [302, ['Contact: <sip:nobody@127.0.0.1:9>'], ''], [422, ['Min-SE: 600'], ''], [200, [], 'v=0\r\nrubbish'], [600, [], '']]) {
    const id = call(to(peer));
    peer.reply(await invite(), status, { headers, body });
    if (status === 422) peer.reply(await invite(), 480);
    await outcome(id, 'error');
  }
  const id = call(to(peer));
  const ringing = await invite();
  peer.reply(ringing, 180);
  const { callId } = await browser.waitFor('callProgress', (p) => p.state === 'ringing', slow.ms);
  const hangup = browser.send('hangup', { callId, reason: 'user_hangup' });
  const cancel = await peer.waitFor((m) => m.method === 'CANCEL', slow.ms, 'CANCEL');
  peer.reply(cancel, 200);
  peer.reply(ringing, 487);
  await outcome(hangup, 'callEnded');
  assert.ok(id);
});

test('between two browsers: answered, declined', async () => {
  for (let i = 0; i < ROUNDS; i += 1) {
    const id = call('5002');
    const { callId } = await other.waitFor('incomingCall', undefined, slow.ms);
    if (i % 2) {
      await other.expect('hangup', { callId, reason: 'declined' }, 'callEnded', slow);
      await outcome(id, 'error');
    } else {
      await other.expect('answer', { callId, sdp: fakeAnswer() }, 'ack', slow);
      const accepted = await outcome(id, 'callAccepted');
      await browser.expect('hangup', { callId: accepted.callId, reason: 'user_hangup' }, 'callEnded', slow);
      await other.waitFor('callEnded', (p) => p.callId === callId, slow.ms);
    }
  }
});

test('rubbish, lists, and a browser that comes and goes', async () => {
  for (const bad of ['{', '{"type":"call"}', `{"type":"${'x'.repeat(5000)}"`]) browser.sendRaw(bad);
  assert.equal((await browser.request('hold', { callId: 'nobody', hold: true }, slow)).payload.code, 404);
  for (const line of ['agents', 'calls', 'stats', 'agent 5001']) await kamailio.rpcText(...`rtc_json.${line}`.split(' '));
  const guest = await connect(kamailio.wsUrl, slow);
  await guest.expect('register', { dn: '5003', password: 'pw5003' }, 'registered', slow);
  await guest.close();
  await until(async () => (await kamailio.stat('sessions')) <= 3, { ms: 60_000, what: 'the guest is counted' });
  await idle(kamailio, { ms: 120_000 });
  assert.equal(await kamailio.stat('step_failures'), 0);
});
