/** Asterisk is killed, or hangs, while agents are in calls: they are told, nothing is lost that lives, nothing stays that has died. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { asteriskInstalled, startAsterisk } from '../common/asterisk.mjs';
import { signal, sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { Bench, endsOf, tm } from '../sip/support.mjs';
import { backAtBaseline, noAlarm, note } from './support.mjs';

const dns = ['5001', '5002', '5003'];

let kamailio;
let asterisk;
let port;
/** @type {Bench} */
let bench;

before(async () => {
  assert.ok(asteriskInstalled(), 'Asterisk is there (scripts/asterisk.sh get)');
  port = await freePort();
  kamailio = await startKamailio({
    mode: 'upstream', asteriskPort: port, cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }), params: { next_hop_interval: 1, call_history: 0 },
  });
  asterisk = await startAsterisk({ kamailio: `127.0.0.1:${kamailio.sipPort}`, port });
  await until(() => /next hop: 127\.0\.0\.1:\d+ answers/.test(kamailio.log()), { ms: 20_000, what: 'Kamailio has seen it' });
  bench = new Bench(kamailio, { log: [/next hop: .* does not answer/] });
});
after(async () => { await asterisk?.stop(); await kamailio?.stop(); });

const down = () => kamailio.stat('next_hop_down');
const calls = () => kamailio.rpcRows('rtc_json.calls');
/** Nothing is left of any call, on either side. */
const over = () => until(async () => (await calls()).length === 0 && await asterisk.channels() === 0, { ms: 20_000, every: 200, what: 'no call is left' });

/** The browser calls the echo of Asterisk. */
async function echo(client) {
  const { callId } = await client.expect('call', { to: '600', sdp: fakeOffer() }, 'callAccepted', { ms: 10_000 });
  return callId;
}

/** One agent calls another through Asterisk: the way to him is known there. */
async function reaches(from, to, dn) {
  const id = from.send('call', { to: dn, sdp: fakeOffer() });
  const { callId } = await to.waitFor('incomingCall', undefined, 10_000);
  await to.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
  const accepted = await from.waitFor('callAccepted', (p, m) => m.id === id, 10_000);
  await from.expect('hangup', { callId: accepted.callId, reason: 'user_hangup' }, 'callEnded');
  await to.waitFor('callEnded', (p) => p.callId === callId, 10_000);
}

const notice = (client, reason, ms = 20_000) => client.waitFor('notice', (p) => p.reason === reason, ms);

test('killed in mid-call, and started again', { timeout: 180_000 }, async () => {
  const [a, b, c] = await Promise.all(dns.map((dn) => bench.agent(dn)));
  const [first, second] = [await echo(a), await echo(b)];
  assert.equal(await asterisk.channels(), 2);

  const killed = performance.now();
  await asterisk.kill();
  await Promise.all([a, b, c].map((client) => notice(client, 'unreachable')));
  const told = (performance.now() - killed) / 1000;
  note(`three browsers were told ${told.toFixed(1)} s after Asterisk was killed`);
  assert.ok(told < 5, `${told} s`);
  assert.equal(await down(), 1);
  assert.equal((await calls()).length, 2, 'no call is ended for that: its voice may go another way');

  // who comes now is told, too; a new call has its outcome, and one that is given up ends at once
  const late = await bench.client();
  await late.expect('register', { dn: dns[0], resume: a.registered.session }, 'registered');
  await notice(late, 'unreachable');
  const refused = await c.request('call', { to: '600', sdp: fakeOffer() }, { ms: 20_000 });
  assert.deepEqual([refused.type, refused.payload.code], ['error', 408]);
  await b.expect('hangup', { callId: second, reason: 'user_hangup' }, 'callEnded');
  assert.deepEqual((await calls()).map((row) => row.callId).filter((id) => id === first), [first]);

  asterisk = await startAsterisk({ kamailio: `127.0.0.1:${kamailio.sipPort}`, port });
  const started = performance.now();
  const since = () => ((performance.now() - started) / 1000).toFixed(1);
  await Promise.all([late, b, c].map((client) => notice(client, 'reachable')));
  note(`told that it is back ${since()} s after its start`);
  assert.equal(await down(), 0);
  const [ended] = [await late.waitFor('callEnded', (p) => p.callId === first, 20_000)];
  note(`the call that it has forgotten ended after ${since()} s`);
  assert.equal(ended.reason, 'network_error');
  assert.equal(endsOf(late, first).length, 1);
  for (const dn of dns) await until(() => asterisk.contact(dn), { ms: 20_000, every: 200, what: `${dn} is registered anew` });
  note(`all agents were registered anew after ${since()} s`);
  await reaches(c, b, dns[1]);
  await over();
  await bench.finish();
});

test('it hangs for some seconds: the calls are still there afterwards', { timeout: 120_000 }, async () => {
  const clients = await Promise.all(dns.map((dn) => bench.agent(dn)));
  const [a, b] = clients;
  const [first, second] = [await echo(a), await echo(b)];
  signal(asterisk.pid, 'SIGSTOP');
  try {
    await Promise.all(clients.map((client) => notice(client, 'unreachable')));
    await sleep(1000);
  } finally { signal(asterisk.pid, 'SIGCONT'); }
  await Promise.all(clients.map((client) => notice(client, 'reachable')));
  // it is asked within five seconds whether it knows them
  await sleep(7000);
  assert.deepEqual([endsOf(a, first), endsOf(b, second)], [[], []]);
  assert.equal(await asterisk.channels(), 2);
  for (const [client, callId] of [[a, first], [b, second]]) {
    const { hold } = await client.expect('hold', { callId, hold: true }, 'callUpdated', { ms: 10_000 });
    assert.equal(hold, true);
    const { reason } = await client.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    assert.equal(reason, 'normal_clearing');
  }
  await over();
  await bench.finish();
  note('frozen until the browsers were told, and a second more: both calls lived on and took a hold and a hang-up');
});

test('killed and started again ten times', { timeout: 240_000 }, async () => {
  await asterisk.stop();
  await until(async () => await down() === 1, { ms: 10_000, what: 'it is missed' });
  const from = await settled();
  asterisk = await startAsterisk({ kamailio: `127.0.0.1:${kamailio.sipPort}`, port });
  await until(async () => await down() === 0, { ms: 10_000, what: 'it is there' });
  const clients = await Promise.all(dns.map((dn) => bench.agent(dn)));
  for (let round = 0; round < 10; round += 1) {
    const made = await Promise.all(clients.map(echo));
    await asterisk.kill();
    await Promise.all(clients.map((client) => notice(client, 'unreachable')));
    asterisk = await startAsterisk({ kamailio: `127.0.0.1:${kamailio.sipPort}`, port });
    await Promise.all(clients.map((client, i) => client.waitFor('callEnded', (p) => p.callId === made[i], 30_000)));
    for (const dn of dns) await until(() => asterisk.contact(dn), { ms: 20_000, every: 200, what: `${dn} is registered anew` });
  }
  await over();
  for (const client of clients) {
    await client.expect('unregister', {}, 'unregistered', { ms: 10_000 });
    await client.close();
  }
  await asterisk.stop();
  await until(async () => await down() === 1, { ms: 10_000, what: 'it is missed' });
  backAtBaseline(from, await settled(), { shm: 1_000_000 });
  noAlarm(kamailio);
});

/** Memory while nobody is there and the next hop is silent: the questions that wait are always as many. */
async function settled() {
  await until(async () => await kamailio.stat('agents') === 0 && await kamailio.stat('arena_records') <= 1, { ms: 40_000, every: 200, what: 'nobody is there' });
  const shm = Number((await kamailio.rpc('core.shmmem')).used);
  const pkg = new Map((await kamailio.rpcRows('pkg.stats')).map((row) => [`${row.pid} ${row.desc ?? ''}`, Number(row.used)]));
  return { shm, pkg, arena: await kamailio.stat('arena_used'), records: await kamailio.stat('arena_records') };
}
