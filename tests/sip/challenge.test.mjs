/** Registering without telling the server a secret: challenges that the browser answers, here and at a registrar. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { answerTo, checkDigest, digestFields, ha1 } from '../common/digest.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer, Registrar } from './peer.mjs';
import { Bench, endsOf, Secrets, tm } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const secrets = new Secrets();
for (const dn of ['5001', '5002', '5003']) {
  secrets.add('the password', `pw${dn}`);
  for (const algorithm of ['MD5', 'SHA-256']) secrets.add('HA1', ha1(dn, realm, `pw${dn}`, algorithm));
}

/** An answer whose parts must not be seen anywhere but at the registrar. */
function secretly(challenge, dn, password = `pw${dn}`) {
  const digest = answerTo(challenge, dn, password);
  secrets.add('a response', digest.response);
  if (digest.cnonce) secrets.add('a client nonce', digest.cnonce);
  return digest;
}

const row = async (dn) => (await kamailio.rpcRows('rtc_json.agents')).find((r) => String(r.dn) === dn);

/** Asks to be challenged. */
const challenged = (client, dn) => client.expect('register', { dn }, 'challenge');

/** The outcome of an answer. */
const answer = (client, dn, digest, more = {}) => client.request('register', { dn, displayName: `Agent ${dn}`, digest, ...more });

/** Registers without a password. */
async function agent(dn) {
  const client = await bench.client();
  const { type, payload } = await answer(client, dn, secretly(await challenged(client, dn), dn));
  assert.equal(type, 'registered', JSON.stringify(payload));
  secrets.add('a session token', payload.session);
  client.registered = payload;
  return client;
}

describe('agents of the table', () => {
  before(async () => {
    kamailio = await startKamailio({ params: { log_messages: 1 }, cfgExtra: tm({ wt_timer: 200 }) });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('the server challenges, the browser answers', async () => {
    const a = await bench.client();
    const challenge = await challenged(a, '5001');
    assert.deepEqual({ ...challenge, nonce: typeof challenge.nonce }, {
      realm, nonce: 'string', algorithm: 'MD5', qop: 'auth', method: 'REGISTER', uri: 'sip:127.0.0.1',
    });
    assert.ok(challenge.nonce.length >= 22, '128 bits');
    const { type, payload } = await answer(a, '5001', secretly(challenge, '5001'));
    assert.equal(type, 'registered');
    assert.deepEqual([payload.dn, payload.protocol, (await row('5001')).displayName], ['5001', 1, 'Agent 5001']);
    assert.deepEqual(secrets.in(a.log.filter((e) => e.dir === 'out').map((e) => e.raw).join('\n')).filter((s) => /password|HA1/.test(s)), []);
  });

  test('a wrong answer and an unknown number get the same', async () => {
    const a = await bench.client();
    const [known, unknown] = [await challenged(a, '5001'), await challenged(a, '4711')];
    assert.deepEqual({ ...unknown, nonce: '' }, { ...known, nonce: '' });
    const first = await answer(a, '5001', secretly(await challenged(a, '5001'), '5001', secrets.wrong()));
    const second = await answer(a, '4711', secretly(await challenged(a, '4711'), '4711', secrets.wrong()));
    assert.deepEqual([first.type, first.payload], ['registrationFailed', { reason: 'Forbidden', code: 403 }]);
    assert.deepEqual([second.type, second.payload], [first.type, first.payload]);
    // the right one works on the same connection at once
    assert.equal((await answer(a, '5001', secretly(await challenged(a, '5001'), '5001'))).type, 'registered');
  });

  test('an answer serves once, on its own connection', async () => {
    const [a, b] = [await bench.client(), await bench.client()];
    const challenge = await challenged(a, '5001');
    const digest = secretly(challenge, '5001');
    const stolen = await answer(b, '5001', digest);
    assert.equal(stolen.type, 'challenge', 'overheard and sent by another');
    assert.equal((await answer(a, '5001', digest)).type, 'registered');
    assert.equal((await answer(b, '5001', digest)).type, 'challenge', 'and afterwards');
    await a.expect('unregister', {}, 'unregistered');
    const replayed = await answer(a, '5001', digest);
    assert.equal(replayed.type, 'challenge', 'replayed on its own connection');
    assert.notEqual(replayed.payload.nonce, challenge.nonce);
    assert.equal(await row('5001').then((r) => r?.sessions ?? 0), 0);
    // the wrong answer uses it up as well
    await answer(a, '5001', secretly(replayed.payload, '5001', secrets.wrong()));
    assert.equal((await answer(a, '5001', secretly(replayed.payload, '5001'))).type, 'challenge');
  });

  test('an answer of the wrong form is told what is wrong', async () => {
    const a = await bench.client();
    for (const [change, names] of [
      [{ uri: 'sip:elsewhere' }, 'digest.uri'], [{ realm: 'elsewhere' }, 'digest.realm'], [{ username: '5002' }, 'digest.username'],
      [{ algorithm: 'SHA-256' }, 'digest.algorithm'], [{ response: '00' }, 'digest.response'], [{ qop: undefined }, 'qop'],
    ]) {
      const { type, payload } = await answer(a, '5001', { ...secretly(await challenged(a, '5001'), '5001'), ...change });
      assert.deepEqual([type, payload.code], ['registrationFailed', 400], JSON.stringify(change));
      assert.ok(payload.reason.includes(names), payload.reason);
    }
    for (const bad of [{ nonce: 'a"b' }, { cnonce: 'a\r\nb' }, { nc: '1' }, { nonce: 7 }]) {
      const { type, payload } = await answer(a, '5001', { ...secretly(await challenged(a, '5001'), '5001'), ...bad });
      assert.deepEqual([type, payload.code], ['error', 400], JSON.stringify(bad));
    }
    assert.equal((await a.request('ping')).type, 'pong');
  });

  test('a browser that knocks at many numbers leaves no record behind', async () => {
    const a = await bench.client();
    const before = await kamailio.stat('arena_records');
    for (let dn = 6001; dn <= 6030; dn += 1) await challenged(a, String(dn));
    assert.ok(await kamailio.stat('arena_records') <= before + 2, 'the connection and the last number');
    await a.close();
    await until(async () => await row('6030') === undefined, { ms: 8000, what: 'the last record is gone' });
    assert.ok(await kamailio.stat('arena_records') <= before);
  });

  test('registered like that, it calls and is called', async () => {
    const [a, b] = [await agent('5001'), await agent('5002')];
    const id = a.send('call', { to: '5002', sdp: fakeOffer() });
    const { callId, from } = await b.waitFor('incomingCall');
    assert.equal(from, '5001');
    await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    const accepted = await a.waitFor('callAccepted', (p, m) => m.id === id);
    await a.expect('hangup', { callId: accepted.callId, reason: 'user_hangup' }, 'callEnded');
    await b.waitFor('callEnded');
  });

  test('nobody has asked: a digest out of the blue', async () => {
    const a = await agent('5001');
    const digest = { nonce: 'n', response: '0'.repeat(32) };
    assert.equal((await a.request('digest', { digest })).payload.code, 409);
    assert.equal((await a.request('digest', { callId: 'x', digest })).payload.code, 404);
  });

  test('neither the log nor RPC shows a response, a password or a token', () => secrets.notShown(kamailio, ['5001', '5002', '4711']));
});

describe('agents that a registrar knows', () => {
  let port;
  /** @type {import('./peer.mjs').Peer} */
  let peer;

  /** A registrar of our own at the next hop, for one test; each of its nonces serves once. */
  async function registrar(options = {}) {
    peer = await openPeer(kamailio.sipPort, { port });
    return new Registrar(peer, { realm, once: true, ...options });
  }

  async function leave(client, dn) {
    await client.expect('unregister', {}, 'unregistered');
    await until(async () => await row(dn) === undefined, { what: `${dn} has gone` });
  }

  before(async () => {
    port = await freePort();
    kamailio = await startKamailio({
      mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }), params: { log_messages: 1 },
    });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(async () => {
    try { await bench.finish(); } finally { await peer?.close(); peer = undefined; }
  });

  test('its challenge goes to the browser, the answer back, both as they are', async () => {
    const r = await registrar({ algorithms: ['MD5', 'SHA-512-256', 'SHA-256'] });
    const a = await agent('5001');
    const [first, second] = r.requests;
    assert.deepEqual([r.requests.length, first.header('Authorization'), second.callId], [2, undefined, first.callId]);
    const given = second.header('Authorization');
    assert.ok(checkDigest(given, { method: 'REGISTER', password: 'pw5001' }), given);
    const fields = digestFields(given);
    assert.deepEqual([fields.username, fields.uri, fields.algorithm, fields.qop, fields.nc], ['5001', 'sip:127.0.0.1', 'SHA-256', 'auth', '00000001']);
    const sent = a.log.find((e) => e.dir === 'in' && e.message.type === 'challenge').raw;
    assert.match(fields.opaque, /^opaque/);
    assert.ok(!sent.includes('opaque'), 'that is between the registrar and the server');
    assert.equal(r.bindings.size, 1);
    assert.equal((await row('5001')).upstream, 1);
    await leave(a, '5001');
  });

  test('a wrong answer is refused, and does no harm to one who is there', async () => {
    const r = await registrar();
    const [a, b] = [await agent('5001'), await bench.client()];
    const { type, payload } = await answer(b, '5001', secretly(await challenged(b, '5001'), '5001', secrets.wrong()));
    assert.deepEqual([type, payload], ['registrationFailed', { reason: 'Forbidden', code: 403 }]);
    assert.deepEqual([(await row('5001')).sessions, r.bindings.size], [1, 1]);
    await leave(a, '5001');
  });

  test('a stale nonce is challenged again', async () => {
    const r = await registrar({ stale: 2 });
    const a = await bench.client();
    const first = await challenged(a, '5001');
    const again = await answer(a, '5001', secretly(first, '5001'));
    assert.equal(again.type, 'challenge');
    assert.notEqual(again.payload.nonce, first.nonce);
    assert.equal((await answer(a, '5001', secretly(again.payload, '5001'))).type, 'registered');
    assert.equal(r.requests.length, 3);
    await leave(a, '5001');
  });

  test('an answer that is replayed never reaches the registrar', async () => {
    const r = await registrar();
    const [a, b] = [await bench.client(), await bench.client()];
    const digest = secretly(await challenged(a, '5001'), '5001');
    assert.equal((await answer(a, '5001', digest)).type, 'registered');
    for (const client of [a, b]) assert.equal((await answer(client, '5001', digest)).type, 'challenge');
    assert.equal(r.requests.filter((m) => m.header('Authorization')?.includes(digest.response)).length, 1);
    // the challenges that both have now are answered or end with the connection
    await b.close();
    assert.equal((await answer(a, '5001', { ...digest, nonce: 'other' })).type, 'challenge');
    const last = await challenged(a, '5001');
    assert.equal((await answer(a, '5001', secretly(last, '5001'))).type, 'registered');
    await leave(a, '5001');
  });

  test('the refresh: the browser answers, and the registration goes on', async () => {
    const r = await registrar({ granted: 6 });
    const a = await agent('5001');
    for (let round = 1; round <= 2; round += 1) {
      const challenge = await a.waitFor('challenge', (_, m) => /^evt-/.test(m.id), 6000);
      assert.deepEqual([challenge.method, challenge.callId], ['REGISTER', undefined]);
      assert.deepEqual(await a.expect('digest', { digest: secretly(challenge, '5001') }, 'ack'), {});
      await until(() => r.requests.filter((m) => m.header('Authorization')).length === round + 1, { what: 'the answer is at the registrar' });
    }
    assert.ok(r.requests.every((m) => m.header('Expires') !== '0'));
    assert.equal(r.bindings.size, 1);
    assert.ok(!a.received.some((m) => m.type === 'unregistered'));
    await leave(a, '5001');
  });

  test('the refresh: nobody answers, and the browser is told at the end', async () => {
    await registrar({ granted: 6 });
    const a = await agent('5001');
    const ping = setInterval(() => a.send('ping'), 1000); // it is not for silence that it ends
    try {
      await a.waitFor('challenge', (_, m) => /^evt-/.test(m.id), 6000);
      await a.never('unregistered', 8000);
      assert.deepEqual(await a.waitFor('unregistered', undefined, 6000), { dn: '5001', reason: 'expired' });
    } finally { clearInterval(ping); }
    await until(async () => await row('5001') === undefined);
  });

  for (const [status, field, header] of [[401, 'WWW-Authenticate', 'Authorization'], [407, 'Proxy-Authenticate', 'Proxy-Authorization']]) {
    test(`a call is challenged with ${status}`, async () => {
      await registrar();
      const a = await agent('5001');
      const id = a.send('call', { to: '600', sdp: fakeOffer() });
      const first = await peer.request('INVITE');
      const ask = (nonce) => ({ headers: [`${field}: Digest realm="${realm}", nonce="${nonce}", algorithm=SHA-256, qop="auth", opaque="o-${nonce}"`] });
      peer.reply(first, status, ask('call-1'));
      const challenge = await a.waitFor('challenge', (p) => p.method === 'INVITE');
      const { callId } = await a.waitFor('callProgress', (p) => p.request === id);
      assert.deepEqual([challenge.callId, challenge.uri], [callId, 'sip:600@127.0.0.1']);
      assert.equal((await a.request('digest', { callId, digest: { ...secretly(challenge, '5001'), nonce: 'other' } })).payload.code, 400);
      const digest = secretly(challenge, '5001');
      assert.deepEqual(await a.expect('digest', { callId, digest }, 'ack'), { callId });
      const second = await peer.request('INVITE');
      const given = second.header(header);
      assert.ok(checkDigest(given, { method: 'INVITE', password: 'pw5001' }), second.text);
      assert.equal(digestFields(given).opaque, 'o-call-1');
      assert.deepEqual([second.callId, second.cseq, second.body], [first.callId, first.cseq + 1, first.body]);
      assert.equal((await a.request('digest', { callId, digest })).payload.code, 409, 'it serves once');
      peer.reply(second, 200, { body: farSdp({ setup: 'active' }) });
      await peer.request('ACK'); // for the 401 or 407
      await a.waitFor('callAccepted', (p, m) => m.id === id);
      const ended = a.request('hangup', { callId, reason: 'user_hangup' });
      peer.reply(await peer.request('BYE'), 200);
      assert.equal((await ended).type, 'callEnded');
      await leave(a, '5001');
    });
  }

  test('a call whose challenge the browser answers wrong, or gives up', async () => {
    await registrar();
    const a = await agent('5001');
    for (const give of ['wrong', 'hangup']) {
      const id = a.send('call', { to: '600', sdp: fakeOffer() });
      const ask = (nonce) => ({ headers: [`WWW-Authenticate: Digest realm="${realm}", nonce="${nonce}", algorithm=MD5, qop="auth"`] });
      peer.reply(await peer.request('INVITE'), 401, ask(`${give}-1`));
      const challenge = await a.waitFor('challenge', (p) => p.method === 'INVITE');
      const { callId } = challenge;
      if (give === 'wrong') {
        await a.expect('digest', { callId, digest: secretly(challenge, '5001', secrets.wrong()) }, 'ack');
        peer.reply(await peer.request('INVITE'), 401, ask(`${give}-2`));
        assert.equal((await a.waitFor('error', (p, m) => m.id === id)).code, 401);
        await a.waitFor('callEnded', (p) => p.callId === callId);
      } else {
        await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
      }
      assert.equal(endsOf(a, callId).length, 1);
    }
    await leave(a, '5001');
    assert.equal(peer.received((m) => m.method === 'CANCEL').length, 0);
  });

  test('neither the log nor RPC shows a response, a password or a token', async () => {
    await registrar();
    const a = await agent('5001');
    await secrets.notShown(kamailio, ['5001']);
    await leave(a, '5001');
  });
});
