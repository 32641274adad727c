/** Clients that are slow, mute, or send rubbish: they cost little, are closed, and the honest ones beside them notice nothing. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, afterEach, before, test } from 'node:test';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { Bench, hopByNumber, memoryOf, tm, to } from '../sip/support.mjs';
import { backAtBaseline, Callee, noAlarm, note, spread } from './support.mjs';

const honest = Array.from({ length: 10 }, (_, i) => String(5201 + i));
const bad = Array.from({ length: 10 }, (_, i) => String(5301 + i));

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
let bench;
let far;

before(async () => {
  kamailio = await startKamailio({
    cfg: hopByNumber(), users: [...honest, ...bad], shm: 512, cfgExtra: tm({ wt_timer: 200 }), params: { resume_grace: 2, call_history: 0 },
  });
});
after(() => kamailio?.stop());
afterEach(() => noAlarm(kamailio));

/** Ten browsers that ping and call until they are told to stop; gives what they measured. */
async function beside(work) {
  bench = new Bench(kamailio, { log: [/./] }); // what the log may say is each test's matter
  far = new Callee(await bench.peer());
  const clients = await Promise.all(honest.map((dn) => bench.agent(dn)));
  const [pings, calls] = [[], []];
  let running = true;
  const busy = Promise.all(clients.map(async (client, i) => {
    for (let n = 0; running; n += 1) {
      const began = performance.now();
      if (n % 20 === i) {
        const { callId } = await client.expect('call', { to: to(far.peer), sdp: fakeOffer() }, 'callAccepted', { ms: 10_000 });
        calls.push(performance.now() - began);
        await client.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded', { ms: 10_000 });
      } else {
        await client.expect('ping', {}, 'pong', { ms: 10_000 });
        pings.push(performance.now() - began);
      }
      await sleep(20);
    }
  }));
  try {
    await Promise.race([work(), busy]);
  } finally { running = false; }
  await busy;
  assert.deepEqual(clients.filter((client) => client.closed), [], 'no honest client was closed');
  await until(() => far.live.length === 0, { ms: 20_000, what: 'no call is left on the far side' });
  note(`honest clients meanwhile: ping ${spread(pings)}; call set-up ${spread(calls)}`);
  await bench.finish();
}

/** Memory before and after, with nobody connected. */
async function leavesNothing(work) {
  const settled = async () => {
    await until(async () => await kamailio.stat('arena_records') === 0 && (await kamailio.rpc('core.tcp_info')).opened_connections <= 1, { ms: 30_000, every: 200, what: 'nobody is connected' });
    return memoryOf(kamailio);
  };
  const from = await settled();
  await work();
  backAtBaseline(from, await settled(), { shm: 1_000_000 });
}

const shmUsed = async () => Number((await kamailio.rpc('core.shmmem')).used);

test('browsers that never read', { timeout: 180_000 }, () => leavesNothing(async () => {
  await beside(async () => {
    const mute = await Promise.all(bad.map(async (dn) => {
      const client = await connect(kamailio.wsUrl);
      await client.register(dn);
      return client;
    }));
    // the outcome of a request is told again to whoever sends it again: a short question with a long answer
    await Promise.all(mute.map(async (client, i) => {
      await client.expect('call', { to: to(far.peer), sdp: fakeOffer() }, 'callAccepted', { id: `mute-${i}` });
      client.pause();
    }));
    const from = await shmUsed();
    let most = from;
    let frames = 0;
    for (let round = 0; round < 400; round += 1) {
      for (const [i, client] of mute.entries()) {
        if (client.closed) continue;
        for (let n = 0; n < 20; n += 1) client.send('call', { to: '1', sdp: '' }, { id: `mute-${i}` });
        frames += 20;
        client.log.length = 0;
      }
      await sleep(20);
      if (round % 10 === 0) most = Math.max(most, await shmUsed());
    }
    await sleep(1000);
    most = Math.max(most, await shmUsed());
    note(`${mute.length} browsers asked ${frames} times and read nothing: at most ${((most - from) / mute.length / 1024).toFixed(0)} kB of shared memory waited for each`);
    assert.ok(most - from < mute.length * 400_000, `${most - from} bytes wait`);
    const attached = (await kamailio.rpcRows('rtc_json.agents')).filter((row) => bad.includes(String(row.dn)) && row.attached > 0).length;
    note(`${mute.length - attached} of them were closed`);
    for (const client of mute) client.rst();
  });
}));

test('500 connections that never finish their handshake', { timeout: 180_000 }, () => leavesNothing(async () => {
  const sockets = [];
  onExit(() => { for (const socket of sockets) socket.destroy(); });
  await beside(async () => {
    const from = await shmUsed();
    let ended = 0;
    for (let i = 0; i < 500; i += 1) {
      const socket = net.connect({ port: kamailio.wsPort, host: '127.0.0.1' });
      socket.on('error', () => {});
      socket.on('close', () => { ended += 1; });
      sockets.push(socket);
    }
    for (const text of ['GET / HTTP/1.1\r\n', 'Host: 127.0.0.1\r\n', 'Upgrade: webso']) {
      for (const socket of sockets) socket.write(text);
      await sleep(1000);
    }
    note(`500 open handshakes: ${((await shmUsed() - from) / 500 / 1024).toFixed(0)} kB of shared memory each`);
    // somebody who comes now gets in
    const late = await connect(kamailio.wsUrl);
    await late.register(bad[0]);
    await late.expect('unregister', {}, 'unregistered');
    await late.close();
    await until(() => ended === 500, { ms: 40_000 }).then(() => note('Kamailio closed all of them'), () => note(`Kamailio closed ${ended} of them within 40 s`));
  });
  for (const socket of sockets) socket.destroy();
}));

test('1,000 bad frames a second', { timeout: 180_000 }, () => leavesNothing(async () => {
  const rubbish = [
    '{"type":', '{"type":"call","type":"call","payload":{},"id":"1"}', '{"type":"nothing","payload":{},"id":"7"}', `{"a":${'['.repeat(200)}`,
    Buffer.from([0, 1, 2, 3]), '{"type":"call","payload":7,"id":"1"}', `{"type":"ping","payload":{},"id":"${'y'.repeat(100)}"}`, '{"type":"hangup","payload":{"callId":"x"},"id":"h"}',
  ];
  const seconds = 10;
  let sent = 0;
  let closed = 0;
  const before_ = await kamailio.stat('bad_frames');
  await beside(async () => {
    const end = Date.now() + seconds * 1000;
    await Promise.all(Array.from({ length: 60 }, async () => {
      let client;
      let next = Date.now();
      for (let n = 0; Date.now() < end; n += 1) {
        if (!client || client.closed) { client = await connect(kamailio.wsUrl); }
        try { client.sendRaw(rubbish[n % rubbish.length]); sent += 1; } catch { /* closed meanwhile */ }
        if (client.closed?.code === 1008 || n % 14 === 13) {
          // the tenth closes it; whoever goes on comes back
          await client.whenClosed(2000).then(({ code }) => { closed += code === 1008 ? 1 : 0; }, () => client.rst());
          client = undefined;
        }
        next += 30;
        await sleep(Math.max(0, next - Date.now()));
      }
      client?.terminate();
    }));
  });
  const counted = await kamailio.stat('bad_frames') - before_;
  note(`${(sent / seconds).toFixed(0)} bad frames a second, ${counted} counted, ${closed} connections closed with 1008`);
  assert.ok(sent > 900 * seconds && counted > sent * 0.5 && closed > 20, `${sent} ${counted} ${closed}`);
}));
