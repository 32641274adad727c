/** Kamailio dies, wholly or one process of it, or all browsers lose their connections: everybody is back, with their calls. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { signal, sleep, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { Bench, hopByNumber, memoryOf, tm, to } from '../sip/support.mjs';
import { backAtBaseline, Callee, each, noAlarm, note, resume, spread } from './support.mjs';

const SESSIONS = 1000;
const CALLS = 200;
const GRACE = 20;
const dns = Array.from({ length: SESSIONS }, (_, i) => String(10001 + i));

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;
/** @type {Callee} */
let far;
/** @type {Map<string, { client: import('../common/client.mjs').Client, session: string, callId?: string }>} */
const agents = new Map();

before(async () => {
  kamailio = await startKamailio({
    cfg: hopByNumber(), users: dns, shm: 1024, cfgExtra: tm({ wt_timer: 200 }), params: { resume_grace: GRACE, call_history: 0 },
  });
  bench = new Bench(kamailio);
  far = new Callee(await bench.peer());
});
after(async () => {
  for (const { client } of agents.values()) client.terminate();
  await far?.peer.close();
  await kamailio?.stop();
});

/** All registered, and so many of them in a call. */
async function everybody(sessions, calls) {
  await each(dns.slice(0, sessions), 20, async (dn) => {
    if (agents.has(dn)) return;
    const client = await connect(kamailio.wsUrl);
    agents.set(dn, { client, session: (await client.register(dn)).session });
  });
  await each(dns.slice(0, calls), 10, async (dn) => {
    const agent = agents.get(dn);
    if (agent.callId) return;
    const accepted = await agent.client.expect('call', { to: to(far.peer), sdp: fakeOffer() }, 'callAccepted', { ms: 20_000 });
    agent.callId = accepted.callId;
  });
  await until(async () => (await kamailio.rpcRows('rtc_json.calls')).filter((row) => row.state === 'established').length === calls, { ms: 10_000, what: `${calls} calls are up` });
}

/** Those come back, all at once; tells when the last of 95 % was there. */
async function comeBack(list, since) {
  const times = [];
  const lost = [];
  await Promise.all(list.map(async (dn) => {
    const agent = agents.get(dn);
    try {
      agent.client = await resume(kamailio, dn, agent.session);
      times.push(performance.now() - since);
      assert.deepEqual(agent.client.registered.calls.map((call) => [call.callId, call.state]), agent.callId ? [[agent.callId, 'established']] : [], dn);
    } catch (error) { lost.push(`${dn}: ${error.message.slice(0, 300)}`); }
  }));
  assert.deepEqual(lost, [], 'everybody came back, with the call');
  const most = times.sort((a, b) => a - b)[Math.ceil(times.length * 0.95) - 1];
  note(`${times.length} of ${list.length} sessions resumed; 95 % after ${(most / 1000).toFixed(2)} s; ${spread(times)}`);
  return most;
}

/** Their calls still answer a hold and a hang-up. */
async function stillWork(list) {
  await each(list.filter((dn) => agents.get(dn).callId), 10, async (dn) => {
    const agent = agents.get(dn);
    const { hold } = await agent.client.expect('hold', { callId: agent.callId, hold: true }, 'callUpdated', { ms: 20_000 });
    assert.equal(hold, true);
    const { reason } = await agent.client.expect('hangup', { callId: agent.callId, reason: 'user_hangup' }, 'callEnded', { ms: 20_000 });
    assert.equal(reason, 'normal_clearing');
    agent.callId = undefined;
  });
}

/** The browser may be told before the BYE is there. */
const farSideIsDone = () => until(() => far.live.length === 0, { ms: 10_000, what: 'no call is left on the far side' });

async function leave() {
  await each([...agents], 20, async ([dn, { client }]) => {
    await client.expect('unregister', {}, 'unregistered', { ms: 20_000 });
    await client.close();
    agents.delete(dn);
  });
  await until(async () => await kamailio.stat('sessions') === 0, { ms: (GRACE + 10) * 1000, what: 'no session is left' });
  await until(async () => await kamailio.stat('arena_records') === 0, { ms: 20_000, what: 'no record is left' });
}

/** The pid of a process that takes SIP from UDP. */
async function worker() {
  const workers = (await kamailio.rpcRows('core.ps')).flat();
  const udp = workers.findIndex((text) => /udp receiver/.test(JSON.stringify(text)));
  assert.ok(udp > 0, JSON.stringify(workers));
  const pid = Number(typeof workers[udp] === 'object' ? workers[udp].PID ?? workers[udp].pid : workers[udp - 1]);
  assert.ok(kamailio.pids.includes(pid), `${pid}`);
  return pid;
}

test('one worker of four is killed: Kamailio ends as a whole, and after a start all is there', { timeout: 120_000 }, async () => {
  await everybody(100, 40);
  const pid = await worker();
  const since = performance.now();
  signal(pid, 'SIGKILL');
  await until(() => !kamailio.pid && kamailio.pids.length === 0, { ms: 30_000, what: 'all of Kamailio has ended' });
  note(`ended as a whole ${((performance.now() - since) / 1000).toFixed(2)} s after one worker was killed`);
  await kamailio.start();
  const list = dns.slice(0, 100);
  await comeBack(list, since);
  await stillWork(list);
  await farSideIsDone();
});

test('a worker hangs when Kamailio is to end: it is made to, after exit_timeout, and after a start all is there', { timeout: 120_000 }, async () => {
  await everybody(100, 40);
  signal(await worker(), 'SIGSTOP');
  const since = performance.now();
  await kamailio.shutdown(60_000);
  const took = (performance.now() - since) / 1000;
  note(`ended ${took.toFixed(1)} s after SIGTERM`);
  // 15 in the example, and no longer than a timer of seconds may be late
  assert.ok(took > 10 && took < 20, `${took} s`);
  await kamailio.start();
  const list = dns.slice(0, 100);
  await comeBack(list, since);
  await stillWork(list);
  await farSideIsDone();
});

test(`killed with ${SESSIONS} sessions and ${CALLS} calls, and started again`, { timeout: 300_000 }, async () => {
  await leave();
  const from = await memoryOf(kamailio);
  await everybody(SESSIONS, CALLS);
  // every tenth does not come back
  const gone = dns.filter((_, i) => i % 10 === 9);
  const list = dns.filter((dn) => !gone.includes(dn));
  await kamailio.kill9();
  const since = performance.now();
  const coming = comeBack(list, since);
  await kamailio.start();
  note(`Kamailio answers again after ${((performance.now() - since) / 1000).toFixed(2)} s`);
  const most = await coming;
  assert.ok(most < 10_000, `95 % were back after ${most} ms`);
  await stillWork(list);
  const orphans = gone.filter((dn) => agents.get(dn).callId).length;
  assert.equal(orphans, CALLS / 10);
  await until(() => far.live.length === 0, { ms: 60_000 - (performance.now() - since), what: 'nobody is left alone on the far side' });
  note(`the far sides of ${orphans} calls whose browsers stayed away were told, the last ${((performance.now() - since) / 1000).toFixed(1)} s after the kill (resume_grace ${GRACE} s)`);
  for (const dn of gone) agents.delete(dn);
  await leave();
  // another process than at the baseline, started in the same way: its own memory is not compared
  const now = await memoryOf(kamailio);
  backAtBaseline({ ...from, pkg: now.pkg }, now, { shm: 1_500_000 });
});

test('all browsers lose their connections and come back at once', { timeout: 200_000 }, async () => {
  await everybody(SESSIONS, CALLS);
  const lostBefore = await kamailio.stat('sessions_lost');
  const since = performance.now();
  for (const { client } of agents.values()) client.rst();
  await comeBack(dns, since);
  await sleep(3000); // the websocket module tells of the old connections
  assert.equal(await kamailio.stat('sessions'), SESSIONS);
  assert.equal(await kamailio.stat('sessions_lost'), lostBefore);
  await stillWork(dns);
  await farSideIsDone();
  await leave();
  // the last words about the one that was killed, and of its siblings
  noAlarm(kamailio, [/receive_fd\(\): EOF on/, /handle_sigs\(\): (child process \d+ exited by a signal 9|core was not generated)/]);
});
