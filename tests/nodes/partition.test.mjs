/**
 * Three real Kamailios whose network is cut, for longer than resume_grace, and heals: whose browser is where, who may end which call, and
 * that all agree afterwards. And what becomes of the calls of a node that is gone. Some six minutes.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { fakeAnswer } from '../common/sdp.mjs';
import { agent, agentAt, allKnown, call, closeBrowsers, hangUp, holdOnce, network, openFarSide, others, placeOf, resume, startNodes, uncut } from './support.mjs';

const users = Array.from({ length: 40 }, (_, i) => String(5001 + i));
/** Seconds that a browser may be away; all cuts are longer. */
const grace = 15;
const cutFor = Number(process.env.CUT ?? 60) * 1000;

let nodes = [];
let far;

/** Waits until each of these nodes knows so many agents, and calls, of the others. */
const known = (wanted, records, calls) => Promise.all(wanted.map(async (node) => {
  let rows;
  try {
    await until(async () => {
      rows = await others(node);
      const sum = (name) => rows.reduce((all, row) => all + row[name], 0);
      return sum('records') === records && sum('knownCalls') === calls;
    }, { ms: 30_000, every: 200 });
  } catch { throw new Error(`${node.node} does not know ${records} agents and ${calls} calls of the others: ${JSON.stringify(await node.rpcRows('rtc_json.nodes'))}`); }
}));

/** Waits until each of them hears that many others. */
const hears = (wanted, count) => Promise.all(wanted.map((node) => until(
  async () => (await others(node)).length === count,
  { ms: 40_000, every: 200, what: `${node.node} hears ${count} others` },
)));

/** Waits until the agent is at that node and nowhere else. */
async function onlyAt(node, dn) {
  for (const one of nodes) {
    await until(async () => Boolean(await agentAt(one, dn)) === (one === node), { ms: 30_000, every: 200, what: `${dn} is at ${node.node} alone, ${one.node}` });
  }
}

/** Each call that was ended was so by one request; the others are up. */
async function endedOnce(count) {
  await until(() => far.ends().length === count, { ms: 10_000, what: `${count} calls are ended` }).catch(() => {});
  assert.deepEqual(far.ends(), Array(count).fill(1));
}

/** A call to that number that comes to this node rings at this browser once, and is answered and ended. */
async function ringsOnce(client, dn, at) {
  const { peer } = far;
  const before = client.received.filter((m) => m.type === 'incomingCall').length;
  peer.server = at.node;
  const leg = peer.leg(dn);
  leg.invite();
  const { callId } = await client.waitFor('incomingCall', undefined, 20_000);
  client.send('answer', { callId, sdp: fakeAnswer() });
  const ok = await leg.answer(20_000);
  assert.equal(ok.status, 200);
  peer.server = placeOf(ok.contact);
  leg.ack(ok);
  await until(async () => client.received.some((m) => m.type === 'callAccepted' || m.type === 'ack'), { what: 'the answer is confirmed' });
  assert.equal((await leg.bye(20_000)).status, 200);
  await client.waitFor('callEnded', (p) => p.callId === callId, 20_000);
  assert.equal(client.received.filter((m) => m.type === 'incomingCall').length, before + 1);
}

describe('a network that is cut', { skip: uncut }, () => {
  before(async () => {
    far = await openFarSide();
    nodes = await startNodes(3, far.uri, { users, more: { resume_grace: grace } });
  });
  after(async () => {
    await far?.close();
    for (const node of nodes) await node.stop();
  });
  afterEach(() => {
    closeBrowsers();
    far.dialogs.clear();
    far.peer.forget();
  });

  test('one node is cut off: calls go on where their browsers are, and a browser that changes sides keeps its call', async () => {
    const [a, b, c] = nodes;
    const [stays, moves, idle] = await Promise.all(['5001', '5002', '5003'].map((dn) => agent(a, dn)));
    const [atB, atC] = [await agent(b, '5004'), await agent(c, '5005')];
    const calls = await Promise.all([stays, moves, atB, atC].map((client) => call(client)));
    await known([a], 2, 2);
    await known([b, c], 4, 3);
    network.cut([a], [b, c]);
    let moved;
    try {
      await hears([a], 0);
      await hears([b, c], 1);
      moves.rst();
      moved = await resume(c, '5002', moves.registered.session);
      assert.deepEqual(moved.registered.calls.map((row) => [row.callId, row.state]), [[calls[1], 'established']]);
      await sleep(cutFor);
      // the first node has given him up meanwhile, and may not have ended the call that goes on elsewhere
      assert.equal(await agentAt(a, '5002'), undefined);
      assert.equal(far.up(), 4);
      await Promise.all([[stays, 0], [moved, 1], [atB, 2], [atC, 3]].map(([client, i]) => holdOnce(client, calls[i])));
    } finally { network.heal([a], [b, c]); }
    await allKnown(nodes);
    await onlyAt(c, '5002');
    await onlyAt(a, '5001');
    await onlyAt(a, '5003');
    await Promise.all([known([a], 3, 3), known([b], 4, 3), known([c], 3, 2)]);
    await endedOnce(0);
    await ringsOnce(moved, '5002', a);
    await ringsOnce(idle, '5003', c);
    await Promise.all([[stays, 0], [moved, 1], [atB, 2], [atC, 3]].map(([client, i]) => holdOnce(client, calls[i]).then(() => hangUp(client, calls[i]))));
    await endedOnce(4);
    await Promise.all([stays, moved, idle, atB, atC].map((client) => client.request('unregister')));
    await known(nodes, 0, 0);
  });

  test('a browser that changes sides and comes back: its call is that of the node where it is', async () => {
    const [a, b, c] = nodes;
    const client = await agent(b, '5001');
    const callId = await call(client);
    await known([a, c], 1, 1);
    network.cut([b], [a, c]);
    let back;
    try {
      await hears([b], 0);
      client.rst();
      const there = await resume(c, '5001', client.registered.session);
      there.rst();
      back = await resume(b, '5001', client.registered.session);
      assert.deepEqual(back.registered.calls.map((row) => row.callId), [callId]);
      await until(() => [...far.dialogs.values()][0].contact.endsWith(b.node), { ms: 10_000, what: 'the far side is told' });
      // longer than the other half waits for the browser
      await sleep(cutFor);
      assert.equal(far.up(), 1);
    } finally { network.heal([b], [a, c]); }
    await allKnown(nodes);
    await onlyAt(b, '5001');
    assert.equal(back.closed, undefined, 'the browser was not sent away');
    await known([a, c], 1, 1);
    await ringsOnce(back, '5001', a);
    await holdOnce(back, callId);
    await hangUp(back, callId);
    await endedOnce(1);
    await back.request('unregister');
    await known(nodes, 0, 0);
  });

  test('a node dies while the two others are cut apart, and both take an agent over: the one with the browser keeps him', async () => {
    const [a, b, c] = nodes;
    const had = await Promise.all(['5001', '5002'].map((dn) => agent(a, dn)));
    // one after the other: the far side has them in this order
    const calls = [await call(had[0]), await call(had[1])];
    await known([b, c], 2, 2);
    network.cut([b], [c]);
    const last = [];
    try {
      await hears([b, c], 1);
      await a.lose();
      for (const [i, [first, second]] of [[b, c], [c, b]].entries()) {
        const dn = users[i];
        const there = await resume(first, dn, had[i].registered.session);
        there.rst();
        last.push(await resume(second, dn, had[i].registered.session));
        assert.deepEqual(last[i].registered.calls.map((row) => row.callId), [calls[i]]);
      }
      await until(() => [c, b].every((node, i) => [...far.dialogs.values()][i].contact === `sip:${users[i]}@${node.node}`), { ms: 20_000, what: 'the far sides are told' });
      await sleep(cutFor);
      assert.equal(far.up(), 2);
    } finally { network.heal([b], [c]); }
    await a.back();
    await allKnown(nodes);
    await onlyAt(c, '5001');
    await onlyAt(b, '5002');
    await endedOnce(0);
    await Promise.all(last.map((client, i) => holdOnce(client, calls[i]).then(() => hangUp(client, calls[i]))));
    await endedOnce(2);
    await Promise.all(last.map((client) => client.request('unregister')));
    await known(nodes, 0, 0);
  });

  test('messages pass in one direction alone: nobody ends what lives', async () => {
    const [a, b, c] = nodes;
    const clients = await Promise.all([agent(a, '5001'), agent(b, '5002'), agent(c, '5003')]);
    const calls = await Promise.all(clients.map((client) => call(client)));
    await known(nodes, 2, 2);
    network.cutOneWay([a], [b, c]);
    try {
      await hears([b, c], 1);
      await sleep(cutFor);
      assert.equal(far.up(), 3);
      await Promise.all(clients.map((client, i) => holdOnce(client, calls[i])));
    } finally { network.healOneWay([a], [b, c]); }
    await allKnown(nodes);
    await known(nodes, 2, 2);
    await Promise.all(clients.map((client, i) => hangUp(client, calls[i])));
    await endedOnce(3);
    await Promise.all(clients.map((client) => client.request('unregister')));
    await known(nodes, 0, 0);
  });

  test('a node is gone, and one of its browsers stays away: one other node ends that call, and the node, back again, leaves it alone', async () => {
    const [a, b, c] = nodes;
    const dns = users.slice(0, 8);
    const had = await Promise.all(dns.map((dn) => agent(a, dn)));
    const calls = await Promise.all(had.map((client) => call(client)));
    await known([b, c], 8, 8);
    await a.lose();
    const back = await Promise.all(dns.slice(0, 7).map((dn, i) => resume([b, c][i % 2], dn, had[i].registered.session)));
    await until(() => far.up() === 7, { ms: (grace + 5) * 1000 + 30_000, what: 'the call of the browser that stays away is ended' });
    await known([b], 3, 3);
    await a.back();
    await allKnown(nodes);
    await until(async () => (await a.rpcRows('rtc_json.agents')).length === 0, { ms: 30_000, what: 'the node lets go of all' });
    await Promise.all(back.map((client, i) => holdOnce(client, calls[i])));
    await endedOnce(1);
    assert.equal((await b.stat('orphaned')) + (await c.stat('orphaned')), 1);
    await Promise.all(back.map((client, i) => hangUp(client, calls[i])));
    await endedOnce(8);
    await Promise.all(back.map((client) => client.request('unregister')));
    await known(nodes, 0, 0);
  });

  test('a node is gone and hardly a browser comes back: nobody else ends their calls, and the node itself does so when it is back', async () => {
    const [a, b, c] = nodes;
    const dns = users.slice(0, 4);
    const had = await Promise.all(dns.map((dn) => agent(a, dn)));
    const calls = await Promise.all(had.map((client) => call(client)));
    await known([b, c], 4, 4);
    await a.lose();
    const back = await resume(b, dns[0], had[0].registered.session);
    await hears([b, c], 1);
    await sleep((grace + 10) * 1000);
    assert.equal(far.up(), 4);
    await a.back();
    await until(() => far.up() === 1, { ms: (grace + 30) * 1000, what: 'the node ends what nobody came for' });
    await allKnown(nodes);
    await endedOnce(3);
    await hangUp(back, calls[0]);
    await endedOnce(4);
    await back.request('unregister');
    await known(nodes, 0, 0);
  });
});
