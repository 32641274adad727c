/** The optional parts of the example configuration, each at work: other pages, failover. (Homer: hep.test.mjs.) */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { onExit, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { openPeer } from './peer.mjs';

/** @type {(() => unknown)[]} */
const ends = [];
after(async () => { for (const end of ends.reverse()) await end(); });
const start = async (options) => {
  const kamailio = await startKamailio({ workers: 2, ...options });
  ends.push(() => kamailio.stop());
  return kamailio;
};
/** Whether a page of that origin may connect. */
const admits = (url, origin) => connect(url, { origin }).then(async (client) => { await client.close(); return true; }, (error) => {
  assert.match(error.message, /403/);
  return false;
});

test('pages of this host may connect, others may not; a program that is no page may', async () => {
  const kamailio = await start({});
  for (const [origin, wanted] of [
    [undefined, true], ['https://127.0.0.1', true], ['https://127.0.0.1:8443', true], ['http://127.0.0.1:1', true],
    ['https://phone.example.org', false], ['https://127.0.0.1.example.org', false], ['null', false], ['https://evil.example:127', false],
    ['https://127.0.0.1@evil.example', false],
  ]) assert.equal(await admits(kamailio.wsUrl, origin), wanted, origin);
  assert.match(kamailio.log(), /a page of https:\/\/phone\.example\.org may not connect/);
});

test('ALLOWED_ORIGINS: those pages and no others', async () => {
  const kamailio = await start({ defines: { ALLOWED_ORIGINS: '"^https://phone[.]example[.]org$"' } });
  for (const [origin, wanted] of [
    ['https://phone.example.org', true], ['https://127.0.0.1', false], ['https://phone.example.org.evil.example', false], ['https://phonexexample.org', false],
  ]) assert.equal(await admits(kamailio.wsUrl, origin), wanted, origin);
});

test('WITH_FAILOVER: the first server, and the second when that one is silent', async () => {
  const ports = [await freePort(), await freePort()];
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-dispatcher-'));
  onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
  const list = path.join(dir, 'dispatcher.list');
  fs.writeFileSync(list, `1 sip:127.0.0.1:${ports[0]} 0 10\n1 sip:127.0.0.1:${ports[1]} 0 5\n`);
  const kamailio = await start({ defines: { WITH_FAILOVER: true, DISPATCHER_LIST: `"${list}"`, PING_INTERVAL: 1 } });
  const peers = [];
  for (const port of ports) {
    const peer = await openPeer(kamailio.sipPort, { port });
    ends.push(() => peer.close());
    peer.up = true;
    peer.onRequest((m) => {
      if (m.method === 'OPTIONS' && peer.up) peer.reply(m, 200);
      if (m.method === 'INVITE') peer.reply(m, 486);
    });
    peers.push(peer);
  }
  const state = () => kamailio.rpcText('dispatcher.list');
  const allUp = (what) => until(async () => /FLAGS: A/.test(await state()) && !/FLAGS: [IT]/.test(await state()), { ms: 20_000, what });
  await until(() => peers.every((peer) => peer.log.some(({ dir: way, message }) => way === 'in' && message.method === 'OPTIONS')), { ms: 10_000, what: 'OPTIONS came' });
  await allUp('both are there');
  const client = await connect(kamailio.wsUrl);
  await client.register('5001');
  const invites = (peer) => peer.log.filter(({ dir: way, message, repeat }) => way === 'in' && !repeat && message.method === 'INVITE').length;
  const call = () => client.request('call', { to: '1003', sdp: fakeOffer(), iceServers: [] });

  assert.equal((await call()).payload.code, 486);
  assert.deepEqual(peers.map(invites), [1, 0]);
  peers[0].up = false;
  await until(async () => /FLAGS: I/.test(await state()), { ms: 20_000, what: 'the silent server is given up' });
  assert.equal((await call()).payload.code, 486);
  assert.deepEqual(peers.map(invites), [1, 1]);
  peers[0].up = true;
  await allUp('it is taken again');
  assert.equal((await call()).payload.code, 486);
  assert.deepEqual(peers.map(invites), [2, 1]);
  await client.close();
});
