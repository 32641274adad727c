/** A browser that loses its connection, and a server that dies: what lives on, and what ends when nobody comes back. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer, Registrar } from './peer.mjs';
import { Bench, callsBecome, endsOf, hopByNumber, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

// what Kamailio itself says about a connection that was reset
const log = [/tcp_read_data\(\): error reading: Connection reset by peer/, /tcp_read_req\(\): .*error reading/];

// The websocket module tells of a lost connection after rm_delay_interval (5 s unless it is set).
const cfgExtra = `${tm({ wt_timer: 200 })}\nmodparam("websocket", "rm_delay_interval", 1)`;

const stateOf = async (dn) => (await kamailio.rpcRows('rtc_json.agents')).find((row) => String(row.dn) === dn);

/** Waits until the server has noticed that the browser is gone. */
const away = (dn, attached = 0) => until(async () => (await stateOf(dn))?.attached === attached, { ms: 8000, what: `${dn} is away` });

/** A browser that comes back on another connection. */
async function back(dn, session, more = {}) {
  const client = await bench.client();
  client.registered = await client.expect('register', { dn, displayName: `Agent ${dn}`, resume: session, ...more }, 'registered');
  return client;
}

/** A call out, answered by a bare endpoint. */
async function answered(client, peer) {
  const id = client.send('call', { to: to(peer), sdp: fakeOffer() });
  const invite = await peer.request('INVITE');
  peer.reply(invite, 200, { body: farSdp({ setup: 'active' }) });
  await peer.waitFor((m) => m.method === 'ACK' && m.callId === invite.callId);
  const { callId, sdp } = await client.waitFor('callAccepted', (p, m) => m.id === id);
  return { id, invite, callId, sdp };
}

/** Numbers of the events that came, without those of requests. */
const events = (client) => client.received.map((m) => /^evt-(\d+)$/.exec(m.id)?.[1]).filter(Boolean).map(Number);

describe('a browser comes back', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra, params: { resume_grace: 20 } });
    bench = new Bench(kamailio, { log });
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  for (const [how, lose] of [['RST', (c) => c.rst()], ['FIN', (c) => c.terminate()], ['close frame', (c) => c.close(1001)]]) {
    test(`in mid-call, after ${how}: the call is still there`, async () => {
      const peer = await bench.peer();
      const a = await bench.agent('5001');
      const { callId, sdp, id } = await answered(a, peer);
      const { session } = a.registered;
      lose(a);
      await a.whenClosed();
      await sleep(how === 'RST' ? 1100 : 0);
      const again = await back('5001', session);
      assert.equal(again.registered.session, session);
      assert.equal(again.registered.calls.length, 1);
      const [{ since, ...snapshot }] = again.registered.calls;
      assert.deepEqual(snapshot, {
        callId, direction: 'out', state: 'established', from: '5001', to: to(peer), sdp, hold: false, remoteHold: false, request: id,
      });
      assert.equal(since, how === 'RST' ? 1 : 0);
      assert.equal(peer.received((m) => m.method === 'BYE').length, 0);
      const ended = again.request('hangup', { callId, reason: 'user_hangup' });
      peer.reply(await peer.request('BYE'), 200);
      assert.equal((await ended).type, 'callEnded');
      assert.equal((await stateOf('5001')).sessions, 1);
    });
  }

  test('on a new connection while the old one seems alive: the old one is closed', async () => {
    const a = await bench.agent('5001');
    const again = await back('5001', a.registered.session);
    assert.equal((await a.whenClosed()).code, 1000);
    await sleep(200);
    assert.deepEqual([(await stateOf('5001')).sessions, (await stateOf('5001')).attached], [1, 1], 'the late news of the close does no harm');
    assert.equal((await again.request('ping')).type, 'pong');
  });

  test('a wrong token is refused, and another number\'s token, too', async () => {
    const a = await bench.agent('5001');
    const b = await bench.agent('5002');
    const stranger = await bench.client();
    const token = a.registered.session;
    for (const resume of ['x', `${token}x`, token.slice(0, -1), token.toLowerCase() === token ? token.toUpperCase() : token.toLowerCase(), b.registered.session]) {
      const { type, payload } = await stranger.request('register', { dn: '5001', resume });
      assert.deepEqual([type, payload.code], ['registrationFailed', 401], resume);
    }
    assert.equal((await a.request('ping')).type, 'pong');
    assert.equal((await stateOf('5001')).sessions, 1);
    // with the password it is a new session
    const fresh = await stranger.register('5001', { resume: 'x' });
    assert.notEqual(fresh.session, token);
    assert.equal((await stateOf('5001')).sessions, 2);
  });

  test('an end that the browser missed is told, once', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { callId, invite } = await answered(a, peer);
    const { session } = a.registered;
    a.rst();
    await away('5001');
    assert.equal((await peer.legOf(invite).bye()).status, 200);
    const again = await back('5001', session);
    assert.deepEqual(again.registered.calls, []);
    const ended = await again.waitFor('callEnded');
    assert.deepEqual([ended.callId, ended.reason], [callId, 'normal_clearing']);
    again.rst();
    await away('5001');
    const third = await back('5001', session);
    await third.never('callEnded', 200);
  });

  test('an end that could not be sent, because nobody had noticed yet, is told, too', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { callId, invite } = await answered(a, peer);
    a.rst();
    await sleep(50);
    assert.equal((await stateOf('5001')).attached, 1, 'not noticed yet, or this tests nothing');
    assert.equal((await peer.legOf(invite).bye()).status, 200);
    const again = await back('5001', a.registered.session);
    assert.equal((await again.waitFor('callEnded', undefined, 1000)).callId, callId);
  });

  test('`last` says what the browser has seen: exactly the later events come', async () => {
    const a = await bench.agent('5001');
    const peer = await bench.peer();
    const ids = [];
    for (let i = 0; i < 3; i += 1) {
      const { callId, invite } = await answered(a, peer);
      ids.push(callId);
      assert.equal((await peer.legOf(invite).bye()).status, 200);
      await a.waitFor('callEnded', (p) => p.callId === callId);
    }
    const numbers = events(a);
    assert.deepEqual(numbers, [...numbers].sort((x, y) => x - y));
    assert.equal(new Set(numbers).size, numbers.length);
    const endEvents = a.received.filter((m) => m.type === 'callEnded').map((m) => Number(m.id.slice(4)));
    let client = a;
    for (const [last, missed] of [[endEvents[0], ids.slice(1)], [endEvents[1], ids.slice(2)], [endEvents[2], []], [0, ids]]) {
      client.rst();
      await away('5001');
      client = await back('5001', a.registered.session, { last });
      await until(() => client.received.length >= 1 + missed.length);
      await sleep(100);
      assert.deepEqual(client.received.slice(1).map((m) => m.payload.callId), missed, `last ${last}`);
    }
  });

  test('a `call` sent again with the same id places no second call, and has its outcome', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { session } = a.registered;
    const wanted = { to: to(peer), sdp: fakeOffer() };
    a.send('call', wanted, { id: 'call-1' });
    const invite = await peer.request('INVITE');
    peer.reply(invite, 180);
    const { callId } = await a.waitFor('callProgress', (p) => p.state === 'ringing');
    a.rst();
    await away('5001');
    const b = await back('5001', session);
    assert.deepEqual([b.registered.calls[0].state, b.registered.calls[0].callId, b.registered.calls[0].request], ['ringing', callId, 'call-1']);
    b.send('call', wanted, { id: 'call-1' });
    assert.equal((await b.waitFor('callProgress', (p) => p.state === 'trying')).callId, callId);
    b.rst();
    await away('5001');
    // answered while nobody is there
    peer.reply(invite, 200, { body: farSdp({ setup: 'active' }) });
    await peer.request('ACK');
    const c = await back('5001', session);
    assert.equal(c.registered.calls[0].state, 'established');
    const accepted = await c.expect('call', wanted, 'callAccepted', { id: 'call-1' });
    assert.deepEqual([accepted.callId, accepted.sdp], [callId, c.registered.calls[0].sdp]);
    // the same for its hang-up
    const first = c.request('hangup', { callId, reason: 'user_hangup' }, { id: 'end-1' });
    peer.reply(await peer.request('BYE'), 200);
    c.rst();
    await away('5001');
    const d = await back('5001', session);
    assert.deepEqual((await d.request('hangup', { callId, reason: 'user_hangup' }, { id: 'end-1' })).payload, (await first).payload);
    const over = await d.request('call', wanted, { id: 'call-1' });
    assert.deepEqual([over.type, over.payload.code, over.payload.callId], ['error', 404, callId]);
    await sleep(200);
    assert.equal(peer.received((m) => m.method === 'INVITE').length, 1, 'one INVITE');
    assert.equal(peer.received((m) => m.method === 'BYE').length, 1, 'one BYE');
    assert.equal((await kamailio.rpcRows('rtc_json.calls')).length, 0);
  });

  test('a call that failed while the browser was away: the retry has the error', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const wanted = { to: to(peer), sdp: fakeOffer() };
    a.send('call', wanted, { id: 'call-1' });
    const invite = await peer.request('INVITE');
    const { callId } = await a.waitFor('callProgress');
    a.rst();
    await away('5001');
    peer.reply(invite, 486);
    await peer.request('ACK');
    const b = await back('5001', a.registered.session);
    assert.deepEqual(b.registered.calls, []);
    assert.equal((await b.waitFor('callEnded')).reason, 'user_busy');
    const error = await b.expect('call', wanted, 'error', { id: 'call-1' });
    assert.deepEqual([error.code, error.details, error.callId], [486, 'user_busy', callId]);
    await sleep(100);
    assert.equal(peer.received((m) => m.method === 'INVITE').length, 1);
  });

  test('the server remembers sixteen requests, no more', async () => {
    const a = await bench.agent('5001');
    for (let i = 0; i < 17; i += 1) await a.request('hangup', { callId: `none-${i}`, reason: '' }, { id: `h-${i}` });
    // a retry is known by its id alone, so another callId shows whether it was done anew
    const again = (i) => a.request('hangup', { callId: 'other', reason: '' }, { id: `h-${i}` }).then((m) => m.payload.callId);
    assert.equal(await again(16), 'none-16');
    assert.equal(await again(1), 'none-1');
    assert.equal(await again(0), 'other');
  });

  test('a call that comes in while the browser is away rings when it is back', async () => {
    const b = await bench.agent('5002');
    b.rst();
    await away('5002');
    const peer = await bench.peer();
    const leg = peer.leg('5002');
    leg.invite();
    await leg.reply(leg.inviteBranch, (s) => s === 180);
    const again = await back('5002', b.registered.session);
    const [call] = again.registered.calls;
    assert.deepEqual([call.direction, call.state, call.from, call.to, call.displayName], ['in', 'incoming', 'far', '5002', 'Far Side']);
    assert.match(call.sdp, /^a=setup:actpass\r$/m);
    await again.expect('answer', { callId: call.callId, sdp: fakeAnswer() }, 'ack');
    leg.ack(await leg.answer());
    assert.equal((await leg.bye()).status, 200);
    assert.equal((await again.waitFor('callEnded')).callId, call.callId);
  });

  test('a page loaded anew, with the password only, gets a new session; the call stays with the old one', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { callId } = await answered(a, peer);
    a.rst();
    await away('5001');
    const fresh = await bench.agent('5001');
    assert.deepEqual(fresh.registered.calls, []);
    assert.equal((await stateOf('5001')).sessions, 2);
    const again = await back('5001', a.registered.session);
    const ended = again.request('hangup', { callId, reason: 'user_hangup' });
    peer.reply(await peer.request('BYE'), 200);
    await ended;
    assert.equal(endsOf(fresh, callId).length, 0);
  });
});

describe('a browser does not come back', () => {
  const grace = 2;
  /** @type {import('./peer.mjs').Peer} */
  let registrarPeer;
  /** @type {Registrar} */
  let registrar;
  before(async () => {
    const port = await freePort();
    kamailio = await startKamailio({
      mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfg: hopByNumber(), cfgExtra, params: { resume_grace: grace },
    });
    registrarPeer = await openPeer(kamailio.sipPort, { port });
    registrar = new Registrar(registrarPeer, { realm });
    bench = new Bench(kamailio, { log });
  });
  after(async () => { await kamailio?.stop(); await registrarPeer?.close(); });
  afterEach(() => bench.finish());

  test('after resume_grace the far side gets BYE, the ringing caller 480, the registrar Expires 0', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { invite } = await answered(a, peer);
    const ringing = peer.leg('5001');
    ringing.invite();
    await a.waitFor('incomingCall');
    assert.equal(registrar.bindings.size, 1);
    const lost = await kamailio.stat('sessions_lost');
    a.rst();
    await away('5001');
    const since = performance.now();
    const bye = await peer.waitFor((m) => m.method === 'BYE' && m.callId === invite.callId);
    const after = performance.now() - since;
    assert.ok(after > (grace - 0.5) * 1000 && after < (grace + 1) * 1000, `${after} ms`);
    peer.reply(bye, 200);
    const refusal = await ringing.answer();
    assert.equal(refusal.status, 480);
    ringing.ack(refusal);
    await until(() => registrar.bindings.size === 0, { what: 'the binding is gone' });
    assert.equal(registrar.requests.at(-1).header('Expires'), '0');
    await until(async () => await stateOf('5001') === undefined, { what: 'the agent is gone' });
    assert.equal(await kamailio.stat('sessions_lost'), lost + 1);
    const late = await bench.client();
    const { type, payload } = await late.request('register', { dn: '5001', resume: a.registered.session });
    assert.deepEqual([type, payload.code], ['registrationFailed', 401]);
  });

  test('while it rings outbound: CANCEL', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    a.send('call', { to: to(peer), sdp: fakeOffer() });
    const invite = await peer.request('INVITE');
    peer.reply(invite, 180);
    await a.waitFor('callProgress', (p) => p.state === 'ringing');
    a.terminate();
    const cancel = await peer.request('CANCEL', 8000);
    peer.reply(cancel, 200);
    peer.reply(invite, 487);
    await peer.request('ACK');
    await until(() => registrar.bindings.size === 0);
  });

  for (const [how, lose] of [['RST', (c) => c.rst()], ['a close frame', (c) => c.close()]]) {
    test(`the connection goes by ${how} while the registrar thinks: what it grants is taken back`, async () => {
      registrar.delay = 400;
      try {
        const a = await bench.client();
        const ofThis = () => registrar.requests.filter((m) => m.header('To').includes('5003'));
        const before = ofThis().length;
        a.send('register', { dn: '5003', password: 'pw5003', displayName: '' });
        await until(() => ofThis().length === before + 2, { what: 'the REGISTER with the digest' });
        lose(a);
        await until(() => registrar.bindings.has('5003'));
        await until(() => !registrar.bindings.has('5003'), { ms: (grace + 4) * 1000, what: 'the binding is taken back' });
      } finally { registrar.delay = 0; }
    });
  }

  test('one browser goes for good, the other of the same number goes on', async () => {
    const [a, b] = [await bench.agent('5001'), await bench.agent('5001')];
    a.rst();
    await until(async () => (await stateOf('5001')).sessions === 1, { ms: 8000 });
    assert.equal(registrar.bindings.size, 1);
    assert.equal((await b.request('ping')).type, 'pong');
    await b.expect('unregister', {}, 'unregistered');
    await until(() => registrar.bindings.size === 0);
  });
});

describe('Kamailio is killed', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra, params: { resume_grace: 10 } });
    // what the next start says about the pid file of the one before
    bench = new Bench(kamailio, { log: [...log, /pid file contains old pid/] });
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('in mid-call, and started again: the call is there, and hang-up reaches the far side', async () => {
    const far = await bench.far('uas-answer');
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const b = await bench.agent('5002');
    const id = a.send('call', { to: to(far), sdp: fakeOffer() });
    const { callId } = await a.waitFor('callAccepted', (p, m) => m.id === id);
    // a second one that only rings: its transaction dies with Kamailio
    const trying = a.send('call', { to: to(peer), sdp: fakeOffer() });
    peer.reply(await peer.request('INVITE'), 180);
    const ringing = await a.waitFor('callProgress', (p) => p.request === trying && p.state === 'ringing');
    // and one that came in
    const leg = peer.leg('5002');
    leg.invite();
    const incoming = await b.waitFor('incomingCall');
    await b.expect('answer', { callId: incoming.callId, sdp: fakeAnswer() }, 'ack');
    leg.ack(await leg.answer());
    await callsBecome(kamailio, (rows) => rows.filter((row) => row.state === 'established').length === 2);

    await kamailio.kill9();
    await Promise.all([a.whenClosed(), b.whenClosed()]);
    await kamailio.start();

    const again = await back('5001', a.registered.session);
    assert.deepEqual(again.registered.calls.map((c) => [c.callId, c.state]), [[callId, 'established']]);
    const lost = await again.waitFor('callEnded');
    assert.deepEqual([lost.callId, lost.reason], [ringing.callId, 'service_unavailable']);
    assert.equal((await again.request('call', { to: to(peer), sdp: fakeOffer() }, { id: trying })).payload.code, 503, 'its outcome is remembered');
    assert.equal(await kamailio.stat('calls'), 2);
    const ended = await again.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    assert.equal(ended.reason, 'normal_clearing');
    await far.ok();

    // the other agent's browser has not come back yet; its far side hangs up
    assert.equal((await leg.bye()).status, 200);
    const second = await back('5002', b.registered.session);
    assert.deepEqual(second.registered.calls, []);
    assert.equal((await second.waitFor('callEnded')).callId, incoming.callId);
  });

  test('the token of before the kill is good, the connection numbers of before are not mixed up', async () => {
    const a = await bench.agent('5001');
    await kamailio.kill9();
    await kamailio.start();
    // takes the number that a's connection had
    const b = await bench.agent('5002');
    await away('5001');
    assert.equal((await stateOf('5002')).attached, 1);
    await b.close();
    await away('5002');
    const again = await back('5001', a.registered.session);
    assert.equal((await again.request('ping')).type, 'pong');
    const other = await back('5002', b.registered.session);
    assert.equal((await other.request('ping')).type, 'pong');
  });

  test('ended in good order and started again: the same', async () => {
    const far = await bench.far('uas-answer');
    const a = await bench.agent('5001');
    const id = a.send('call', { to: to(far), sdp: fakeOffer() });
    const { callId } = await a.waitFor('callAccepted', (p, m) => m.id === id);
    await kamailio.restart();
    const again = await back('5001', a.registered.session);
    assert.deepEqual(again.registered.calls.map((c) => c.callId), [callId]);
    await again.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    await far.ok();
  });
});
