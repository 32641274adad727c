/**
 * Three real Kamailios are drained, ended and started again one after the other, while calls are made at a steady rate in both directions:
 * not one of them may fail. Some twenty seconds.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { allKnown, agent, closeBrowsers, openFarSide, others, placeOf, resume, startNodes } from './support.mjs';

const users = Array.from({ length: 80 }, (_, i) => String(5001 + i));
const callsPerSecond = 20;

let nodes = [];
let far;
const failed = [];

/** One browser as the client library does it: it leaves a node that drains as soon as no call of its is being set up. */
class Phone {
  constructor(dn, at) { Object.assign(this, { dn, at, busy: false, moves: 0, draining: false }); }

  async register() {
    this.client = await agent(nodes[this.at], this.dn);
    this.session = this.client.registered.session;
  }

  get told() { return this.client.received.some((m) => m.type === 'notice' && m.payload.reason === 'draining'); }

  /** Does what the client library does by itself: goes elsewhere, when it was told to. */
  async moveIfTold() {
    if (!this.told) return;
    for (let next = 1; ; next += 1) {
      const at = (this.at + next) % nodes.length;
      try {
        const { client } = this;
        this.client = await resume(nodes[at], this.dn, this.session);
        client.terminate();
      } catch (error) {
        if (next > 20) throw error;
        await sleep(200);
        continue;
      }
      this.at = at;
      this.moves += 1;
      break;
    }
  }

  /** A call with some seconds of talk; it may go with its agent to another node meanwhile. */
  async talk(inbound) {
    this.busy = true;
    try {
      const callId = await (inbound ? this.#takes() : this.#makes());
      const end = performance.now() + 2000;
      while (performance.now() < end) {
        await sleep(500); // what has happened to the call is known to the other nodes by then
        await this.moveIfTold();
      }
      const over = await this.client.request('hangup', { callId, reason: 'user_hangup' }, { ms: 20_000 });
      assert.equal(over.type, 'callEnded', JSON.stringify(over));
      await this.moveIfTold();
    } finally { this.busy = false; }
  }

  async #makes() {
    const { type, payload } = await this.client.request('call', { to: '1003', sdp: fakeOffer() }, { ms: 20_000 });
    assert.equal(type, 'callAccepted', `${this.dn} at ${this.at}: ${JSON.stringify(payload)}`);
    return payload.callId;
  }

  async #takes() {
    const { peer } = far;
    // to any node, as a dispatcher would; to one that is there
    const up = nodes.filter((node) => node.pid && !node.ending);
    const via = up[Math.floor(Math.random() * up.length)];
    peer.server = via.node;
    const leg = peer.leg(this.dn);
    leg.invite();
    via.pending = (via.pending ?? 0) + 1;
    const answer = leg.answer(30_000).finally(() => { via.pending -= 1; });
    const { callId } = await Promise.race([
      this.client.waitFor('incomingCall', undefined, 20_000),
      answer.then((reply) => { throw new Error(`${this.dn} at ${this.at}: ${reply.start}`); }),
    ]);
    const taken = this.client.request('answer', { callId, sdp: fakeAnswer() }, { ms: 20_000 });
    const refused = taken.then((outcome) => { if (outcome.type === 'error') throw new Error(`${this.dn} at ${this.at}: ${JSON.stringify(outcome)}`); return answer; });
    const ok = await refused;
    assert.equal(ok.status, 200, `${this.dn} at ${this.at}: ${ok.start}`);
    far.dialogs.set(leg.callId, { cseq: 0, ends: 0, contact: ok.contact });
    peer.server = placeOf(ok.contact);
    leg.ack(ok);
    return callId;
  }
}

describe('rolling restart', () => {
  before(async () => {
    far = await openFarSide();
    nodes = await startNodes(3, far.uri, { users, more: { call_rate: 0, resume_grace: 30 } });
  });
  after(async () => {
    closeBrowsers();
    await far?.close();
    for (const node of nodes) await node.stop();
  });

  test(`each node is drained and restarted under ${callsPerSecond} calls a second: no call fails`, async (t) => {
    const phones = users.map((dn, i) => new Phone(dn, i % 3));
    await Promise.all(phones.map((phone) => phone.register()));
    let begun = 0;
    let running = true;
    const talks = new Set();
    const calling = (async () => {
      const from = performance.now();
      while (running) {
        for (const due = Math.floor(((performance.now() - from) / 1000) * callsPerSecond); begun < due;) {
          const phone = phones.find((one) => !one.busy);
          if (!phone) break; // all talk: the rate is made up for later
          phones.push(...phones.splice(phones.indexOf(phone), 1));
          begun += 1;
          const talk = phone.talk(begun % 2 === 0).catch((error) => failed.push(String(error.stack ?? error).slice(0, 600))).finally(() => talks.delete(talk));
          talks.add(talk);
        }
        // each message is looked for in all of them: what is over goes, or this process would be the one that is too slow
        far.peer.log = far.peer.log.filter((entry) => entry.at > performance.now() - 5000);
        // who is idle moves at once
        for (const phone of phones.filter((one) => !one.busy && one.told)) {
          phone.busy = true;
          const move = phone.moveIfTold().catch((error) => failed.push(String(error))).finally(() => { phone.busy = false; talks.delete(move); });
          talks.add(move);
        }
        await sleep(20);
      }
      const seconds = (performance.now() - from) / 1000;
      while (talks.size) await Promise.all(talks);
      return seconds;
    })();
    try {
      await sleep(3000);
      for (const node of nodes) {
        node.ending = false;
        await node.rpc('rtc_json.drain');
        let left = [];
        await until(async () => { left = await node.rpcRows('rtc_json.agents'); return left.length === 0; }, { ms: 60_000, every: 200 })
          .catch(async () => {
            const shown = left.map((row) => { const { at, busy, moves } = phones.find((one) => one.dn === String(row.dn)); return JSON.stringify({ ...row, at, busy, moves }); });
            throw new Error(`${node.node} (${nodes.indexOf(node)}) does not become empty\n${shown.join('\n')}\n${failed.join('\n')}\n${JSON.stringify(await Promise.all(nodes.map((one) => one.rpcRows('rtc_json.nodes'))))}`);
          });
        // (in front of a real node a load balancer sees this by /api/health)
        node.ending = true;
        // what was sent to it before, for agents of other nodes, is answered through it
        await until(() => !node.pending, { ms: 40_000, what: 'no call is on its way through the node' });
        await sleep(1000);
        await node.shutdown();
        await node.start();
        await allKnown(nodes);
        node.ending = false;
        const rest = nodes.filter((one) => one !== node);
        await until(async () => {
          const rows = await others(node);
          const sum = rows.reduce((all, row) => all + row.records, 0);
          return rows.length === rest.length && sum === users.length;
        }, { ms: 60_000, every: 200, what: 'it knows all agents again' });
        await sleep(2000);
      }
    } finally { running = false; }
    const seconds = await calling;
    const moves = phones.reduce((all, phone) => all + phone.moves, 0);
    t.diagnostic(`${begun} calls in ${Math.round(seconds)} s (${(begun / seconds).toFixed(1)} a second), ${failed.length} failed; agents went to another node ${moves} times`);
    assert.deepEqual(failed, []);
    assert.ok(moves >= users.length);
    await until(() => far.up() === 0, { ms: 10_000, what: 'no call is left at the far side' });
    // also those whose agents went elsewhere before their BYE was answered
    const again = [...far.dialogs].filter(([, { ends }]) => ends > 1).map(([callId]) => callId);
    assert.deepEqual(again, [], 'each call is ended once');
    for (const node of nodes) assert.deepEqual(await node.rpcRows('rtc_json.calls'), [], 'no call is left over');
  });
});
