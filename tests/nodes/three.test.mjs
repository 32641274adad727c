/** Three real Kamailios that know each other by dmq: a network in two halves, and a node killed under many calls. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer } from '../sip/peer.mjs';
import { agent, agentAt, allKnown, closeBrowsers, network, others, resume, sentBy, startNodes, uncut } from './support.mjs';

const users = Array.from({ length: 100 }, (_, i) => String(5001 + i));
/** Those of them that the drain moves about: what a node that was down has missed of them must not keep them unknown later. */
const moving = users.slice(0, 12);

let nodes = [];
let peer;

/** A call out of that browser that the far side has answered. */
async function call(client) {
  const { type, payload } = await client.request('call', { to: '1003', sdp: fakeOffer() });
  assert.equal(type, 'callAccepted', JSON.stringify(payload));
  return payload.callId;
}

/** The call is alive from end to end: it can be held, and ended. */
async function holdAndEnd(client, callId) {
  const held = await client.request('hold', { callId, hold: true });
  assert.equal(held.payload.hold, true, JSON.stringify(held));
  const over = await client.request('hangup', { callId, reason: 'user_hangup' });
  assert.equal(over.type, 'callEnded', JSON.stringify(over));
}

/** The far side says yes to everything, to whichever node asks. */
function sayYes(request) {
  if (request.method === 'ACK') return;
  peer.server = sentBy(request);
  if (request.method !== 'INVITE') peer.reply(request, 200);
  else {
    const sdp = request.toTag ? { version: 2, direction: 'recvonly' } : {};
    peer.reply(request, 200, { body: farSdp({ setup: 'active', ...sdp }), headers: ['Allow: INVITE, ACK, BYE, UPDATE'] });
  }
}

const byes = () => peer.received((m) => m.method === 'BYE');

/** Waits until that many calls are ended at the far side, and a while for a BYE too many. */
async function endedOnce(count) {
  await until(() => byes().length >= count, { ms: 10_000, what: `${count} BYEs` });
  await sleep(1500);
  const ended = byes().map((m) => m.callId);
  assert.equal(ended.length, count);
  assert.equal(new Set(ended).size, count, 'each call is ended once');
}

describe('three nodes', () => {
  before(async () => {
    peer = await openPeer(0, { address: network.address });
    peer.onRequest(sayYes);
    nodes = await startNodes(3, peer.uri, { users });
  });
  after(async () => {
    await peer?.close();
    for (const node of nodes) await node.stop();
  });
  afterEach(() => {
    closeBrowsers();
    peer.forget();
  });

  test('a network in two halves: a browser that changes sides keeps its call, and both agree when it has healed', { skip: uncut }, async () => {
    const [a, b, c] = nodes;
    const client = await agent(a, '5001');
    const callId = await call(client);
    for (const node of [b, c]) {
      await until(async () => (await others(node)).some((row) => row.knownCalls === 1), { ms: 15_000, what: 'the call is known' });
    }
    network.cut([a], [b, c]);
    let moved;
    try {
      for (const node of nodes) {
        await until(async () => (await others(node)).length === (node === a ? 0 : 1), { ms: 20_000, what: 'the halves miss each other' });
      }
      client.rst();
      moved = await resume(c, '5001', client.registered.session);
      assert.deepEqual(moved.registered.calls.map((row) => [row.callId, row.state]), [[callId, 'established']]);
      assert.ok(await agentAt(a, '5001'), 'the other half cannot know yet');
    } finally {
      network.heal([a], [b, c]);
    }
    await allKnown(nodes);
    await until(async () => (await agentAt(a, '5001')) === undefined, { ms: 20_000, what: 'the first node lets go' });
    assert.ok(await agentAt(c, '5001'));
    assert.equal(await agentAt(b, '5001'), undefined);
    for (const node of [a, b]) {
      await until(
        async () => (await others(node)).some((row) => row.node === c.node && row.records === 1 && row.knownCalls === 1),
        { ms: 15_000, what: 'all know where the agent is' },
      );
    }
    assert.equal(byes().length, 0, 'nobody ended the call');

    // a call that comes to the half that had the agent before: one leg rings, at the one browser
    peer.server = a.node;
    const leg = peer.leg('5001');
    leg.invite();
    const incoming = await moved.waitFor('incomingCall');
    const refused = moved.request('hangup', { callId: incoming.callId, reason: 'user_hangup' });
    const no = await leg.answer();
    assert.ok(no.status >= 400, String(no.status));
    leg.ack(no);
    assert.equal((await refused).type, 'callEnded');
    assert.equal(moved.received.filter((m) => m.type === 'incomingCall').length, 1);

    await holdAndEnd(moved, callId);
    await endedOnce(1);
    await moved.request('unregister');
  });

  test('the three are drained and restarted one after the other: no call is lost, and new ones are made meanwhile', async () => {
    const live = await Promise.all(moving.slice(0, 9).map(async (dn, i) => {
      const client = await agent(nodes[i % 3], dn);
      return { dn, at: i % 3, client, session: client.registered.session, callId: await call(client) };
    }));
    let made = 0;
    for (const [index, node] of nodes.entries()) {
      const next = (index + 1) % 3;
      const here = live.filter((one) => one.at === index);
      await until(
        async () => (await others(nodes[next])).some((row) => row.node === node.node && row.knownCalls === here.length),
        { ms: 15_000, what: 'the calls are known at the next node' },
      );
      await node.rpc('rtc_json.drain');
      for (const one of here) {
        await one.client.waitFor('notice', (p) => p.reason === 'draining');
        one.client = await resume(nodes[next], one.dn, one.session);
        one.session = one.client.registered.session ?? one.session;
        one.at = next;
        assert.deepEqual(one.client.registered.calls.map((row) => [row.callId, row.state]), [[one.callId, 'established']]);
      }
      await until(async () => (await node.rpcRows('rtc_json.agents')).length === 0, { ms: 15_000, what: 'the node is empty' });
      const newcomer = await agent(nodes[next], moving[9 + index]);
      const during = await call(newcomer);
      await node.lose();
      await holdAndEnd(newcomer, during);
      made += 1;
      await newcomer.request('unregister');
      await node.back();
      await allKnown(nodes);
    }
    await Promise.all(live.map((one) => holdAndEnd(one.client, one.callId)));
    await endedOnce(live.length + made);
    await Promise.all(live.map((one) => one.client.request('unregister')));
    for (const node of nodes) assert.deepEqual(await node.rpcRows('rtc_json.calls'), [], 'no call is left over');
  });

  test('an agent that came and went while a node was down, and then is at that node, is known to the others', async () => {
    const [a, b, c] = nodes;
    await a.lose();
    const first = await agent(b, '5050');
    await until(async () => (await others(c)).some((row) => row.node === b.node && row.records === 1), { ms: 15_000, what: 'he is known' });
    const moved = await resume(c, '5050', first.registered.session);
    await moved.expect('unregister', {}, 'unregistered');
    await a.back();
    await allKnown(nodes);
    const last = await agent(a, '5050');
    for (const node of [b, c]) {
      await until(async () => (await others(node)).some((row) => row.node === a.node && row.records === 1), { ms: 15_000, what: 'he is known again' });
    }
    await last.expect('unregister', {}, 'unregistered');
  });

  test('a node killed under 100 agents and 40 calls: they go on at the two others', async (t) => {
    const [a, ...rest] = nodes;
    const had = await Promise.all(users.map((dn) => agent(a, dn)));
    const calls = await Promise.all(had.slice(0, 40).map(call));
    for (const node of rest) {
      await until(
        async () => (await others(node)).some((row) => row.node === a.node && row.records === 100 && row.knownCalls === 40),
        { ms: 30_000, what: 'all agents and calls are known' },
      );
    }
    const began = performance.now();
    await a.lose();
    const took = [];
    const back = await Promise.all(users.map(async (dn, i) => {
      const client = await resume(rest[i % 2], dn, had[i].registered.session);
      took.push(performance.now() - began);
      return client;
    }));
    const inTime = took.filter((ms) => ms < 10_000).length;
    t.diagnostic(`${inTime} of ${users.length} agents resumed within 10 s, the last after ${Math.round(Math.max(...took))} ms`);
    assert.ok(inTime >= 95, `${inTime} agents resumed in time`);
    for (const [i, callId] of calls.entries()) {
      assert.deepEqual(back[i].registered.calls.map((row) => [row.callId, row.state]), [[callId, 'established']]);
    }
    await Promise.all(calls.map((callId, i) => holdAndEnd(back[i], callId)));
    await endedOnce(40);
    for (const node of rest) assert.deepEqual(await node.rpcRows('rtc_json.calls'), [], 'no call is left over');
    await Promise.all(back.map((client) => client.request('unregister')));
  });
});
