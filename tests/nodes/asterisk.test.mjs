/**
 * Three nodes in front of Asterisk, with callers by SIPp: a node is killed under many agents and calls. Each browser comes back to another
 * node, but for some; each call that has one is held and ended there, and what is left of the others is ended. Some two minutes.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startAsterisk } from '../common/asterisk.mjs';
import { until } from '../common/cleanup.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { startSipp } from '../common/sipp.mjs';
import { agent, closeBrowsers, hangUp, holdOnce, network, others, resume, startNodes } from './support.mjs';

const count = Number(process.env.AGENTS ?? 500);
const inCalls = Math.round(count * 0.4);
/** Browsers that never come back; half of them have a call. */
const lost = Math.round(count * 0.02);
const grace = 20;
const users = Array.from({ length: count }, (_, i) => String(6001 + i));
const halves = inCalls / 2;
// those at both ends of the agents in calls, and of those without
const stayAway = new Set([...users.slice(0, lost / 4), ...users.slice(halves, halves + lost / 4), ...users.slice(-lost / 2)]);

let nodes = [];
let asterisk;
let sipp;

/** Runs `work` for each, so many at a time. */
async function each(list, work, atOnce = 20) {
  const queue = [...list.entries()];
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (let next = queue.shift(); next; next = queue.shift()) await work(next[1], next[0]);
  }));
}

/** The agents of this test at Asterisk, as those of tests/asterisk/pjsip.conf. */
async function addAgents() {
  const pjsip = users.map((dn) => `[${dn}](rtc-common)\nallow = !all,ulaw\naors = ${dn}\nauth = ${dn}\ncallerid = "Agent ${dn}" <${dn}>\n`
    + `[${dn}](aor-rtc)\n[${dn}](auth-rtc)\nusername = ${dn}\npassword = pw${dn}\n`).join('\n');
  fs.appendFileSync(path.join(asterisk.workdir, 'etc/pjsip.conf'), `\n${pjsip}`);
  fs.appendFileSync(path.join(asterisk.workdir, 'etc/extensions.conf'), '\n[from-webrtc](+)\nexten => _6XXX,1,Dial(PJSIP/${EXTEN},60)\n');
  await asterisk.rx('dialplan reload');
  await asterisk.rx('module reload res_pjsip.so');
  await until(async () => /6001/.test(await asterisk.rx('pjsip show aor 6001')), { ms: 20_000, every: 300, what: 'Asterisk knows the agents' });
}

describe('three nodes in front of Asterisk', () => {
  before(async () => {
    const port = await freePort();
    const machine = await network.machine();
    nodes = await startNodes(3, `sip:${machine?.address ?? network.address}:${port}`, { mode: 'upstream', users: [], shm: 512, more: { resume_grace: grace } });
    asterisk = await startAsterisk({ machine, kamailio: nodes[2].node, port, rtpPorts: inCalls * 4 + 100 });
    await addAgents();
  });
  after(async () => {
    closeBrowsers();
    await sipp?.stop();
    for (const node of nodes) await node.stop();
    await asterisk?.stop();
  });

  test(`a node is killed under ${count} agents and ${inCalls} calls`, async (t) => {
    const [a, ...rest] = nodes;
    const had = new Map();
    await each(users, async (dn) => had.set(dn, await agent(a, dn)), 10);
    const out = users.slice(0, halves);
    const into = users.slice(halves, inCalls);
    const calls = new Map();
    await each(out, async (dn) => {
      const { type, payload } = await had.get(dn).request('call', { to: '600', sdp: fakeOffer() }, { ms: 30_000 });
      assert.equal(type, 'callAccepted', JSON.stringify(payload));
      calls.set(dn, payload.callId);
    }, 5);
    const file = path.join(asterisk.workdir, 'called.csv');
    fs.writeFileSync(file, `SEQUENTIAL\n${into.map((dn) => `${dn};`).join('\n')}\n`);
    sipp = await startSipp({
      scenario: 'uac-plain', machine: await network.machine(), remote: asterisk.uri.slice(4), calls: into.length, concurrent: into.length, rate: 10, timeout: 400, trace: false, more: ['-inf', file],
    });
    await each(into, async (dn) => {
      const { callId } = await had.get(dn).waitFor('incomingCall', undefined, 60_000);
      const { type } = await had.get(dn).request('answer', { callId, sdp: fakeAnswer() }, { ms: 30_000 });
      assert.notEqual(type, 'error');
      calls.set(dn, callId);
    }, into.length);
    // each call out is one channel, each call in two
    await until(async () => await asterisk.channels() === halves * 3, { ms: 30_000, every: 300, what: 'all calls are up' });
    for (const node of rest) {
      await until(
        async () => (await others(node)).some((row) => row.node === a.node && row.records === count && row.knownCalls === inCalls),
        { ms: 60_000, every: 300, what: 'all agents and calls are known' },
      );
    }

    const killed = performance.now();
    await a.lose();
    const back = new Map();
    const took = [];
    const returning = users.filter((dn) => !stayAway.has(dn));
    await each(returning, async (dn, i) => {
      back.set(dn, await resume(rest[i % 2], dn, had.get(dn).registered.session, 30_000));
      took.push(performance.now() - killed);
    }, 50);
    const inTime = took.filter((ms) => ms < 10_000).length;
    t.diagnostic(`${inTime} of ${returning.length} agents resumed within 10 s, the last after ${Math.round(Math.max(...took))} ms`);
    const withCalls = returning.filter((dn) => calls.has(dn));
    for (const dn of withCalls) assert.deepEqual(back.get(dn).registered.calls.map((row) => [row.callId, row.state]), [[calls.get(dn), 'established']]);
    await each(withCalls, (dn) => holdOnce(back.get(dn), calls.get(dn)));
    t.diagnostic(`${withCalls.length} calls were held and taken back`);

    // whose browser stays away has no leg at Asterisk any more
    const left = withCalls.filter((dn) => out.includes(dn)).length + 2 * withCalls.filter((dn) => into.includes(dn)).length;
    let there;
    await until(async () => { there = await asterisk.channels(); return there === left; }, { ms: 90_000, every: 500 }).catch(async () => {
      const ends = withCalls.flatMap((dn) => back.get(dn).received.filter((m) => m.type === 'callEnded').map((m) => JSON.stringify({ dn, ...m.payload })));
      const shown = await Promise.all(rest.map(async (node) => [await node.stat('orphaned'), await node.rpcRows('rtc_json.nodes')]));
      throw new Error(`${there} channels in place of ${left}\n${ends.join('\n')}\n${JSON.stringify(shown)}`);
    });
    const ended = performance.now() - killed;
    t.diagnostic(`${inCalls - withCalls.length} calls whose browsers stay away were ended ${Math.round(ended / 1000)} s after the kill`);
    assert.equal((await rest[0].stat('orphaned')) + (await rest[1].stat('orphaned')), stayAway.size);
    assert.ok(inTime >= returning.length * 0.95, `${inTime} agents resumed in time`);

    await each(withCalls, (dn) => hangUp(back.get(dn), calls.get(dn)));
    await until(async () => await asterisk.channels() === 0, { ms: 60_000, every: 500, what: 'no channel is left' });
    const { successful, failed } = await sipp.ok();
    assert.deepEqual([successful, failed], [into.length, 0]);
    // a call to somebody who has moved comes to where he is, and there is no binding of the node that is gone
    const contact = await asterisk.contact(returning[0]);
    assert.ok(rest.some((node) => contact?.includes(node.node)), contact);
    await until(async () => (await asterisk.contact([...stayAway][0])) === undefined, { ms: 15_000, what: 'the binding of one that stays away is taken back' });
    await each([...back.values()], (client) => client.request('unregister', {}, { ms: 30_000 }));
    for (const node of rest) assert.deepEqual(await node.rpcRows('rtc_json.calls'), [], 'no call is left over');
  });
});
