/** What nobody should send: all of it is refused in good order, harms nobody else, and never becomes SIP or a log line. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { sleep } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';

const MUTATIONS = 10_000;
const LANES = 8;
/** Stands in every register frame; must never be seen again. */
const secret = 'hunter2-S3cr3t';
const corpus = process.env.RTC_JSON_CORPORA ?? fileURLToPath(new URL('../../../shared/corpora', import.meta.url));
const seed = Number(process.env.RTC_JSON_SEED ?? Date.now() % 1e9);

let kamailio;
let hop;
let honest;
let pings;
let pids;
const sip = [];

before(async () => {
  // where SIP would go
  hop = dgram.createSocket('udp4').bind(0, '127.0.0.1');
  await new Promise((done) => { hop.once('listening', done); });
  hop.on('message', (text) => sip.push(String(text)));
  kamailio = await startKamailio({ mode: 'local', nextHop: `sip:127.0.0.1:${hop.address().port}` });
  pids = kamailio.pids;
  honest = await connect(kamailio.wsUrl);
  await honest.register('5009');
  let slowest = 0;
  let count = 0;
  let stop = false;
  const loop = (async () => {
    while (!stop) {
      const began = performance.now();
      await honest.expect('ping', {}, 'pong', { ms: 10_000 });
      slowest = Math.max(slowest, performance.now() - began);
      count += 1;
      await sleep(50);
    }
  })();
  pings = async () => { stop = true; await loop; return `${count} pings of an honest browser, the slowest ${slowest.toFixed(0)} ms`; };
});

after(async () => {
  hop?.close();
  await kamailio?.stop();
});

/** A connection that is opened again whenever the rules close it. */
class Lane {
  constructor(dn) { this.dn = dn; }

  async open() {
    this.client = await connect(kamailio.wsUrl);
    if (this.dn) await this.client.register(this.dn);
    this.seen = this.client.received.length;
    this.opened = (this.opened ?? 0) + 1;
  }

  /** Sends a frame; gives the message that answers it, or 'closed', or 'silence' after `ms`. */
  async send(frame, ms = 3000) {
    if (!this.client || this.client.closed) await this.open();
    const { client, seen } = this;
    client.sendRaw(frame, { binary: false });
    const end = Date.now() + ms;
    while (client.received.length === seen && !client.closed && Date.now() < end) await sleep(0);
    if (client.received.length > seen) {
      this.seen = client.received.length;
      return client.received[seen];
    }
    return client.closed ? 'closed' : 'silence';
  }
}

test('the JSON test suite, as whole frames, before and after registration', async (t) => {
  const dir = path.join(corpus, 'json');
  if (!fs.existsSync(dir)) { t.skip('shared/corpora is not here'); return; }
  const files = fs.readdirSync(dir).filter((name) => name.endsWith('.json'));
  assert.ok(files.length > 300);
  for (const lane of [new Lane(), new Lane('5001')]) {
    const got = {};
    for (const name of files) {
      const frame = fs.readFileSync(path.join(dir, name));
      // nothing but line ends is a keep-alive (RFC 7118), and needs no answer
      const keepAlive = frame.every((byte) => byte === 10 || byte === 13);
      const answer = await lane.send(frame, keepAlive ? 100 : 3000);
      if (answer !== 'closed' && !(keepAlive && answer === 'silence')) {
        assert.equal(answer.type, 'error', `${name}: ${JSON.stringify(answer)}`);
        assert.ok([400, 413].includes(answer.payload.code), `${name}: ${JSON.stringify(answer)}`);
      }
      const kind = answer.type ? answer.payload.code : answer;
      got[kind] = (got[kind] ?? 0) + 1;
    }
    t.diagnostic(`${files.length} files${lane.dn ? ', registered' : ''}: ${JSON.stringify(got)}, ${lane.opened} connections`);
  }
});

test(`${MUTATIONS} mutated frames`, async (t) => {
  let state = seed;
  const below = (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) % n;
  };
  // no mutation makes one of them a call: the number has only letters that none may have, the offer lacks DTLS
  const offer = fakeOffer().replace(/a=fingerprint:[^\r]*\r\n/, '').slice(0, 600);
  const bases = [
    { type: 'register', payload: { dn: '5005', password: secret, displayName: 'Zoë' }, id: 'r1' },
    { type: 'register', payload: { dn: '5005', resume: secret, last: 7 }, id: 'r2' },
    { type: 'call', payload: { to: '<<<<>>>>', sdp: offer, iceServers: [{ urls: 'stun:127.0.0.1' }] }, id: 'c1' },
    { type: 'answer', payload: { callId: 'nobody', sdp: offer }, id: 'a1' },
    { type: 'hangup', payload: { callId: 'nobody', reason: 'user_hangup' }, id: 'h1' },
    { type: 'dtmf', payload: { callId: 'nobody', digit: '12#', duration: 100 }, id: 'd1' },
    { type: 'transfer', payload: { callId: 'nobody', to: '600' }, id: 't1' },
    { type: 'ping', payload: { a: [1, -2.5e3, null, true, '\u00e9\ud83d\ude00'] }, id: 'p1' },
  ].map((base) => Buffer.from(JSON.stringify(base)));
  const tokens = ['{', '}', '[', ']', '"', ':', ',', '\\', '\\u0000', '\\ud800', '\0', '\x7f', '\xff', '1e999', '-', 'null', '\r\n', '  ', '{"a":'];
  const mutated = () => {
    let frame = Buffer.from(bases[below(bases.length)]);
    for (let n = 1 + below(4); n > 0; n -= 1) {
      const at = below(frame.length + 1);
      const rest = frame.subarray(Math.min(frame.length, at + 1 + below(8)));
      switch (below(5)) {
        case 0: frame = Buffer.concat([frame.subarray(0, at), Buffer.from([below(256)]), frame.subarray(Math.min(frame.length, at + 1))]); break;
        case 1: frame = Buffer.concat([frame.subarray(0, at), rest]); break;
        case 2: frame = Buffer.concat([frame.subarray(0, at), Buffer.from(tokens[below(tokens.length)], 'latin1'), frame.subarray(at)]); break;
        case 3: frame = frame.subarray(0, Math.max(1, at)); break;
        default: frame = Buffer.concat([frame, frame.subarray(at)]);
      }
    }
    return below(500) === 0 ? Buffer.concat([frame.subarray(0, 1), Buffer.alloc(32_768 + below(64), 0x20), frame.subarray(1)]) : frame;
  };
  const got = {};
  let left = MUTATIONS;
  const lanes = Array.from({ length: LANES }, (_, i) => new Lane(i % 2 ? `500${1 + (i >> 1)}` : undefined));
  await Promise.all(lanes.map(async (lane) => {
    while (left > 0) {
      left -= 1;
      const frame = mutated();
      const text = frame.toString('latin1');
      // a lone line end is a keep-alive; what begins like a SIP message belongs to others
      if (/^[\r\n]*$/.test(text) || !/^\s*[{]/.test(text)) { left += 1; continue; }
      const answer = await lane.send(frame);
      assert.notEqual(answer, 'silence', `seed ${seed}: no answer to ${JSON.stringify(text)}`);
      const kind = answer.type === 'error' ? answer.payload.code : answer.type ?? answer;
      got[kind] = (got[kind] ?? 0) + 1;
    }
  }));
  t.diagnostic(`RTC_JSON_SEED=${seed}`);
  t.diagnostic(`${JSON.stringify(got)}, ${lanes.reduce((sum, lane) => sum + lane.opened, 0)} connections`);
});

test('too large, too small, ten in a row', async () => {
  const lane = new Lane('5001');
  const at = (size) => {
    const frame = '{"type":"ping","payload":{"x":"@"},"id":"1"}';
    return frame.replace('@', 'x'.repeat(size - frame.length + 1));
  };
  assert.equal((await lane.send(at(32_768))).type, 'pong');
  assert.equal((await lane.send(at(32_769))).payload.code, 413);
  for (const tiny of ['{', '{}', '{"type":1}', '[]', 'x', '"']) assert.equal((await lane.send(tiny)).payload.code, 400, tiny);
  const fresh = await connect(kamailio.wsUrl);
  for (let i = 0; i < 10; i += 1) fresh.sendRaw('{nonsense nonsense}');
  assert.equal((await fresh.whenClosed(8000)).code, 1008);
  assert.equal(fresh.received.filter((m) => m.type === 'error').length, 10);
  // a proper frame of an unknown type is no rubbish, however often it comes
  const civil = await connect(kamailio.wsUrl);
  for (let i = 0; i < 30; i += 1) assert.equal((await civil.request('dance')).payload.code, 400);
  assert.equal(civil.closed, undefined);
});

test('nobody was harmed', async (t) => {
  t.diagnostic(await pings());
  assert.deepEqual(kamailio.pids, pids, 'the same processes');
  assert.deepEqual(sip, [], 'no SIP left');
  assert.equal(await kamailio.stat('step_failures'), 0);
  const log = kamailio.log();
  assert.ok(!log.includes(secret) && !log.includes('S3cr3t'), 'nothing of a frame is in the log');
  assert.ok(!/(CRITICAL|BUG): /.test(log), log.split('\n').filter((line) => /(CRITICAL|BUG): /.test(line)).join('\n'));
});
