/**
 * RFC 6455 on a real Kamailio with the module, frame by frame, after the plan of the Autobahn test suite (sections 1 to 7; the suite
 * itself wants a server that echoes every message, which this one does not). In place of an echo: a `ping` of ours gets its `pong`.
 *
 * What Kamailio's websocket module does otherwise than the RFC asks stands in `known`, case by case; a case that is not there must be right.
 */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { sleep } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';

const top = fileURLToPath(new URL('../..', import.meta.url));
const [CONT, TEXT, BINARY, CLOSE, PING, PONG] = [0, 1, 2, 8, 9, 10];

/** Cases that Kamailio's own websocket module (5.6) answers otherwise. */
const known = new Set([
  '1.2 binary frame is refused, and the connection stays',
  '2.5 ping of 126 bytes fails the connection',
  '5.2 pong in two fragments fails the connection',
  '5.9 continuation without a beginning fails the connection',
  '5.12 continuation without a beginning or end fails the connection',
  '5.18 text within a fragmented text fails the connection',
]);

let kamailio;
let pids;
before(async () => {
  kamailio = await startKamailio({ mode: 'local' });
  pids = kamailio.pids;
});
after(() => kamailio?.stop());

/** A frame as bytes. */
function frame(opcode, payload = '', { fin = true, rsv = 0, mask = true } = {}) {
  const data = Buffer.from(payload);
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
  const bit = mask ? 0x80 : 0;
  if (data.length < 126) head.push(bit | data.length);
  else if (data.length < 65_536) head.push(bit | 126, data.length >> 8, data.length & 255);
  else head.push(bit | 127, 0, 0, 0, 0, data.length >>> 24, (data.length >> 16) & 255, (data.length >> 8) & 255, data.length & 255);
  if (!mask) return Buffer.concat([Buffer.from(head), data]);
  const key = crypto.randomBytes(4);
  return Buffer.concat([Buffer.from(head), key, data.map((byte, i) => byte ^ key[i % 4])]);
}

/** A bare connection, past the handshake. */
class Raw {
  /** @type {{ opcode: number, payload: Buffer }[]} */
  frames = [];

  closed = false;

  #rest = Buffer.alloc(0);

  static async open() {
    const raw = new Raw();
    raw.socket = net.connect(kamailio.wsPort, '127.0.0.1');
    raw.socket.setNoDelay(true);
    raw.socket.on('error', () => {});
    raw.socket.on('close', () => { raw.closed = true; });
    await new Promise((done, fail) => { raw.socket.once('connect', done); raw.socket.once('error', fail); });
    raw.socket.write(['GET / HTTP/1.1', `Host: 127.0.0.1:${kamailio.wsPort}`, 'Upgrade: websocket', 'Connection: Upgrade',
      `Sec-WebSocket-Key: ${crypto.randomBytes(16).toString('base64')}`, 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Protocol: sip', `Origin: http://127.0.0.1`, '', ''].join('\r\n'));
    await new Promise((done, fail) => {
      let head = Buffer.alloc(0);
      const on = (data) => {
        head = Buffer.concat([head, data]);
        const end = head.indexOf('\r\n\r\n');
        if (end < 0) return;
        raw.socket.off('data', on);
        if (!head.toString().startsWith('HTTP/1.1 101')) { fail(new Error(head.toString().split('\r\n')[0])); return; }
        raw.socket.on('data', (more) => raw.#read(more));
        raw.#read(head.subarray(end + 4));
        done();
      };
      raw.socket.on('data', on);
    });
    return raw;
  }

  #read(data) {
    this.#rest = Buffer.concat([this.#rest, data]);
    for (;;) {
      if (this.#rest.length < 2) return;
      let length = this.#rest[1] & 127;
      let at = 2;
      if (length === 126) { if (this.#rest.length < 4) return; length = this.#rest.readUInt16BE(2); at = 4; }
      else if (length === 127) { if (this.#rest.length < 10) return; length = Number(this.#rest.readBigUInt64BE(2)); at = 10; }
      if (this.#rest.length < at + length) return;
      this.frames.push({ opcode: this.#rest[0] & 15, payload: this.#rest.subarray(at, at + length) });
      this.#rest = this.#rest.subarray(at + length);
    }
  }

  /** Waits until something holds, at most so long. */
  async wait(holds, ms = 1500) {
    const end = Date.now() + ms;
    while (!holds() && Date.now() < end) await sleep(10);
    return Boolean(holds());
  }

  get texts() { return this.frames.filter((f) => f.opcode === TEXT).map((f) => JSON.parse(f.payload)); }

  pong(id) { return this.wait(() => this.texts.some((m) => m.type === 'pong' && m.id === id)); }

  error() { return this.wait(() => this.texts.some((m) => m.type === 'error')); }

  pongs(payload) { return this.wait(() => this.frames.some((f) => f.opcode === PONG && f.payload.equals(Buffer.from(payload)))); }

  /** The connection is failed: a close frame, or the end of TCP. */
  fails() { return this.wait(() => this.closed || this.frames.some((f) => f.opcode === CLOSE)); }

  get status() { const f = this.frames.find((x) => x.opcode === CLOSE); return f && f.payload.length >= 2 ? f.payload.readUInt16BE(0) : undefined; }
}

const json = (id, fill = '') => JSON.stringify({ type: 'ping', payload: { x: fill }, id });
const sized = (id, size) => json(id, 'x'.repeat(size - json(id).length));
const send = (raw, ...frames) => raw.socket.write(Buffer.concat(frames));
async function slowly(raw, data, step) {
  for (let at = 0; at < data.length; at += step) { raw.socket.write(data.subarray(at, at + step)); await sleep(1); }
}

/** Section and name, and what must be true. @type {[string, (raw: Raw) => Promise<boolean>][]} */
const cases = [
  ...[125, 126, 127, 128, 4096, 32_000].map((size) => [`1.1 text of ${size} bytes`, async (raw) => { send(raw, frame(TEXT, sized('a', size))); return raw.pong('a'); }]),
  ['1.1 text, byte by byte', async (raw) => { await slowly(raw, frame(TEXT, sized('a', 200)), 1); return raw.pong('a'); }],
  ['1.1 text of 4096 bytes in pieces of 997', async (raw) => { await slowly(raw, frame(TEXT, sized('a', 4096)), 997); return raw.pong('a'); }],
  ['1.1 three texts in one segment', async (raw) => { send(raw, ...['a', 'b', 'c'].map((id) => frame(TEXT, json(id)))); return await raw.pong('a') && await raw.pong('b') && raw.pong('c'); }],
  ['1.1 empty text, and the connection stays', async (raw) => { send(raw, frame(TEXT)); await sleep(50); send(raw, frame(TEXT, json('a'))); return raw.pong('a'); }],
  ['1.2 binary frame is refused, and the connection stays', async (raw) => { send(raw, frame(BINARY, json('b'))); if (!await raw.error()) return false; send(raw, frame(TEXT, json('a'))); return raw.pong('a'); }],
  ['2.1 ping without payload', async (raw) => { send(raw, frame(PING)); return raw.pongs(''); }],
  ['2.2 ping with text', async (raw) => { send(raw, frame(PING, 'Hello')); return raw.pongs('Hello'); }],
  ['2.3 ping with bytes', async (raw) => { const p = Buffer.from([0, 255, 254, 253, 252, 251, 0, 255]); send(raw, frame(PING, p)); return raw.pongs(p); }],
  ['2.4 ping of 125 bytes', async (raw) => { send(raw, frame(PING, 'x'.repeat(125))); return raw.pongs('x'.repeat(125)); }],
  ['2.5 ping of 126 bytes fails the connection', async (raw) => { send(raw, frame(PING, 'x'.repeat(126))); return raw.fails(); }],
  ['2.6 ping of 125 bytes, byte by byte', async (raw) => { await slowly(raw, frame(PING, 'x'.repeat(125)), 1); return raw.pongs('x'.repeat(125)); }],
  ['2.7 pong unasked is passed over', async (raw) => { send(raw, frame(PONG, 'x'), frame(PING, 'y')); return raw.pongs('y'); }],
  ['2.10 ten pings, ten pongs in order', async (raw) => {
    send(raw, ...Array.from({ length: 10 }, (_, i) => frame(PING, `p${i}`)));
    await raw.wait(() => raw.frames.filter((f) => f.opcode === PONG).length === 10);
    return raw.frames.map((f) => String(f.payload)).join() === Array.from({ length: 10 }, (_, i) => `p${i}`).join();
  }],
  ...[1, 2, 4, 7].map((rsv) => [`3 text with RSV ${rsv} fails the connection`, async (raw) => { send(raw, frame(TEXT, json('a'), { rsv })); return raw.fails(); }]),
  ['3 ping with RSV 1 fails the connection', async (raw) => { send(raw, frame(PING, 'x', { rsv: 4 })); return raw.fails(); }],
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => [`4 opcode ${opcode} fails the connection`, async (raw) => { send(raw, frame(opcode, 'x')); return raw.fails(); }]),
  ['5.1 ping in two fragments fails the connection', async (raw) => { send(raw, frame(PING, 'a', { fin: false }), frame(CONT, 'b')); return raw.fails(); }],
  ['5.2 pong in two fragments fails the connection', async (raw) => { send(raw, frame(PONG, 'a', { fin: false }), frame(CONT, 'b')); return raw.fails(); }],
  ['5.3 text in two fragments', async (raw) => { const t = json('a'); send(raw, frame(TEXT, t.slice(0, 9), { fin: false }), frame(CONT, t.slice(9))); return raw.pong('a'); }],
  ['5.5 text in fragments of one byte', async (raw) => {
    const t = json('a');
    for (let i = 0; i < t.length; i += 1) { send(raw, frame(i ? CONT : TEXT, t[i], { fin: i === t.length - 1 })); await sleep(1); }
    return raw.pong('a');
  }],
  ['5.6 ping between two fragments', async (raw) => { const t = json('a'); send(raw, frame(TEXT, t.slice(0, 9), { fin: false }), frame(PING, 'y'), frame(CONT, t.slice(9))); return await raw.pongs('y') && raw.pong('a'); }],
  ['5.9 continuation without a beginning fails the connection', async (raw) => { send(raw, frame(CONT, json('a'))); return raw.fails(); }],
  ['5.12 continuation without a beginning or end fails the connection', async (raw) => { send(raw, frame(CONT, 'x', { fin: false })); return raw.fails(); }],
  ['5.18 text within a fragmented text fails the connection', async (raw) => { send(raw, frame(TEXT, '{', { fin: false }), frame(TEXT, json('a'))); return raw.fails(); }],
  ['6.2 text with characters of two to four bytes', async (raw) => { send(raw, frame(TEXT, json('a', 'Zoë κόσμε 𝄞'))); return raw.pong('a'); }],
  ['6.4 character divided by a fragment', async (raw) => { const t = Buffer.from(json('a', 'é')); const at = t.indexOf(0xc3) + 1; send(raw, frame(TEXT, t.subarray(0, at), { fin: false }), frame(CONT, t.subarray(at))); return raw.pong('a'); }],
  ...[['overlong', [0xc0, 0xaf]], ['a surrogate', [0xed, 0xa0, 0x80]], ['beyond Unicode', [0xf4, 0x90, 0x80, 0x80]], ['a lone continuation', [0x80]], ['cut off', [0xce]]].map(([what, bytes]) => [
    `6.3 text that is no UTF-8 (${what}) is refused`, async (raw) => {
      const t = Buffer.from(json('a', '@'));
      const at = t.indexOf(64);
      send(raw, frame(TEXT, Buffer.concat([t.subarray(0, at), Buffer.from(bytes), t.subarray(at + 1)])));
      return await raw.wait(() => raw.closed || raw.status || raw.texts.length) && !raw.texts.some((m) => m.type === 'pong');
    }]),
  ['7.1 close is answered with close', async (raw) => { send(raw, frame(CLOSE, Buffer.from([3, 232]))); return await raw.fails() && raw.status === 1000; }],
  ['7.1 nothing is handled behind a close', async (raw) => { send(raw, frame(CLOSE, Buffer.from([3, 232])), frame(TEXT, json('a')), frame(PING, 'y')); await raw.fails(); await sleep(100); return !raw.texts.length && !raw.frames.some((f) => f.opcode === PONG); }],
  ['7.3 close without a status', async (raw) => { send(raw, frame(CLOSE)); return raw.fails(); }],
  ['7.3 close of one byte fails the connection', async (raw) => { send(raw, frame(CLOSE, 'x')); return raw.fails(); }],
  ['7.3 close with a reason of 123 bytes', async (raw) => { send(raw, frame(CLOSE, Buffer.concat([Buffer.from([3, 232]), Buffer.alloc(123, 97)]))); return raw.fails(); }],
  ['7.3 close with a reason of 124 bytes fails the connection', async (raw) => { send(raw, frame(CLOSE, Buffer.concat([Buffer.from([3, 232]), Buffer.alloc(124, 97)]))); return raw.fails(); }],
  ['7.5 close with a reason that is no UTF-8 fails the connection', async (raw) => { send(raw, frame(CLOSE, Buffer.from([3, 232, 0xce, 0xff]))); return raw.fails(); }],
  ...[1001, 1002, 1003, 1007, 1011, 3000, 4999].map((status) => [`7.7 close with status ${status}`, async (raw) => { const b = Buffer.alloc(2); b.writeUInt16BE(status); send(raw, frame(CLOSE, b)); return raw.fails(); }]),
  ...[0, 999, 1004, 1005, 1006, 1016, 2999, 5000].map((status) => [`7.9 close with status ${status}, which may not be sent, fails the connection`, async (raw) => { const b = Buffer.alloc(2); b.writeUInt16BE(status); send(raw, frame(CLOSE, b)); return raw.fails(); }]),
  ['RFC 5.1 a frame without a mask fails the connection', async (raw) => { send(raw, frame(TEXT, json('a'), { mask: false })); return await raw.fails() && !raw.texts.length; }],
];

test(`${cases.length} cases of RFC 6455`, async (t) => {
  const rows = [];
  const wrong = [];
  const right = [];
  for (const [name, run] of cases) {
    const raw = await Raw.open();
    const ok = await run(raw);
    const seen = raw.frames.map((f) => (f.opcode === TEXT ? JSON.parse(f.payload).type : f.opcode === CLOSE ? `close ${raw.status ?? ''}`.trim() : f.opcode === PONG ? 'pong frame' : f.opcode));
    rows.push(`| ${name} | ${ok ? 'OK' : 'not OK'} | ${[...new Set(seen)].join(', ') || (raw.closed ? 'TCP closed' : 'nothing')} |`);
    if (!ok && !known.has(name)) wrong.push(rows.at(-1));
    if (ok && known.has(name)) right.push(name);
    raw.socket.destroy();
  }
  fs.mkdirSync(path.join(top, 'run'), { recursive: true });
  fs.writeFileSync(path.join(top, 'run/websocket.md'), `${['| case | result | what came |', '|---|---|---|', ...rows].join('\n')}\n`);
  console.log(rows.join('\n'));
  for (const name of right) t.diagnostic(`better than known: ${name}`);
  assert.deepEqual(wrong, []);
});

test('nobody was harmed', async () => {
  assert.deepEqual(kamailio.pids, pids, 'the same processes');
  const client = await connect(kamailio.wsUrl);
  await client.register('5001');
  await client.expect('ping', {}, 'pong');
  assert.equal(await kamailio.stat('step_failures'), 0);
});
