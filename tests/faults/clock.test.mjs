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
import { backAtBaseline, noAlarm, note } from './support.mjs';

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

let kamailio;
/** @type {Bench} */
let bench;
/** @type {Awaited<ReturnType<typeof memoryOf>>} */
let from;

before(async () => {
  fs.writeFileSync(file, Buffer.alloc(16));
  fd = fs.openSync(file, 'r+');
  kamailio = await startKamailio({
    cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, fr_inv_timer: 30_000, wt_timer: 200 }), env: { LD_PRELOAD: preload, JUMPING_CLOCK: file },
    params: { resume_grace: 30, expires: 300, call_history: 100, log_calls: 1, turn_uris: 'turn:127.0.0.1', turn_secret: '0123456789abcdef0123456789' },
  });
  bench = new Bench(kamailio, { log: [/adjust_ticks|timer_handler|our_timer|timer/] });
  from = await memoryOf(kamailio);
});
after(async () => { await kamailio?.stop(); if (fd !== undefined) fs.closeSync(fd); });
afterEach(async () => { await bench.finish(); noAlarm(kamailio); });

const record = (callId) => {
  const line = kamailio.log().split('\n').find((text) => text.includes('call-record') && text.includes(callId));
  return line && JSON.parse(line.slice(line.indexOf('{')));
};
const turnUntil = (registered) => Number(registered.iceServers.find((server) => server.username).username.split(':')[0]);
/** Kamailio shows the time of its own wall clock. */
const wallOf = async () => Number((await kamailio.rpc('core.uptime')).uptime);

for (const [what, wall] of [['a day forward', 24 * HOUR], ['two days back', -48 * HOUR], ['ten seconds back', -10_000], ['to where it was', 24 * HOUR + 10_000]]) {
  test(`the wall clock is set ${what}`, { timeout: 120_000 }, async () => {
    const up = await wallOf();
    const a = await bench.agent('5001');
    const b = await bench.agent('5002');
    const far = await bench.peer();
    const out = await callOut(a, far);
    const into = await callIn(kamailio, b, far, '5002');
    // one rings over the jump
    const id = a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    const invite = await far.waitFor((m) => m.method === 'INVITE' && m.header('To').includes(`sip:${to(far)}@`));
    far.reply(invite, 180);
    const { callId: ringing } = await a.waitFor('callProgress', (p, m) => m.id === id && p.state === 'ringing');
    const begun = performance.now();
    jump({ wall });
    assert.ok(Math.abs(await wallOf() - up - wall / 1000) < 60, 'Kamailio sees it, or this tests nothing');
    await sleep(3000);

    for (const client of [a, b]) await client.expect('ping', {}, 'pong');
    assert.deepEqual([a, b].flatMap((client) => client.received.filter((m) => ['callEnded', 'unregistered'].includes(m.type))), []);
    a.send('hangup', { callId: ringing, reason: 'user_hangup' });
    far.reply(await far.request('CANCEL'), 200);
    far.reply(invite, 487);
    await a.waitFor('callEnded', (p) => p.callId === ringing);
    for (const [client, call] of [[a, out], [b, into]]) {
      const ended = await endCall(client, call);
      const elapsed = Math.ceil((performance.now() - begun) / 1000) + 1;
      assert.ok(ended.duration >= 2 && ended.duration <= elapsed, `a duration of ${ended.duration} s, where ${elapsed} s went by`);
      const { duration, ring_after: ring = 0 } = await until(() => record(call.callId), { what: 'the record' });
      assert.deepEqual([duration, ring < 60_000], [ended.duration, true]);
    }
    // tm still gives up what has no answer
    const silent = await bench.peer();
    silent.onRequest(() => {});
    const outcome = await a.request('call', { to: to(silent), sdp: fakeOffer() }, { ms: 20_000 });
    assert.deepEqual([outcome.type, outcome.payload.code], ['error', 408]);
    // what is made from now on is of the new time
    const c = await bench.agent('5003');
    const off = turnUntil(c.registered) - (Date.now() + now.wall) / 1000;
    assert.ok(off > 540 && off < 660, `TURN credentials for ${off} s`);
    note(`set ${what}: two calls lived on, with the right duration; one that rang could be given up; a silent far side still has a 408`);
  });
}

test('the machine slept for ten seconds: all is there', { timeout: 60_000 }, async () => {
  const a = await bench.agent('5001');
  const far = await bench.peer();
  const call = await callOut(a, far);
  jump({ wall: 10_000, boot: 10_000 });
  await sleep(2000);
  await a.expect('ping', {}, 'pong');
  assert.deepEqual(endsOf(a, call.callId), []);
  const ended = await endCall(a, call);
  assert.ok(ended.duration >= 11, `the sleep counts: ${ended.duration}`);
});

test('the machine slept for an hour: sessions have run out, their calls are ended on both sides', { timeout: 60_000 }, async () => {
  const a = await bench.agent('5001');
  const far = await bench.peer();
  const call = await callOut(a, far);
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
