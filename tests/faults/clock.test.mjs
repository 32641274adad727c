/** Clocks jump: the wall clock is set, or the machine has been asleep. Calls live on, and what had to end ends. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { Bench, callIn, callOut, endCall, endsOf, hopByNumber, memoryOf, tm, to } from '../sip/support.mjs';
import { backAtBaseline, noAlarm, note, resume } from './support.mjs';

const preload = fileURLToPath(new URL('../../run/faults/jumping_clock.so', import.meta.url));
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-clock-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const file = path.join(dir, 'offsets');
const HOUR = 3_600_000;

/** By how much Kamailio's clocks are off, in milliseconds. */
const now = { wall: 0, boot: 0 };
let fd;
function jump({ wall = 0, boot = 0 }) {
  now.wall += wall;
  now.boot += boot;
  const both = Buffer.alloc(16);
  both.writeBigInt64LE(BigInt(now.wall), 0);
  both.writeBigInt64LE(BigInt(now.boot), 8);
  fs.writeSync(fd, both, 0, 16, 0);
}

// Kamailio keeps a closed connection in its list for some seconds, by default five. Is the clock set forward meanwhile, it takes it for one that is idle,
// and complains each second that it cannot be pinged
const FORGETS_SOON = '\nmodparam("websocket", "rm_delay_interval", 1)\n';
const closedAreForgotten = () => sleep(3000);

let kamailio;
/** @type {Bench} */
let bench;
/** Connections that were opened after others had gone. */
const others = [];
/** @type {Awaited<ReturnType<typeof memoryOf>>} */
let from;

before(async () => {
  fs.writeFileSync(file, Buffer.alloc(16));
  fd = fs.openSync(file, 'r+');
  kamailio = await startKamailio({
    cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, fr_inv_timer: 30_000, wt_timer: 200 }) + FORGETS_SOON, env: { LD_PRELOAD: preload, JUMPING_CLOCK: file },
    params: { resume_grace: 30, expires: 300, call_history: 100, log_calls: 1, turn_uris: 'turn:127.0.0.1', turn_secret: '0123456789abcdef0123456789' },
  });
  bench = new Bench(kamailio, { log: [/adjust_ticks|timer_handler|our_timer|timer/] });
  from = await memoryOf(kamailio);
});
after(async () => { await kamailio?.stop(); if (fd !== undefined) fs.closeSync(fd); });
afterEach(async () => {
  for (const client of others.splice(0)) {
    await client.expect('unregister', {}, 'unregistered');
    await client.close();
  }
  await bench.finish();
  noAlarm(kamailio);
});

const record = (callId) => {
  const line = kamailio.log().split('\n').find((text) => text.includes('call-record') && text.includes(callId));
  return line && JSON.parse(line.slice(line.indexOf('{')));
};
const turnUntil = (registered) => Number(registered.iceServers.find((server) => server.username).username.split(':')[0]);
/** Kamailio shows the time of its own wall clock. */
const wallOf = async () => Number((await kamailio.rpc('core.uptime')).uptime);

// Kamailio looks at the wall clock every five seconds and moves its own timers forward with it, never back: what tm waits for has then
// waited long enough, and a connection that says nothing is old. `patient`: no timer of Kamailio is as short as the jump is long.
for (const { what, wall, patient } of [
  { what: 'ten seconds forward', wall: 10_000, patient: true },
  { what: 'a day forward', wall: 24 * HOUR },
  { what: 'two days back', wall: -48 * HOUR, patient: true },
  { what: 'to where it was', wall: 24 * HOUR - 10_000 },
]) {
  test(`the wall clock is set ${what}`, { timeout: 180_000 }, async () => {
    const up = await wallOf();
    const dns = ['5001', '5002'];
    const clients = await Promise.all(dns.map((dn) => bench.agent(dn)));
    const sessions = clients.map((client) => client.registered.session);
    const far = await bench.peer();
    const out = await callOut(clients[0], far);
    const into = await callIn(kamailio, clients[1], far, dns[1]);
    // one rings over the jump
    const id = clients[0].send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    const invite = await far.waitFor((m) => m.method === 'INVITE' && m.callId !== out.invite.callId && m.header('To').includes(`sip:${to(far)}@`));
    far.reply(invite, 180);
    const { callId: ringing } = await clients[0].waitFor('callProgress', (p) => p.request === id && p.state === 'ringing');
    await closedAreForgotten();
    const begun = performance.now();
    jump({ wall });
    assert.ok(Math.abs(await wallOf() - up - wall / 1000) < 60, 'Kamailio sees it, or this tests nothing');
    // two of its looks at the clock
    await sleep(11_000);

    const closed = clients.filter((client) => client.closed).length;
    if (patient) assert.equal(closed, 0, 'no connection was closed');
    for (const [i, dn] of dns.entries()) {
      if (clients[i].closed) {
        clients[i] = await resume(kamailio, dn, sessions[i]);
        others.push(clients[i]);
      }
      await clients[i].expect('ping', {}, 'pong');
    }
    const given = (await kamailio.rpcRows('rtc_json.calls')).every((row) => row.callId !== ringing);
    if (given) {
      assert.ok(!patient, 'tm has not lost patience');
      // the far side is told, too
      far.reply(await far.request('CANCEL'), 200);
      far.reply(invite, 487);
    } else {
      clients[0].send('hangup', { callId: ringing, reason: 'user_hangup' });
      far.reply(await far.request('CANCEL'), 200);
      far.reply(invite, 487);
      await clients[0].waitFor('callEnded', (p) => p.callId === ringing);
    }
    for (const [client, call] of [[clients[0], out], [clients[1], into]]) {
      const ended = await endCall(client, call);
      const elapsed = Math.ceil((performance.now() - begun) / 1000) + 5;
      assert.ok(ended.duration >= 10 && ended.duration <= elapsed, `a duration of ${ended.duration} s, where ${elapsed} s went by`);
      assert.equal((await until(() => record(call.callId), { what: 'the record' })).duration, ended.duration);
    }
    // tm still gives up what has no answer
    const silent = await bench.peer();
    silent.onRequest(() => {});
    const outcome = await clients[0].request('call', { to: to(silent), sdp: fakeOffer() }, { ms: 20_000 });
    assert.deepEqual([outcome.type, outcome.payload.code], ['error', 408]);
    // what is made from now on is of the new time
    const late = await bench.agent('5003');
    const off = turnUntil(late.registered) - (Date.now() + now.wall) / 1000;
    assert.ok(off > 540 && off < 660, `TURN credentials for ${off} s`);
    note(`set ${what}: both calls lived on, with the right duration; ${closed} of 2 connections closed and resumed; one that rang ${given ? 'was given up with 408' : 'rang on'}`);
  });
}

test('the machine slept for ten seconds: all is there', { timeout: 60_000 }, async () => {
  const a = await bench.agent('5001');
  const far = await bench.peer();
  const call = await callOut(a, far);
  await closedAreForgotten();
  jump({ wall: 10_000, boot: 10_000 });
  await sleep(2000);
  await a.expect('ping', {}, 'pong');
  assert.deepEqual(endsOf(a, call.callId), []);
  const ended = await endCall(a, call);
  assert.ok(ended.duration >= 14, `the sleep counts: ${ended.duration}`);
});

test('the machine slept for an hour: sessions have run out, their calls are ended on both sides', { timeout: 60_000 }, async () => {
  const a = await bench.agent('5001');
  const far = await bench.peer();
  const call = await callOut(a, far);
  await closedAreForgotten();
  jump({ wall: HOUR, boot: HOUR });
  const bye = await far.request('BYE', 10_000);
  far.reply(bye, 200);
  const { reason } = await a.waitFor('callEnded', (p) => p.callId === call.callId);
  assert.equal(reason, 'session_expired');
  await a.waitFor('unregistered', (p) => p.reason === 'expired');
  const again = await bench.agent('5001');
  await endCall(again, await callOut(again, far));
  note('after an hour asleep the far side had its BYE and the browser its callEnded at once');
});

test('nothing is left of all that', { timeout: 60_000 }, async () => {
  await until(async () => await kamailio.stat('sessions') === 0, { ms: 40_000, every: 200, what: 'no session is left' });
  const end = await memoryOf(kamailio);
  // records of past calls are kept on purpose
  backAtBaseline({ ...from, records: end.records, arena: end.arena }, end);
});
