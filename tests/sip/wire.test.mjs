/** Below the JSON: WebSocket frames that are long, in pieces, binary or broken. They end their own connection at most. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { Quiet } from './support.mjs';

const MAX_FRAME = 32_768;
const RD_BUF = 33_792; // tcp_rd_buf_size of kamailio.cfg.example

// The seed is printed, so that the same bytes can be tried again: RTC_JSON_SEED=… node --test …
const seed = Number(process.env.RTC_JSON_SEED ?? Date.now() % 1e9);
let state = seed;
/** A whole number from 0 to `below` - 1 (mulberry32). */
function random(below) {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % below;
}

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Quiet} */
let quiet;
/** @type {number[]} */
let pids;

before(async () => {
  kamailio = await startKamailio({ workers: 4, params: { max_frame: MAX_FRAME, resume_grace: 1 } });
  quiet = new Quiet(kamailio);
  pids = kamailio.pids;
});
after(() => kamailio?.stop());

// what Kamailio says of a frame that does not fit into its buffer, and of frames that are none
const tooLong = /tcp_read_ws\(\): advertised length|tcp_read\(\): buffer overrun, dropping|tcp_read_req(\(\))?: error reading/;
const noFrame = new RegExp([
  /websocket .*(must be masked|reserved fields with non-zero values|unsupported opcode|fragmentation not supported|sending Pong)/,
  /websocket .*(sending WebSocket (frame|close)|closing connection|sending on closing connection|getting TCP\/TLS connection)/,
  /<core> .*(error reading|failed to send|received CON_(ERROR|EOF)|connection reset)/i,
].map((r) => r.source).join('|'), 'i');

/** @param {RegExp[]} [expected] log lines */
async function unharmed(expected = []) {
  const client = await connect(kamailio.wsUrl);
  await client.register('5009');
  await client.expect('unregister', {}, 'unregistered');
  await client.close();
  assert.deepEqual(kamailio.pids, pids, 'the same processes');
  assert.equal(await kamailio.stat('step_failures'), 0);
  assert.deepEqual(quiet.news(expected), [], `seed ${seed}`);
}

/** Sends a frame (in pieces) and gives what comes for it: everything until the pong for a ping behind it. */
async function ask(client, pieces, options = {}) {
  const from = client.log.length;
  pieces.forEach((piece, i) => client.sendRaw(piece, { binary: false, fin: i === pieces.length - 1, ...options }));
  await client.request('ping', {}, { id: 'behind' }).catch((error) => { if (!client.closed) throw error; });
  return client.log.slice(from).filter((e) => e.dir === 'in' && e.message?.id !== 'behind')
    .map(({ message: { type, payload, id } }) => [type, id, payload.code]);
}

const piecesOf = (frame, size) => Array.from({ length: Math.ceil(frame.length / size) }, (_, i) => frame.subarray(i * size, (i + 1) * size));

for (const dn of [undefined, '5001']) {
  const who = dn ? 'registered' : 'before registration';
  const open = async () => {
    const client = await connect(kamailio.wsUrl);
    if (dn) await client.register(dn);
    return client;
  };
  const ofLength = (length) => {
    const [head, tail] = ['{"type":"ping","payload":{"note":"', '"},"id":"long"}'];
    return Buffer.from(head + 'x'.repeat(length - head.length - tail.length) + tail);
  };

  test(`frames as long as may be, and longer, ${who}`, async () => {
    const client = await open();
    for (const length of [125, 126, 127, 1000, 16_384, MAX_FRAME - 1, MAX_FRAME]) {
      assert.deepEqual(await ask(client, [ofLength(length)]), [['pong', 'long', undefined]], `${length}`);
    }
    for (const length of [MAX_FRAME + 1, MAX_FRAME + 500, RD_BUF - 20]) {
      assert.deepEqual(await ask(client, [ofLength(length)]), [['error', 'long', 413]], `${length}`);
    }
    await client.close();
    for (const length of [RD_BUF, 65_535, 65_536, 200_000]) {
      const other = await open();
      assert.deepEqual(await ask(other, [ofLength(length)]), [], `${length}`);
      assert.ok(other.closed, 'the buffer of Kamailio does not hold it');
    }
    await unharmed([tooLong]);
  });

  test(`frames in pieces, ${who}`, async () => {
    const client = await open();
    const frame = ofLength(60);
    for (const size of [59, 30, 20, 7, 1]) {
      assert.deepEqual(await ask(client, piecesOf(frame, size)), [['pong', 'long', undefined]], `pieces of ${size}`);
    }
    // too long together, though each piece is short
    assert.deepEqual(await ask(client, piecesOf(ofLength(MAX_FRAME + 1), 8000)), [['error', 'long', 413]]);
    await client.close();
    await unharmed();
  });

  test(`a binary frame is read like a text frame, ${who}`, async () => {
    const client = await open();
    const answers = await ask(client, [ofLength(60)], { binary: true });
    assert.deepEqual(answers.map(([type]) => type), ['pong']);
    await client.close();
    await unharmed();
  });
}

/** A WebSocket by hand, for frames that no library sends. */
async function rawSocket() {
  const { hostname, port } = new URL(kamailio.wsUrl);
  const socket = net.connect(Number(port), hostname);
  const received = [];
  let closed = false;
  socket.on('data', (data) => received.push(data));
  socket.on('error', () => {}); // 'close' follows
  socket.on('close', () => { closed = true; });
  socket.write(`GET / HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
    + 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\r\n');
  await until(() => Buffer.concat(received).includes('\r\n\r\n'), { what: 'the handshake' });
  assert.match(Buffer.concat(received).toString('latin1'), /^HTTP\/1\.1 101/);
  received.length = 0;
  return { socket, text: () => Buffer.concat(received).toString('latin1'), closed: () => closed };
}

/** One frame (RFC 6455, 5.2). */
function wsFrame(payload, { first = 0x81, masked = true, length = payload.length } = {}) {
  const mask = Buffer.from([1, 2, 3, 4]);
  let more = Buffer.alloc(length > 65_535 ? 8 : length > 125 ? 2 : 0);
  if (more.length === 8) more.writeBigUInt64BE(BigInt(length));
  if (more.length === 2) more.writeUInt16BE(length);
  const code = { 8: 127, 2: 126, 0: Number(length) }[more.length];
  const body = masked ? payload.map((byte, i) => byte ^ mask[i % 4]) : payload;
  return Buffer.concat([Buffer.from([first, code | (masked ? 0x80 : 0)]), more, masked ? mask : Buffer.alloc(0), body]);
}

const ping = Buffer.from('{"type":"ping","payload":{},"id":"raw"}');

test('broken WebSocket frames', { timeout: 60_000 }, async (t) => {
  t.diagnostic(`RTC_JSON_SEED=${seed}`);
  const whole = await rawSocket();
  whole.socket.write(wsFrame(ping));
  await until(() => whole.text().includes('"pong"'), { what: 'a frame by hand is a frame' });
  whole.socket.destroy();
  const broken = {
    'not masked': wsFrame(ping, { masked: false }),
    'reserved bit': wsFrame(ping, { first: 0xc1 }),
    'reserved opcode': wsFrame(ping, { first: 0x83 }),
    'reserved control opcode': wsFrame(ping, { first: 0x8b }),
    'fragmented control frame': wsFrame(Buffer.from('x'), { first: 0x09 }),
    'long control frame': wsFrame(Buffer.alloc(300, 'x'), { first: 0x89 }),
    'longer than it is': wsFrame(ping, { length: 1000 }),
    'longer than anything': wsFrame(ping, { length: 0x7fffffffffffffffn }),
    'length with the top bit': wsFrame(ping, { length: 0xffffffffffffffffn }),
    'close with one byte': wsFrame(Buffer.from([3]), { first: 0x88 }),
    'close without a code': wsFrame(Buffer.alloc(0), { first: 0x88 }),
    'no frame at all': Buffer.from('secret'.repeat(80)),
    zeros: Buffer.alloc(500),
    ones: Buffer.alloc(500, 0xff),
  };
  for (const [name, bytes] of Object.entries(broken)) {
    for (const cut of [bytes.length, 1, bytes.length >> 1]) {
      const raw = await rawSocket();
      raw.socket.write(bytes.subarray(0, cut));
      await sleep(20);
      if (cut < bytes.length && !raw.closed()) raw.socket.write(bytes.subarray(cut));
      await sleep(20);
      assert.ok(!raw.text().includes('"pong"'), name);
      raw.socket.resetAndDestroy();
    }
  }
  for (let i = 0; i < 300; i += 1) {
    const raw = await rawSocket();
    raw.socket.write(Buffer.from(Array.from({ length: 1 + random(400) }, () => random(256))));
    if (random(2)) await sleep(random(5));
    raw.socket.destroy();
  }
  await sleep(500);
  assert.ok(!kamailio.log().includes('secret'));
  await unharmed([tooLong, noFrame]);
});

test('who is closed and goes on all the same is not heard, and fills no log', async () => {
  const raw = await rawSocket();
  for (let i = 0; i < 10; i += 1) raw.socket.write(wsFrame(Buffer.from('{nonsense nonsense}')));
  await until(() => raw.text().includes('malformed frames'), { what: 'the close frame' });
  for (let i = 0; i < 100; i += 1) raw.socket.write(wsFrame(ping));
  await sleep(500);
  assert.ok(!raw.text().includes('"pong"'));
  raw.socket.destroy();
  await sleep(100);
  await unharmed([/connection \d+: closed for malformed frames/, /error reading|connection reset/i]);
});
