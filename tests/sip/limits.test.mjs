/** Limits against abuse: guessing of passwords, calls that come too fast, WebSockets of one address. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import net from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { Bench, hopByNumber, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;
const wrong = (client, dn, more = {}) => client.request('register', { dn, password: 'wrong', displayName: '', ...more });
/** All but the id. */
const told = ({ type, payload }) => ({ type, payload });
const forbidden = { type: 'registrationFailed', payload: { reason: 'Forbidden', code: 403 } };
/** A browser at another address of this machine. */
const at = async (localAddress) => connect(kamailio.wsUrl, { localAddress });

describe('guessing of passwords', () => {
  before(async () => {
    kamailio = await startKamailio({ params: { register_failures: 3, register_failures_address: 8 } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('who fails too often waits, longer each time, and is not looked at meanwhile', async () => {
    const guesser = await at('127.0.0.2');
    for (let i = 0; i < 3; i += 1) assert.deepEqual(told(await wrong(guesser, '5001')), forbidden);
    const before = await kamailio.stat('register_limited');
    // the right one gets no other answer: else it could be told from a wrong one
    for (const password of ['wrong', 'pw5001']) {
      const answer = await guesser.request('register', { dn: '5001', password, displayName: '' });
      assert.deepEqual(told(answer), { type: 'registrationFailed', payload: { reason: 'too many failed attempts: wait', code: 429, retryAfter: 1 } });
    }
    assert.equal(await kamailio.stat('register_limited'), before + 2);
    assert.match(kamailio.log(), /register: 5001 has failed too often and is not looked at for 1 s/);
    await until(async () => (await wrong(guesser, '5001')).payload.code === 403, { what: 'the next try', every: 100 });
    const second = await wrong(guesser, '5001');
    assert.deepEqual([second.payload.code, second.payload.retryAfter], [429, 2], 'twice as long');
    guesser.terminate();
  });

  test('the owner of a number is not locked out: by its session, by its address, and not for ever', async () => {
    const owner = await at('127.0.0.3');
    const { session } = await owner.register('5002');
    const guesser = await at('127.0.0.4');
    for (let i = 0; i < 3; i += 1) assert.equal((await wrong(guesser, '5002')).payload.code, 403);
    assert.equal((await wrong(guesser, '5002')).payload.code, 429);
    // another tab where the number is in use
    const tab = await at('127.0.0.3');
    await tab.register('5002');
    await owner.close();
    await tab.close();
    // a right password has ended the wait
    for (let i = 0; i < 3; i += 1) assert.equal((await wrong(guesser, '5002')).payload.code, 403);
    assert.equal((await wrong(guesser, '5002')).payload.code, 429);
    const elsewhere = await at('127.0.0.5');
    assert.equal((await elsewhere.request('register', { dn: '5002', password: 'pw5002', displayName: '' })).payload.code, 429);
    assert.equal((await elsewhere.request('register', { dn: '5002', resume: session })).type, 'registered', 'the session token does not wait');
    await elsewhere.expect('unregister', {}, 'unregistered');
    for (const client of [guesser, elsewhere]) client.terminate();
  });

  test('one address that tries many numbers', async () => {
    const guesser = await at('127.0.0.6');
    for (let i = 0; i < 8; i += 1) assert.deepEqual(told(await wrong(guesser, `77${i}`)), forbidden);
    const answer = await guesser.request('register', { dn: '5003', password: 'pw5003', displayName: '' });
    assert.deepEqual([answer.type, answer.payload.code, answer.payload.retryAfter], ['registrationFailed', 429, 1]);
    assert.match(kamailio.log(), /register: 127\.0\.0\.6 has failed too often/);
    const other = await at('127.0.0.7');
    await other.register('5003');
    await other.expect('unregister', {}, 'unregistered');
    // a restart forgives nothing
    bench.expectLog(/receive_fd\(\): EOF on/);
    guesser.terminate();
    other.terminate();
    await until(async () => (await (async () => { const again = await at('127.0.0.6'); const got = await wrong(again, '5003'); again.terminate(); return got; })()).payload.code === 403, { what: 'the next try', every: 200 });
    await kamailio.restart();
    const again = await at('127.0.0.6');
    const still = await wrong(again, '5003');
    assert.deepEqual([still.type, still.payload.code], ['registrationFailed', 429]);
    again.terminate();
  });
});

describe('unknown numbers', () => {
  before(async () => {
    kamailio = await startKamailio({ params: { register_failures: 0, register_failures_address: 0 } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  /** Registers by a challenge that is answered with a wrong password. */
  async function digest(client, dn) {
    const asked = await client.request('register', { dn, displayName: '' });
    assert.equal(asked.type, 'challenge');
    const { realm, nonce, uri, algorithm, qop, method } = asked.payload;
    const answer = { nonce, realm, uri, algorithm, qop, nc: '00000001', cnonce: 'abc', response: crypto.createHash('md5').update(dn + method).digest('hex') };
    const from = performance.now();
    const got = await client.request('register', { dn, displayName: '', digest: answer });
    return { got, ms: performance.now() - from };
  }
  async function password(client, dn) {
    const from = performance.now();
    const got = await wrong(client, dn);
    return { got, ms: performance.now() - from };
  }

  for (const [name, way] of Object.entries({ password, digest })) {
    test(`get the answer that a wrong password gets, after the same time (${name})`, async (t) => {
      const client = await bench.client();
      // (a timer gives the answers, each a tenth of a second later)
      const rounds = 20;
      const times = { known: [], unknown: [] };
      for (let i = 0; i < rounds; i += 1) {
        // in turns, and each first as often as the other: what else the machine does falls on both
        const pair = [['known', '5001'], ['unknown', '7999']];
        for (const [kind, dn] of i % 2 ? pair : pair.reverse()) {
          const { got, ms } = await way(client, dn);
          assert.deepEqual(told(got), forbidden);
          times[kind].push(ms);
        }
      }
      const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
      // how often a guesser is right who takes the slower of two for the known one: a half says that time tells nothing
      let slower = 0;
      for (const known of times.known) for (const unknown of times.unknown) if (known > unknown) slower += 1;
      t.diagnostic(`${name}: median ${median(times.known).toFixed(3)} ms for a known number, ${median(times.unknown).toFixed(3)} ms for an unknown one;`
        + ` the known one is the slower of two in ${(100 * slower / rounds / rounds).toFixed(1)} %`);
    });
  }
});

describe('calls that come too fast', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), params: { call_rate: 1, max_calls_per_agent: 8 } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('are refused, with the time to wait; other agents are not', async () => {
    const [a, b] = [await bench.agent('5001'), await bench.agent('5002')];
    const far = await bench.peer();
    const place = async (client) => {
      const id = client.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
      const invite = await far.request('INVITE');
      far.reply(invite, 486);
      const outcome = await client.waitFor('error', (p, m) => m.id === id);
      return outcome.code;
    };
    assert.deepEqual([await place(a), await place(a)], [486, 486], 'two at once');
    const refused = await a.request('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    assert.equal(refused.type, 'error');
    assert.deepEqual({ ...refused.payload, request: '' }, { message: 'Too Many Requests', code: 429, details: 'calls come too fast', request: '', retryable: true, retryAfter: 1 });
    assert.equal(await kamailio.stat('calls_limited'), 1);
    assert.equal(await place(b), 486);
    await sleep(1000 * refused.payload.retryAfter);
    assert.equal(await place(a), 486);
  });
});

describe('WebSockets of one address', () => {
  const limit = 5;
  /** What is to be closed at the end. @type {Set<import('../common/client.mjs').Client>} */
  const open = new Set();
  before(async () => {
    kamailio = await startKamailio({ params: { max_sockets_address: limit } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(async () => {
    for (const client of open) client.terminate();
    open.clear();
    await bench.finish();
  });
  /** One more of that address: the client, or the status of the refusal. */
  const more = (address) => at(address).then((client) => { open.add(client); return client; }, (error) => Number(/\b(\d{3})\b/.exec(error.message)?.[1] ?? assert.fail(error.message)));
  const refusedOf = async (address) => { const got = await more(address); assert.equal(got, 429); };
  const takenOf = async (address) => { const got = await more(address); assert.notEqual(typeof got, 'number', String(got)); return got; };

  test('one more than allowed is refused, and another address is not; a place is free again when one goes, however it goes', async () => {
    bench.expectLog(/tcp_read_data|tcp_read_req/); // what Kamailio says of a connection that is reset
    const all = [];
    for (let i = 0; i < limit; i += 1) all.push(await takenOf('127.0.0.2'));
    const before = await kamailio.stat('sockets_limited');
    await refusedOf('127.0.0.2');
    await refusedOf('127.0.0.2');
    assert.equal(await kamailio.stat('sockets_limited'), before + 2);
    assert.equal(kamailio.log().match(/127\.0\.0\.2 has 5 WebSockets open and gets no more/g)?.length, 1, 'the operator is told, and not each time');
    const other = await takenOf('127.0.0.3');
    await other.register('5001');
    for (const go of [(c) => c.close(), (c) => c.terminate(), (c) => c.rst()]) {
      const client = all.pop();
      await go(client);
      open.delete(client);
      // (Kamailio may take a moment to see it)
      const again = await until(async () => { const got = await more('127.0.0.2'); return typeof got !== 'number' && got; }, { ms: 15_000, every: 200, what: 'a place' });
      await again.expect('ping', {}, 'pong').catch(() => {});
      all.unshift(again);
      await refusedOf('127.0.0.2');
    }
    await other.expect('unregister', {}, 'unregistered');
  });

  test('many at once, with several workers: exactly as many as are allowed', async () => {
    const got = await Promise.all(Array.from({ length: 4 * limit }, () => more('127.0.0.4')));
    assert.equal(got.filter((one) => typeof one !== 'number').length, limit);
    assert.ok(got.every((one) => typeof one !== 'number' || one === 429), String(got));
  });

  test('handshakes that fail take no place for long, and nothing is left in the arena', async () => {
    const records = () => kamailio.stat('arena_records');
    await until(async () => await records() === 0, { ms: 20_000, every: 500, what: 'an empty arena' });
    // no Sec-WebSocket-Key: the websocket module refuses it, and tells of no end
    const fail = () => new Promise((done, failed) => {
      const socket = net.connect({ port: kamailio.wsPort, host: '127.0.0.1', localAddress: '127.0.0.5' });
      let text = '';
      socket.on('data', (data) => { text += data; });
      socket.on('close', () => done(Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1])));
      socket.on('error', failed);
      socket.write('GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n');
    });
    bench.expectLog(/WebSocket|ws_/i);
    for (let i = 0; i < 4 * limit; i += 1) assert.equal(await fail(), 400, `number ${i}`);
    for (let i = 0; i < limit; i += 1) await takenOf('127.0.0.5');
    await refusedOf('127.0.0.5');
    for (const client of open) client.terminate();
    await until(async () => await records() === 0, { ms: 90_000, every: 500, what: 'nothing is kept of an address without sockets' });
  });

  test('after a restart an address begins anew', async () => {
    bench.expectLog(/receive_fd\(\): EOF on|contains old pid/);
    for (let i = 0; i < limit; i += 1) await takenOf('127.0.0.6');
    await kamailio.kill9();
    await kamailio.start();
    for (let i = 0; i < limit; i += 1) await takenOf('127.0.0.6');
    await refusedOf('127.0.0.6');
  });
});
