/** Registration of browsers, here and at a registrar, and that no secret is ever shown. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { checkDigest, digestFields, ha1 } from '../common/digest.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { startSipp } from '../common/sipp.mjs';
import { openPeer, Registrar } from './peer.mjs';
import { Bench, Secrets, tm } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const secrets = new Secrets();
for (const dn of ['5001', '5002', '5003', '5004', '5005', '5006', '5007']) {
  secrets.add('the password', `pw${dn}`);
  for (const algorithm of ['MD5', 'SHA-256']) secrets.add('HA1', ha1(dn, realm, `pw${dn}`, algorithm));
}

const nothingShown = (dns) => secrets.notShown(kamailio, dns);

const rowOf = async (dn) => (await kamailio.rpcRows('rtc_json.agents')).find((row) => String(row.dn) === dn);

/** Registers with another password and gives the outcome. */
const attempt = (client, dn, password, more = {}) => client.request('register', { dn, password, displayName: '', ...more }, { ms: 8000 });

describe('agents of the table', () => {
  const expires = 30;
  let quiet;
  let lively;
  let quietSince;
  let ticking;
  before(async () => {
    kamailio = await startKamailio({ params: { expires, max_sessions_per_agent: 2, log_messages: 1 } });
    bench = new Bench(kamailio);
  });
  after(async () => {
    clearInterval(ticking);
    for (const client of [quiet, lively]) if (client && !client.closed) await client.close();
    await kamailio?.stop();
  });
  afterEach(() => bench.finish());

  test('one browser falls silent, one goes on (seen at the end)', async () => {
    const own = new Bench(kamailio); // not ended with this test
    quiet = await own.agent('5006');
    quietSince = performance.now();
    lively = await own.agent('5007');
    ticking = setInterval(() => lively.send('ping'), 10_000);
    assert.equal(quiet.registered.expires, expires);
  });

  test('the right password', async () => {
    const a = await bench.client();
    const id = a.send('register', { dn: '5001', password: 'pw5001', displayName: 'Ann' });
    const p = await a.waitFor('registered', (_, m) => m.id === id);
    assert.deepEqual({ ...p, session: typeof p.session }, {
      dn: '5001', expires, server: 'rtc_json', session: 'string', protocol: 1, iceServers: [], calls: [],
    });
    assert.match(p.session, /^[\w-]{22,}$/);
    secrets.add('a session token', p.session);
    const row = await rowOf('5001');
    assert.deepEqual([row.displayName, row.sessions, row.attached, row.calls], ['Ann', 1, 1, 0]);
  });

  test('a wrong password and an unknown number get the same answer', async () => {
    const a = await bench.client();
    const failed = await kamailio.stat('register_failed');
    const wrong = await attempt(a, '5001', secrets.wrong());
    const unknown = await attempt(a, '4711', secrets.wrong());
    assert.deepEqual([wrong.type, wrong.payload.code], ['registrationFailed', 403]);
    assert.deepEqual(unknown.payload, wrong.payload);
    assert.equal(await kamailio.stat('register_failed'), failed + 2);
    // another's password, an empty one, the hash itself
    for (const password of ['pw5002', '', ha1('5001', realm, 'pw5001')]) {
      assert.equal((await attempt(a, '5001', password)).type, 'registrationFailed', password);
    }
    assert.equal(await rowOf('5001'), undefined);
    assert.equal(await rowOf('4711'), undefined, 'no record for who is not registered');
    // the connection is good for another try
    await a.register('5001');
  });

  test('before it is registered, a connection can do nothing', async () => {
    const a = await bench.client();
    for (const [type, payload] of [['call', { to: '5002', sdp: fakeOffer() }], ['hangup', { callId: 'x', reason: 'user_hangup' }],
      ['answer', { callId: 'x', sdp: 'v=0' }], ['iceCandidate', { callId: 'x', candidate: null }]]) {
      const { type: got, payload: { code } } = await a.request(type, payload);
      assert.deepEqual([got, code], ['error', 401], type);
    }
    assert.equal((await a.request('ping')).type, 'pong');
    assert.equal((await a.request('unregister')).type, 'unregistered');
  });

  test('unregister', async () => {
    const a = await bench.agent('5001');
    const p = await a.expect('unregister', {}, 'unregistered');
    assert.deepEqual(p, { dn: '5001', reason: 'requested' });
    assert.equal(await rowOf('5001'), undefined);
    assert.equal((await a.request('ping')).type, 'pong', 'the connection stays');
    assert.equal((await a.request('call', { to: '5002', sdp: fakeOffer() })).payload.code, 401);
    const back = await a.request('register', { dn: '5001', resume: a.registered.session });
    assert.deepEqual([back.type, back.payload.code], ['registrationFailed', 401], 'the token went with the session');
  });

  test('a second registration on a connection: the same DN goes on, another is refused', async () => {
    const a = await bench.agent('5001');
    const again = await a.register('5001', { displayName: 'New Name' });
    assert.equal(again.session, a.registered.session);
    assert.deepEqual([(await rowOf('5001')).sessions, (await rowOf('5001')).displayName], [1, 'New Name']);
    const other = await a.request('register', { dn: '5002', password: 'pw5002', displayName: '' });
    assert.deepEqual([other.type, other.payload.code], ['error', 409]);
    assert.equal(await rowOf('5002'), undefined);
    await a.expect('unregister', {}, 'unregistered');
    await a.register('5002');
    assert.equal((await rowOf('5002')).sessions, 1);
  });

  test('two browsers of one number; a third replaces the oldest', async () => {
    const first = await bench.agent('5001');
    const second = await bench.agent('5001');
    assert.notEqual(first.registered.session, second.registered.session);
    assert.deepEqual([(await rowOf('5001')).sessions, (await rowOf('5001')).attached], [2, 2]);
    const third = await bench.agent('5001');
    assert.deepEqual(await first.waitFor('unregistered'), { dn: '5001', reason: 'replaced' });
    assert.equal((await first.whenClosed()).code, 1000);
    assert.equal((await rowOf('5001')).sessions, 2);
    for (const client of [second, third]) assert.equal((await client.request('ping')).type, 'pong');
    const row = await kamailio.rpcRows('rtc_json.agent', '5001');
    assert.deepEqual(row.slice(1).map((r) => r.state), ['attached', 'attached']);
  });

  test('the shortest and the longest registration that one can ask for', async () => {
    const a = await bench.client();
    for (const asked of [1, 29, 30, 31, 86_400]) assert.equal((await a.register('5001', { expires: asked })).expires, 30, String(asked));
  });

  test('a number that SIP would have to escape, or that is none at all, is refused', async () => {
    const a = await bench.client();
    for (const dn of ['', 'a b', '50\r\n01', '5001@x', '5001>', 'x'.repeat(65), 5001, null]) {
      const { type, payload: { code } } = await a.request('register', { dn, password: secrets.wrong(), displayName: '' });
      assert.deepEqual([type, code], ['error', 400], JSON.stringify(dn));
    }
    assert.equal(a.closed, undefined);
  });

  test('a broken frame with a password in it is not shown either', async () => {
    const a = await bench.client();
    a.sendRaw(`{"type":"register","id":"x","payload":{"dn":"5001","password":"${secrets.wrong()}"`);
    a.sendRaw(`{"type":"register","id":"x","payload":{"dn":"5001","password":"${secrets.wrong()}","password":"b"}}`);
    a.sendRaw(`["register","${secrets.wrong()}"]`);
    a.sendRaw(Buffer.from(`{"type":"register","id":"x","payload":{"password":"${secrets.wrong()}"}}`));
    a.sendRaw(`{"type":"${secrets.wrong()}","id":"x","payload":{}}`);
    a.sendRaw(`   \r\n {"password":"${secrets.wrong()}"} trailing`);
    await until(() => a.received.filter((m) => m.type === 'error').length === 6, { what: 'six errors' });
  });

  test('neither the log nor RPC shows a password or a token', async () => {
    const a = await bench.agent('5001');
    secrets.add('a session token', a.registered.session);
    await attempt(a, '5001', secrets.wrong(), { resume: secrets.add('a false token', 'f4lse-t0ken-f4lse-t0ken') });
    await nothingShown(['5001', '5006', '5007', '4711']);
  });

  test('the silent browser is unregistered, the one that pings is not', async () => {
    const left = expires * 1000 - (performance.now() - quietSince);
    assert.ok(left > 0, 'the tests before took too long for this one');
    await quiet.never('unregistered', left - 1000);
    const p = await quiet.waitFor('unregistered', undefined, 3000);
    assert.deepEqual(p, { dn: '5006', reason: 'expired' });
    assert.equal(await rowOf('5006'), undefined);
    assert.equal((await quiet.request('ping')).type, 'pong', 'the connection stays');
    assert.equal((await quiet.request('hangup', { callId: 'x', reason: '' })).payload.code, 401);
    // it registered a moment after the silent one, and its time is over, too, but for the pings
    await sleep(1500);
    assert.equal((await rowOf('5007'))?.attached, 1);
    assert.ok(!lively.received.some((m) => m.type === 'unregistered'));
  });
});

describe('agents of the table, over_limit refuse', () => {
  before(async () => {
    kamailio = await startKamailio({ params: { max_sessions_per_agent: 2, over_limit: 'refuse' } });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('a session too many is refused, those before stay', async () => {
    const before = [await bench.agent('5001'), await bench.agent('5001')];
    const third = await bench.client();
    const { type, payload } = await attempt(third, '5001', 'pw5001');
    assert.deepEqual([type, payload.code], ['registrationFailed', 403]);
    assert.match(payload.reason, /max_sessions_per_agent/);
    for (const client of before) assert.equal((await client.request('ping')).type, 'pong');
    assert.equal((await rowOf('5001')).sessions, 2);
    await before[0].expect('unregister', {}, 'unregistered');
    assert.equal((await attempt(third, '5001', 'pw5001')).type, 'registered');
  });
});

describe('agents that a registrar knows', () => {
  let port;
  /** @type {import('./peer.mjs').Peer} */
  let peer;

  /** A registrar of our own at the next hop, for one test. */
  async function registrar(options = {}) {
    peer = await openPeer(kamailio.sipPort, { port });
    return new Registrar(peer, { realm, ...options });
  }

  /** SIPp at the next hop, for one test. */
  const sipp = (scenario, keys = {}) => startSipp({ scenario, port, keys });

  /** Takes an agent's binding away, so that no refresh meets the next test. */
  async function leave(client, dn) {
    await client.expect('unregister', {}, 'unregistered');
    await until(async () => await rowOf(dn) === undefined, { what: `${dn} has gone` });
  }

  before(async () => {
    port = await freePort();
    kamailio = await startKamailio({
      mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }), params: { log_messages: 1 },
    });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(async () => {
    try { await bench.finish(); } finally { await peer?.close(); peer = undefined; }
  });

  for (const [dn, algorithm] of [['5001', 'MD5'], ['5002', 'SHA-256']]) {
    test(`challenged with ${algorithm}`, async () => {
      const far = await sipp('registrar', { algorithm, realm, expires: 120 });
      const a = await bench.client();
      const p = await a.register(dn);
      assert.equal(p.expires, 120, 'what the registrar granted');
      secrets.add('a session token', p.session);
      await far.ok();
      const [first, second] = far.messages().filter((m) => m.dir === 'in').map((m) => m.text);
      const value = (text, name) => new RegExp(`^${name}: *(.*?)\r?$`, 'im').exec(text)?.[1];
      assert.match(first, /^REGISTER sip:127\.0\.0\.1 SIP\/2\.0/);
      assert.equal(value(first, 'Authorization'), undefined);
      const given = value(second, 'Authorization');
      assert.ok(checkDigest(given, { method: 'REGISTER', password: `pw${dn}` }), given);
      const { username, uri, nc, qop, opaque } = digestFields(given);
      assert.deepEqual([username, uri, nc, qop, opaque], [dn, 'sip:127.0.0.1', '00000001', 'auth', '5ccc069c']);
      assert.equal(value(second, 'Call-ID'), value(first, 'Call-ID'));
      assert.deepEqual([value(first, 'CSeq'), value(second, 'CSeq')], ['1 REGISTER', '2 REGISTER']);
      assert.match(value(second, 'Contact'), new RegExp(`^<sip:${dn}@127\\.0\\.0\\.1:${kamailio.sipPort}>`));
      assert.match(value(second, 'From'), new RegExp(`<sip:${dn}@127\\.0\\.0\\.1>;tag=`));
      assert.equal((await rowOf(dn)).upstream, 1);
      secrets.add('a digest', digestFields(given).response);
      await far.stop();
      await registrar({ algorithms: [algorithm] });
      await leave(a, dn);
    });
  }

  test('without a challenge', async () => {
    const far = await sipp('registrar-open', { expires: 90 });
    const a = await bench.client();
    assert.equal((await a.register('5003')).expires, 90);
    await far.ok();
    await far.stop();
    await registrar();
    await leave(a, '5003');
  });

  test('the registrar refuses', async () => {
    const far = await sipp('registrar-refuse', { realm });
    const a = await bench.client();
    const { type, payload } = await attempt(a, '5001', secrets.wrong());
    assert.deepEqual([type, payload.code], ['registrationFailed', 403]);
    await far.ok();
    await far.stop();
    assert.equal(await rowOf('5001'), undefined);
  });

  test('a wrong password: challenged twice, refused', async () => {
    const r = await registrar();
    const a = await bench.client();
    const { type, payload } = await attempt(a, '5001', secrets.wrong());
    assert.deepEqual([type, payload.code], ['registrationFailed', 403]);
    assert.equal(r.requests.length, 2, 'and not tried for ever');
    assert.equal(r.bindings.size, 0);
    // the right one works on the same connection at once
    assert.equal((await attempt(a, '5001', 'pw5001')).type, 'registered');
    await leave(a, '5001');
  });

  test('the strongest of several challenges is answered', async () => {
    const r = await registrar({ algorithms: ['MD5', 'SHA-256'] });
    const a = await bench.agent('5001');
    assert.match(r.requests.at(-1).header('Authorization'), /algorithm="?SHA-256/);
    await leave(a, '5001');
    await until(() => r.bindings.size === 0);
  });

  test('the registrar does not answer', async () => {
    peer = await openPeer(kamailio.sipPort, { port });
    const a = await bench.client();
    const { type, payload } = await attempt(a, '5001', 'pw5001');
    assert.deepEqual([type, payload.code], ['registrationFailed', 408]);
    assert.match(payload.reason, /does not answer/);
    assert.ok(peer.log.some((e) => e.repeat), 'tm has tried more than once');
  });

  test('an interval too brief (423) is asked again with the one wanted', async () => {
    const r = await registrar({ least: 600 });
    const a = await bench.client();
    assert.equal((await a.register('5001', { expires: 60 })).expires, 600);
    assert.deepEqual(r.requests.map((m) => m.header('Expires')), ['60', '60', '600']);
    await leave(a, '5001');
  });

  test('unregister takes the binding away', async () => {
    const r = await registrar();
    const a = await bench.agent('5001');
    assert.equal(r.bindings.get('5001'), `sip:5001@127.0.0.1:${kamailio.sipPort}`);
    await leave(a, '5001');
    assert.equal(r.bindings.size, 0);
    const last = r.requests.at(-1);
    assert.equal(last.header('Expires'), '0');
    assert.equal(last.callId, r.requests[0].callId);
    assert.equal(r.requests.length, 3, 'the removal answers the challenge that is known');
  });

  test('two browsers of one number: the binding stays until the last one goes', async () => {
    const r = await registrar();
    const [a, b] = [await bench.agent('5001'), await bench.agent('5001')];
    const count = r.requests.length;
    await a.expect('unregister', {}, 'unregistered');
    await sleep(200);
    assert.deepEqual([r.requests.length, r.bindings.size], [count, 1]);
    await leave(b, '5001');
    assert.equal(r.bindings.size, 0);
  });

  test('two browsers of one number at the same instant: one REGISTER after the other', async () => {
    const r = await registrar();
    const pair = await Promise.all([bench.client(), bench.client()]);
    await Promise.all(pair.map((c) => c.register('5001')));
    const cseqs = r.requests.map((m) => m.cseq);
    assert.deepEqual(cseqs, [...cseqs].sort((x, y) => x - y));
    assert.equal(new Set(cseqs).size, cseqs.length);
    assert.equal((await rowOf('5001')).sessions, 2);
    await pair[0].expect('unregister', {}, 'unregistered');
    await leave(pair[1], '5001');
  });

  test('the wrong password of a second browser does no harm to the first', async () => {
    const r = await registrar();
    const a = await bench.agent('5001');
    const b = await bench.client();
    assert.equal((await attempt(b, '5001', secrets.wrong())).type, 'registrationFailed');
    assert.equal((await a.request('ping')).type, 'pong');
    assert.deepEqual([(await rowOf('5001')).sessions, (await rowOf('5001')).upstream, r.bindings.size], [1, 1, 1]);
    await leave(a, '5001');
    assert.equal(r.bindings.size, 0, 'the removal uses the password of the first');
  });

  test('the server refreshes by itself, with the nonce it knows', async () => {
    const r = await registrar({ granted: 6, stale: 5 });
    const a = await bench.agent('5001');
    assert.equal(a.registered.expires, 6);
    const ping = setInterval(() => a.send('ping'), 1000);
    try {
      await until(() => r.requests.length >= 7, { ms: 8000, what: 'refreshes' });
    } finally { clearInterval(ping); }
    const [, second, third, fourth, fifth, sixth] = r.requests;
    const nc = (m) => digestFields(m.header('Authorization')).nc;
    assert.deepEqual([second, third, fourth].map(nc), ['00000001', '00000002', '00000003'], 'RFC 7616: each use of a nonce is counted');
    assert.deepEqual([nc(fifth), nc(sixth)], ['00000004', '00000001'], 'a stale nonce is answered anew');
    assert.deepEqual(r.requests.map((m) => m.cseq), r.requests.map((_, i) => i + 1));
    assert.equal(new Set(r.requests.map((m) => m.callId)).size, 1);
    const entries = peer.log.filter((e) => e.dir === 'in' && !e.repeat && e.message.method === 'REGISTER');
    assert.ok(entries[2].at - entries[1].at > 800, 'not at once');
    assert.ok(entries[2].at - entries[1].at < 5000, 'before it expires');
    await leave(a, '5001');
  });

  test('the registrar takes the number away: the browser is told', async () => {
    const r = await registrar({ granted: 6 });
    const a = await bench.agent('5001');
    r.refuse = true;
    assert.deepEqual(await a.waitFor('unregistered', undefined, 6000), { dn: '5001', reason: 'expired' });
    await until(async () => await rowOf('5001') === undefined);
  });

  test('neither the log nor RPC shows a password, a token or a digest', async () => {
    await registrar();
    const a = await bench.agent('5001');
    secrets.add('a session token', a.registered.session);
    await nothingShown(['5001', '5002']);
    await leave(a, '5001');
  });
});

describe('wrong parameters end the start, and say what to write', () => {
  for (const [mode, params, name, instead] of [
    ['local', { register_mode: 'both' }, 'register_mode', 'upstream, local'],
    ['local', { over_limit: 'kick' }, 'over_limit', 'refuse, replace'],
    ['local', { realm: '' }, 'realm', 'ha1 column'],
    ['local', { contact: 'not a host' }, 'contact', '192.0.2.10:5060'],
    ['upstream', { outbound_proxy: 'http://pbx.example' }, 'outbound_proxy', 'sip:asterisk.example:5060'],
    ['local', { dn_chars: '@' }, 'dn_chars', '._+*#-'],
    ['local', { codecs: 'nonsense' }, 'codecs', 'PCMU'],
    ['local', { arena_path: 'relative' }, 'arena_path', '/dev/shm/rtc_json.arena'],
    ['local', { expires: 5 }, 'expires', 'from 30 to 86400 (seconds)'],
    ['local', { ring_timeout: 4 }, 'ring_timeout', 'from 5 to 3600 (seconds)'],
    ['local', { resume_grace: 0 }, 'resume_grace', 'from 1 to 3600 (seconds)'],
    ['local', { max_calls_per_agent: 0 }, 'max_calls_per_agent', 'from 1 to 64 (calls)'],
    ['local', { arena_size: 0 }, 'arena_size', '(megabytes)'],
    ['local', { db_url: '' }, 'db_url', 'sqlite'],
  ]) {
    test(JSON.stringify(params), async () => {
      await assert.rejects(startKamailio({ mode, nextHop: mode === 'upstream' ? 'sip:127.0.0.1:9' : undefined, params }), (error) => {
        const line = error.message.split('\n').find((l) => /ERROR: rtc_json/.test(l) && l.includes(name));
        assert.ok(line, `no error line names ${name}: ${error.message}`);
        assert.ok(line.includes(instead), line);
        return true;
      });
    });
  }
});
