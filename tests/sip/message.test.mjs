/** Text messages: from browser to browser, out to SIP and in from it. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { answerTo, checkDigest } from '../common/digest.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { openPeer, Registrar } from './peer.mjs';
import { Bench, hopByNumber, Secrets, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

const timers = { fr_timer: 1500, wt_timer: 200 };
const long = 'Grüße\r\nan "alle" <b>\\ 😀';

let count = 0;

/** A MESSAGE from that endpoint; gives the final reply. */
function write(peer, dn, body, { type = 'text/plain;charset=utf-8', from = '"Far" <sip:1003@far>', more = [], callId = `m${(count += 1)}@far` } = {}) {
  const branch = `z9hG4bKm${count}${callId.length}`;
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(body);
  peer.send([
    `MESSAGE sip:${dn}@127.0.0.1:${peer.server} SIP/2.0`, `Via: SIP/2.0/UDP 127.0.0.1:${peer.port};branch=${branch}`, 'Max-Forwards: 70',
    `From: ${from};tag=t${count}`, `To: <sip:${dn}@127.0.0.1>`, `Call-ID: ${callId}`, 'CSeq: 1 MESSAGE', ...(type ? [`Content-Type: ${type}`] : []), ...more,
    `Content-Length: ${bytes.length}`, '', bytes.toString(),
  ].join('\r\n'));
  return peer.waitFor((m) => m.branch === branch && m.status >= 200);
}

const utf8 = (message) => Buffer.from(message.body, 'latin1').toString();

describe('agents of the table', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: tm(timers), params: { log_messages: 1, resume_grace: 20 } });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('from one browser to another', async () => {
    const [a, b, b2] = [await bench.agent('5001'), await bench.agent('5002'), await bench.agent('5002')];
    assert.deepEqual(await a.expect('message', { to: '5002', text: long }, 'ack'), {});
    for (const client of [b, b2]) assert.deepEqual(await client.waitFor('message'), { from: '5001', text: long });
    assert.deepEqual(await b.expect('message', { to: '5001', text: 'x'.repeat(8192) }, 'ack'), {});
    assert.equal((await a.waitFor('message')).text.length, 8192);
    assert.ok(!a.received.some((m) => m.type === 'message' && m.payload.from === '5001'), 'not to oneself');
  });

  test('nobody there, no text, too long a text', async () => {
    const a = await bench.agent('5001');
    for (const [payload, code] of [
      [{ to: '5003', text: 'x' }, 404], [{ to: 'no body', text: 'x' }, 400], [{ to: '5002' }, 400], [{ to: '5002', text: '' }, 400],
      [{ to: '5002', text: 'x'.repeat(8193) }, 400], [{ to: '5002', text: 'a\0b' }, 400],
    ]) {
      const { type, payload: error } = await a.request('message', payload);
      assert.deepEqual([type, error.code], ['error', code], JSON.stringify(payload).slice(0, 80));
    }
    const stranger = await bench.client();
    assert.equal((await stranger.request('message', { to: '5001', text: 'x' })).payload.code, 401);
  });

  test('out to SIP', async () => {
    const [a, peer] = [await bench.agent('5001', { displayName: 'Ann "A"' }), await bench.peer()];
    const sent = a.request('message', { to: to(peer), text: long });
    const message = await peer.request('MESSAGE');
    assert.equal(utf8(message), long);
    assert.match(message.header('Content-Type'), /^text\/plain;charset=utf-8$/i);
    assert.match(message.header('From'), /^"Ann \\"A\\"" <sip:5001@127\.0\.0\.1>;tag=/);
    assert.deepEqual([message.uri, message.header('To'), message.header('Contact')], [`sip:${to(peer)}@127.0.0.1`, `<sip:${to(peer)}@127.0.0.1>`, undefined]);
    assert.ok(!a.received.some((m) => m.type === 'ack'), 'not before it is answered');
    peer.reply(message, 202);
    assert.equal((await sent).type, 'ack');
  });

  test('the same id again sends nothing twice', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const id = a.send('message', { to: to(peer), text: 'once' });
    a.send('message', { to: to(peer), text: 'once' }, { id });
    const message = await peer.request('MESSAGE');
    peer.reply(message, 200);
    await a.waitFor('ack', (p, m) => m.id === id);
    a.send('message', { to: to(peer), text: 'once' }, { id });
    await a.waitFor('ack', (p, m) => m.id === id);
    assert.equal(peer.received((m) => m.method === 'MESSAGE').length, 1);
  });

  test('refused, and not answered', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    for (const status of [404, 486, 603, 302]) {
      const sent = a.request('message', { to: to(peer), text: 'x' });
      peer.reply(await peer.request('MESSAGE'), status);
      const { type, payload } = await sent;
      assert.deepEqual([type, payload.code], ['error', status]);
    }
    const { type, payload } = await a.request('message', { to: to(peer), text: 'x' });
    assert.deepEqual([type, payload.code], ['error', 408]);
    assert.equal(payload.retryable, true);
  });

  test('a few at a time', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    const outcomes = Array.from({ length: 6 }, (_, i) => a.request('message', { to: to(peer), text: `t${i}` }));
    const four = [];
    for (let i = 0; i < 4; i += 1) four.push(await peer.request('MESSAGE'));
    assert.deepEqual((await Promise.all(outcomes.slice(4))).map((m) => m.payload.code), [503, 503]);
    for (const message of four) peer.reply(message, 200);
    assert.deepEqual((await Promise.all(outcomes.slice(0, 4))).map((m) => m.type), Array(4).fill('ack'));
  });

  test('in from SIP, to every browser of the number', async () => {
    const [a, b, peer] = [await bench.agent('5001'), await bench.agent('5001'), await bench.peer()];
    assert.equal((await write(peer, '5001', long)).status, 200);
    for (const client of [a, b]) assert.deepEqual(await client.waitFor('message'), { from: '1003', text: long });
    const ids = new Set(a.received.filter((m) => m.type === 'message').map((m) => m.id));
    assert.deepEqual([...ids], ['evt-1']);
    assert.equal((await write(peer, '5001', 'x', { from: '<sip:1003@far>', more: ['P-Asserted-Identity: <tel:+49-12>', 'Privacy: id'] })).status, 200);
    assert.equal((await a.waitFor('message')).from, 'anonymous');
  });

  test('in from SIP: what is no text', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    for (const [body, options, status] of [
      ['<b>x</b>', { type: 'text/html' }, 415], ['x', { type: '' }, 415], ['x', { type: 'text/plain;charset=latin1' }, 415],
      ['x'.repeat(8193), {}, 413], ['a\0b', {}, 400], ['', {}, 200],
    ]) {
      const reply = await write(peer, '5001', body, options);
      assert.equal(reply.status, status, JSON.stringify(options));
      if (status === 415) assert.match(reply.header('Accept'), /text\/plain/);
    }
    assert.equal((await write(peer, '5001', 'y'.repeat(8192))).status, 200);
    assert.equal((await a.waitFor('message')).text.length, 8192);
    assert.equal(a.received.filter((m) => m.type === 'message').length, 1);
    assert.equal((await write(peer, '5009', 'x')).status, 404, 'nobody has registered that number');
    const options = peer.leg('5001');
    assert.match((await options.request('OPTIONS')).header('Allow'), /\bMESSAGE\b/);
  });

  test('for a browser that is away, until there is no more room', async () => {
    const [a, peer] = [await bench.agent('5001'), await bench.peer()];
    a.terminate();
    const attached = async () => (await kamailio.rpcRows('rtc_json.agents')).find((r) => r.dn === 5001)?.attached;
    await until(async () => await attached() === 0, { ms: 8000, what: 'the browser is away' });
    const taken = [];
    for (let i = 0; i < 10; i += 1) taken.push((await write(peer, '5001', `t${i}`)).status);
    assert.deepEqual(taken, [...Array(8).fill(202), 480, 480]);
    const back = await bench.client();
    await back.expect('register', { dn: '5001', displayName: '', resume: a.registered.session }, 'registered');
    for (let i = 0; i < 8; i += 1) assert.equal((await back.waitFor('message')).text, `t${i}`);
    assert.equal((await write(peer, '5001', 'now')).status, 200);
    assert.equal((await back.waitFor('message')).text, 'now');
  });

  test('what they write to each other is not for the log', async () => {
    const secret = new Secrets();
    const [a, b] = [await bench.agent('5001'), await bench.agent('5002')];
    await a.expect('message', { to: '5002', text: secret.add('a text', 'betwéén-us-two') }, 'ack');
    await b.waitFor('message');
    await secret.notShown(kamailio, ['5001', '5002']);
  });
});

describe('agents that a registrar knows', () => {
  let peer;
  let port;

  before(async () => {
    port = await freePort();
    kamailio = await startKamailio({ mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfgExtra: tm(timers) });
    bench = new Bench(kamailio);
    peer = await openPeer(kamailio.sipPort, { port });
    new Registrar(peer, { realm });
  });
  after(async () => { await kamailio?.stop(); await peer?.close(); });
  afterEach(async () => {
    await bench.finish();
    await until(async () => (await kamailio.rpcRows('rtc_json.agents')).length === 0, { what: 'nobody is left' });
  });

  const ask = (nonce, field = 'WWW-Authenticate') => ({ headers: [`${field}: Digest realm="${realm}", nonce="${nonce}", algorithm=SHA-256, qop="auth"`] });

  for (const [status, field, header] of [[401, 'WWW-Authenticate', 'Authorization'], [407, 'Proxy-Authenticate', 'Proxy-Authorization']]) {
    test(`${status} is answered with what the password has left`, async () => {
      const a = await bench.agent('5001');
      const sent = a.request('message', { to: '600', text: long });
      const first = await peer.request('MESSAGE');
      peer.reply(first, status, ask('text-1', field));
      const second = await peer.request('MESSAGE');
      assert.ok(checkDigest(second.header(header), { method: 'MESSAGE', password: 'pw5001' }));
      assert.deepEqual([utf8(second), second.callId, second.cseq], [long, first.callId, first.cseq + 1]);
      peer.reply(second, 200);
      assert.equal((await sent).type, 'ack');
      assert.ok(!a.received.some((m) => m.type === 'challenge'));
    });
  }

  test('refused after the answer', async () => {
    const a = await bench.agent('5001');
    const sent = a.request('message', { to: '600', text: 'x' });
    for (const nonce of ['text-2', 'text-3']) peer.reply(await peer.request('MESSAGE'), 401, ask(nonce));
    assert.equal((await sent).payload.code, 401);
  });

  test('a browser that keeps its password to itself answers by itself', async () => {
    const a = await bench.client();
    const challenge = await a.expect('register', { dn: '5001' }, 'challenge');
    await a.expect('register', { dn: '5001', displayName: '', digest: answerTo(challenge, '5001', 'pw5001') }, 'registered');
    const sent = a.request('message', { to: '600', text: 'x' });
    peer.reply(await peer.request('MESSAGE'), 401, ask('text-4'));
    const asked = await a.waitFor('challenge', (p) => p.method === 'MESSAGE');
    assert.equal(asked.uri, 'sip:600@127.0.0.1');
    await a.expect('digest', { digest: answerTo(asked, '5001', 'pw5001') }, 'ack');
    const second = await peer.request('MESSAGE');
    assert.ok(checkDigest(second.header('Authorization'), { method: 'MESSAGE', password: 'pw5001' }));
    peer.reply(second, 200);
    assert.equal((await sent).type, 'ack');
  });
});
