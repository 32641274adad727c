/** Limits against abuse: guessing of passwords, calls that come too fast. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
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
      const times = { known: [], unknown: [] };
      for (let i = 0; i < 150; i += 1) {
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
        + ` the known one is the slower of two in ${(100 * slower / 150 / 150).toFixed(1)} %`);
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
