/** Who calls, and what comes with the call: identities, privacy, diversion, header fields in and out. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { answerTo } from '../common/digest.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp } from './peer.mjs';
import { Bench, hopByNumber, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const timers = tm({ fr_timer: 1500, wt_timer: 200 });
const identity = ['P-Asserted-Identity: "Real, Name" <sip:+4912@net;user=phone>, <tel:+4912>', 'Diversion: <sip:+4913@net>;reason=no-answer'];
const data = ['X-Genesys-CallUUID: 00F2;a="b, c"', 'x-genesys-queue: Sales\r\n and more', 'User-to-User: 56a390f3d2b7310023;encoding=hex', 'X-Other: secret'];

/** A call from a new endpoint with those header fields, and what the browser learns of it; the call is refused then. */
async function pop(agent, headers, options = {}) {
  const peer = await bench.peer();
  const leg = peer.leg('5001', { local: `"Far Side" <sip:1003@127.0.0.1:${peer.port}>`, ...options });
  leg.invite({ headers });
  const call = await agent.waitFor('incomingCall');
  const rows = await kamailio.rpcRows('rtc_json.calls');
  assert.equal(String(rows[0].peer), call.from);
  await agent.expect('hangup', { callId: call.callId, reason: 'busy' }, 'callEnded');
  const final = await leg.answer();
  leg.ack(final);
  return call;
}

/** The fields of an INVITE by which the far side is told something. */
const fieldsOf = (message) => Object.fromEntries(['P-Asserted-Identity', 'Privacy', 'X-Genesys-Case', 'User-to-User', 'Diversion']
  .map((name) => [name, message.headers(name)]).filter(([, values]) => values.length));

describe('from a trusted peer', () => {
  before(async () => {
    kamailio = await startKamailio({
      cfg: hopByNumber(), cfgExtra: timers,
      params: { headers_out: 'X-Genesys-*,User-to-User,Diversion,Privacy,P-Asserted-Identity', trusted_peers: '127.0.0.1' },
    });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('the asserted identity, the diversion and the fields that are allowed', async () => {
    const a = await bench.agent('5001');
    const call = await pop(a, [...identity, ...data]);
    assert.deepEqual([call.from, call.displayName, call.to, call.diversion], ['+4912', 'Real, Name', '5001', '+4913']);
    assert.deepEqual(call.headers, {
      'X-Genesys-CallUUID': '00F2;a="b, c"', 'x-genesys-queue': 'Sales and more', 'User-to-User': '56a390f3d2b7310023;encoding=hex',
      'P-Asserted-Identity': '"Real, Name" <sip:+4912@net;user=phone>, <tel:+4912>', Diversion: '<sip:+4913@net>;reason=no-answer',
    });
  });

  test('without any of it: From', async () => {
    const call = await pop(await bench.agent('5001'), []);
    assert.deepEqual([call.from, call.displayName, call.headers, call.diversion], ['1003', 'Far Side', undefined, undefined]);
  });

  for (const privacy of ['id', 'user;critical', 'header']) {
    test(`Privacy: ${privacy}`, async () => {
      const call = await pop(await bench.agent('5001'), [...identity, ...data, `Privacy: ${privacy}`]);
      assert.deepEqual([call.from, call.displayName, call.diversion], ['anonymous', '', undefined]);
      assert.deepEqual(Object.keys(call.headers).sort(), ['User-to-User', 'X-Genesys-CallUUID', 'x-genesys-queue']);
      assert.doesNotMatch(JSON.stringify({ ...call, sdp: '' }), /4912|4913|1003|Far Side|Real/);
    });
  }

  test('Privacy: none', async () => {
    const call = await pop(await bench.agent('5001'), [...identity, 'Privacy: none']);
    assert.equal(call.from, '+4912');
  });

  test('a flood of fields is cut at whole fields', async () => {
    const many = Array.from({ length: 60 }, (_, i) => `X-Genesys-${i}: ${'v'.repeat(i === 3 ? 2000 : 100)}`);
    const { headers } = await pop(await bench.agent('5001'), many);
    const names = Object.keys(headers);
    assert.equal(names.length, 32);
    assert.ok(names.includes('X-Genesys-0') && !names.includes('X-Genesys-3'));
    assert.ok(Object.values(headers).every((v) => v.length === 100));
  });

  test('out: the agent is asserted, and what the browser adds goes along', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const headers = { 'X-Genesys-Case': 'a;b="c"', 'User-to-User': '00ff;encoding=hex', Privacy: 'id' };
    const id = a.send('call', { to: to(peer), sdp: fakeOffer(), displayName: 'Any Name', headers });
    const invite = await peer.request('INVITE');
    assert.deepEqual(fieldsOf(invite), {
      'P-Asserted-Identity': ['<sip:5001@127.0.0.1>'], Privacy: ['id'], 'X-Genesys-Case': ['a;b="c"'], 'User-to-User': ['00ff;encoding=hex'],
    });
    peer.reply(invite, 486);
    assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 486);
  });

  test('out: what is not allowed is refused with its name, and an identity always', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    for (const name of ['P-Asserted-Identity', 'p-asserted-identity', 'X-Other', 'Via', 'v', 'f']) {
      const { type, payload } = await a.request('call', { to: to(peer), sdp: fakeOffer(), headers: { 'X-Genesys-Case': '1', [name]: 'x' } });
      assert.deepEqual([type, payload.code], ['error', 403], name);
      assert.ok(payload.details.includes(name), payload.details);
    }
    for (const value of ['a\r\nVia: x', 'a\0']) {
      assert.equal((await a.request('call', { to: to(peer), sdp: fakeOffer(), headers: { 'X-Genesys-Case': value } })).payload.code, 400);
    }
    assert.equal(peer.received((m) => m.method === 'INVITE').length, 0);
  });

  test('out: added again when the INVITE is', async () => {
    const [a, peer] = [await bench.client(), await bench.peer()];
    const first = await a.expect('register', { dn: '5001' }, 'challenge');
    await a.expect('register', { dn: '5001', displayName: '', digest: answerTo(first, '5001', 'pw5001') }, 'registered');
    const id = a.send('call', { to: to(peer), sdp: fakeOffer(), headers: { 'X-Genesys-Case': '7' } });
    peer.reply(await peer.request('INVITE'), 407, { headers: ['Proxy-Authenticate: Digest realm="x", nonce="n", qop="auth"'] });
    const { callId } = await a.waitFor('challenge', (p) => p.callId);
    const digest = { nonce: 'n', response: '0'.repeat(32), qop: 'auth', nc: '00000001', cnonce: 'c' };
    await a.expect('digest', { callId, digest }, 'ack');
    const again = await peer.request('INVITE');
    assert.deepEqual(fieldsOf(again), { 'P-Asserted-Identity': ['<sip:5001@127.0.0.1>'], 'X-Genesys-Case': ['7'] });
    peer.reply(again, 200, { body: farSdp({ setup: 'active' }) });
    await a.waitFor('callAccepted', (p, m) => m.id === id);
    const ended = a.request('hangup', { callId, reason: 'user_hangup' });
    peer.reply(await peer.request('BYE'), 200);
    await ended;
  });

  test('from agent to agent', async () => {
    const [a, b] = [await bench.agent('5001'), await bench.agent('5002')];
    const id = a.send('call', { to: '5002', sdp: fakeOffer(), headers: { 'X-Genesys-Case': '9' } });
    const call = await b.waitFor('incomingCall');
    assert.deepEqual([call.from, call.displayName, call.headers['X-Genesys-Case']], ['5001', 'Agent 5001', '9']);
    await b.expect('answer', { callId: call.callId, sdp: fakeAnswer() }, 'ack');
    const { callId } = await a.waitFor('callAccepted', (p, m) => m.id === id);
    await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    await b.waitFor('callEnded');
    // one who does not want to be known
    a.send('call', { to: '5002', sdp: fakeOffer(), headers: { Privacy: 'id' } });
    const hidden = await b.waitFor('incomingCall');
    assert.deepEqual([hidden.from, hidden.displayName, hidden.headers], ['anonymous', '', undefined]);
    await b.expect('hangup', { callId: hidden.callId, reason: 'busy' }, 'callEnded');
    await a.waitFor('error');
  });
});

describe('from a stranger', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: timers, params: { trusted_peers: 'none', headers_in: 'P-Asserted-Identity,Remote-Party-ID,X-*' } });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('an identity that he asserts is neither used nor shown; that he wants privacy is believed', async () => {
    const a = await bench.agent('5001');
    const call = await pop(a, [...identity, 'Remote-Party-ID: <sip:+4912@net>', 'X-Other: shown']);
    assert.deepEqual([call.from, call.displayName, call.headers], ['1003', 'Far Side', { 'X-Other': 'shown' }]);
    assert.equal((await pop(a, ['Privacy: id'])).from, 'anonymous');
  });

  test('the list of headers_out by default', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const id = a.send('call', { to: to(peer), sdp: fakeOffer(), headers: { Diversion: '<sip:5009@x>' } });
    const invite = await peer.request('INVITE');
    assert.deepEqual(fieldsOf(invite), { 'P-Asserted-Identity': ['<sip:5001@127.0.0.1>'], Diversion: ['<sip:5009@x>'] });
    peer.reply(invite, 486);
    await a.waitFor('error', (p, m) => m.id === id);
    assert.equal((await a.request('call', { to: to(peer), sdp: fakeOffer(), headers: { Privacy: 'id' } })).payload.code, 403);
  });
});
