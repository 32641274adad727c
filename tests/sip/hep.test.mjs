/** WITH_HEP of the example configuration: what a Homer server gets is what was on the wire, all of it, and no more. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { after, before, test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { openPeer } from './peer.mjs';
import { callIn, callOut, endCall, hopByNumber, idle, Quiet, to } from './support.mjs';

/** Chunks of a HEP3 packet by their type (of vendor 0, the generic one). @param {Buffer} data */
function readHep(data) {
  assert.equal(data.toString('latin1', 0, 4), 'HEP3');
  assert.equal(data.readUInt16BE(4), data.length);
  const chunks = new Map();
  let at = 6;
  while (at < data.length) {
    const [vendor, type, length] = [0, 2, 4].map((offset) => data.readUInt16BE(at + offset));
    assert.ok(length >= 6 && at + length <= data.length, `chunk ${type} of ${length} bytes`);
    if (vendor === 0) chunks.set(type, data.subarray(at + 6, at + length));
    at += length;
  }
  const address = (type) => [...chunks.get(type)].join('.');
  return {
    transport: chunks.get(2)[0], from: `${address(3)}:${chunks.get(7).readUInt16BE(0)}`, to: `${address(4)}:${chunks.get(8).readUInt16BE(0)}`,
    at: chunks.get(9).readUInt32BE(0), protocol: chunks.get(11)[0], text: chunks.get(15).toString('latin1'),
  };
}

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {import('./peer.mjs').Peer} */
let far;
/** @type {dgram.Socket} */
let homer;
/** @type {ReturnType<typeof readHep>[]} */
const copies = [];

before(async () => {
  homer = dgram.createSocket('udp4');
  homer.on('message', (data) => copies.push(readHep(data)));
  const port = await freePort();
  await new Promise((done) => { homer.bind(port, '127.0.0.1', done); });
  kamailio = await startKamailio({ cfg: hopByNumber(), defines: { WITH_HEP: true, HEP_SERVER: `"sip:127.0.0.1:${port}"` } });
  far = await openPeer(kamailio.sipPort);
});
after(async () => {
  homer?.close();
  await far?.close();
  await kamailio?.stop();
});

test('each message of our calls is copied as it was sent, with its addresses; nothing of what browsers say', async () => {
  const client = await connect(kamailio.wsUrl);
  const { session } = await client.register('5001');
  // out and in, answered; busy; given up while it rings
  await endCall(client, await callOut(client, far));
  await endCall(client, await callIn(kamailio, client, far, '5001'));
  const busy = client.request('call', { to: to(far), sdp: fakeOffer() });
  far.reply(await far.request('INVITE'), 486);
  assert.equal((await busy).payload.code, 486);
  client.send('call', { to: to(far), sdp: fakeOffer() });
  const ringing = await far.request('INVITE');
  far.reply(ringing, 180);
  const { callId } = await client.waitFor('callProgress', (p) => p.state === 'ringing');
  client.send('hangup', { callId });
  far.reply(await far.request('CANCEL'), 200);
  far.reply(ringing, 487);
  await far.waitFor((m) => m.method === 'ACK' && m.callId === ringing.callId);
  await idle(kamailio);

  const [own, theirs] = [`127.0.0.1:${kamailio.sipPort}`, `127.0.0.1:${far.port}`];
  const wanted = far.log.filter(({ repeat }) => !repeat).map(({ dir, message }) => ({
    from: dir === 'in' ? own : theirs, to: dir === 'in' ? theirs : own, text: message.text,
  }));
  const missing = () => wanted.filter((m) => !copies.some((copy) => copy.text === m.text && copy.from === m.from && copy.to === m.to));
  await until(() => missing().length === 0, { what: 'all are there' }).catch(() => {});
  assert.deepEqual(missing().map(({ from, text }) => `${from} ${text.split('\r\n').filter((line) => /^(SIP|[A-Z]+ sip|CSeq)/.test(line)).join(' ')}`), []);
  const methods = new Set(wanted.map(({ text }) => /^CSeq: \d+ (\w+)/m.exec(text)[1]));
  for (const method of ['INVITE', 'ACK', 'BYE', 'CANCEL']) assert.ok(methods.has(method), method);
  assert.ok(wanted.length >= 20, `${wanted.length}`);

  for (const copy of copies) {
    assert.deepEqual([copy.transport, copy.protocol], [17, 1], 'SIP by UDP');
    assert.ok(Math.abs(copy.at - Date.now() / 1000) < 60, `${copy.at}`);
    for (const secret of ['pw5001', '"type"', session]) assert.ok(!copy.text.includes(secret), secret);
  }
  assert.ok(!kamailio.log().includes('pw5001'));
  assert.deepEqual(new Quiet(kamailio).news(), []);
  await client.close();
});
