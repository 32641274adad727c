/**
 * INVITEs at a high rate, to all of three real Kamailios alike, while these are drained in turn and the agents go from one to the next without
 * waiting for what may ring: each call rings at its agent in the end, and none is refused.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { fakeAnswer } from '../common/sdp.mjs';
import { farSdp } from '../sip/peer.mjs';
import { agent, closeBrowsers, openFarSide, others, placeOf, resume, startNodes } from './support.mjs';

const users = Array.from({ length: 60 }, (_, i) => String(5001 + i));
const seconds = Number(process.env.SECONDS ?? 10);
/** Milliseconds that a call rings before it is answered: long enough that many agents go meanwhile. */
const ringing = 300;
const rate = Number(process.env.RATE ?? 30);

let nodes = [];
let far;

/** A browser that leaves a node at once when it drains, and answers what rings, wherever it is then. */
class Phone {
  moves = 0;

  constructor(dn, at) { Object.assign(this, { dn, at, busy: false }); }

  async register() {
    this.client = await agent(nodes[this.at], this.dn);
    this.session = this.client.registered.session;
  }

  /** The last call that rang at this browser, if any. */
  rings() {
    const told = this.client.log.findLast((e) => e.dir === 'in' && e.message?.type === 'incomingCall');
    return told?.message.payload.callId ?? this.client.registered.calls.find((one) => one.state === 'incoming')?.callId;
  }

  /** What rings is not waited for; what it has just taken is. */
  async move() {
    await until(() => !this.answering, { ms: 30_000, what: 'its call is over' });
    this.moving = true;
    const to = (this.at + 1) % nodes.length;
    const { client } = this;
    this.client = await resume(nodes[to], this.dn, this.session, 20_000);
    client.terminate();
    this.at = to;
    this.moves += 1;
  }
}

describe('agents on the move', () => {
  before(async () => {
    far = await openFarSide();
    nodes = await startNodes(3, far.uri, { users, more: { call_rate: 0, resume_grace: 30 } });
  });
  after(async () => {
    closeBrowsers();
    await far?.close();
    for (const node of nodes) await node.stop();
  });

  test(`${rate} INVITEs a second while the nodes are drained in turn: each is answered`, async (t) => {
    const phones = users.map((dn, i) => new Phone(dn, i % 3));
    await Promise.all(phones.map((phone) => phone.register()));
    for (const node of nodes) {
      await until(async () => (await others(node)).reduce((all, row) => all + row.records, 0) === 40, { ms: 15_000, what: 'all agents are known' });
    }
    const { peer } = far;
    const refused = [];
    let answered = 0;
    let begun = 0;
    let running = true;

    /** A call to that phone by way of any node. */
    async function rings(phone) {
      peer.server = nodes[begun % 3].node;
      const leg = peer.leg(phone.dn);
      leg.invite();
      let final;
      const answer = leg.answer(40_000).then((reply) => { final = reply; });
      // (it may ring at one node, and then at the next)
      const tried = new Set();
      const from = performance.now();
      await Promise.race([answer, until(() => {
        const { client } = phone;
        const last = phone.rings();
        if (last && !tried.has(last) && !phone.moving && performance.now() - from > ringing) {
          tried.add(last);
          phone.answering = true;
          client.send('answer', { callId: last, sdp: fakeAnswer() });
        }
        return final;
      }, { ms: 40_000, what: `${phone.dn} is called` })]);
      if (final.status !== 200) {
        refused.push(`${phone.dn} at ${phone.at}: ${final.start}`);
        leg.ack(final);
        return;
      }
      answered += 1;
      peer.server = placeOf(final.contact);
      leg.ack(final);
      // (said again until it is answered, as on any lossy way: this process may be too slow to take all that comes at once)
      const branch = leg.send('BYE');
      const { cseq } = leg;
      let sent = 1;
      const repeat = setInterval(() => { leg.send('BYE', { cseq, branch }); sent += 1; }, 500);
      const ended = await leg.reply(branch, undefined, 20_000).finally(() => clearInterval(repeat));
      // (481: the answer to an earlier one was lost here, and its transaction is over. That no call is left is looked at in the end)
      assert.ok(ended.status === 200 || sent > 1 && ended.status === 481, `BYE ${sent}: ${ended.start}`);
    }

    const work = new Set();
    const add = (phone, what) => {
      const one = what.catch((error) => refused.push(String(error.stack ?? error).slice(0, 500))).finally(() => work.delete(one));
      work.add(one);
    };
    const calling = (async () => {
      const from = performance.now();
      while (running) {
        for (const due = Math.floor(((performance.now() - from) / 1000) * rate); begun < due; begun += 1) {
          const phone = phones.find((one) => !one.busy);
          if (!phone) break;
          phones.push(...phones.splice(phones.indexOf(phone), 1));
          phone.busy = true;
          add(phone, rings(phone).finally(() => { phone.busy = false; phone.answering = false; }));
        }
        // each message is looked for in all of them: what is over goes, or this process would be the one that is too slow
        far.peer.log = far.peer.log.filter((entry) => entry.at > performance.now() - 2000);
        await sleep(10);
      }
      return (performance.now() - from) / 1000;
    })();
    let drained = 0;
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      const node = nodes[drained % 3];
      await node.rpc('rtc_json.drain');
      // all that are there leave at once, a few at a time, those first at whom it rings
      for (const phone of phones.filter((one) => one.at === drained % 3).sort((one, other) => other.busy - one.busy)) {
        add(phone, phone.move().finally(() => { phone.moving = false; }));
        await sleep(20);
      }
      await until(() => phones.every((phone) => phone.at !== drained % 3), { ms: 20_000 }).catch(async () => {
        const left = phones.filter((phone) => phone.at === drained % 3).map(({ dn, busy, answering, moving, client }) => JSON.stringify({ dn, busy, answering, moving, closed: client.closed}));
        throw new Error(`not all have left ${drained % 3}\n${left.join('\n')}\n${refused.join('\n')}`);
      });
      await node.rpc('rtc_json.drain', 0);
      drained += 1;
    }
    running = false;
    const took = await calling;
    while (work.size) await Promise.all(work);
    const passed = await Promise.all(nodes.map((node) => node.stat('passed_on')));
    const moves = phones.reduce((all, phone) => all + phone.moves, 0);
    t.diagnostic(`${begun} INVITEs in ${took.toFixed(0)} s, ${answered} answered; ${moves} times an agent went elsewhere, ${passed.join(' + ')} INVITEs went on with them`);
    assert.equal(refused.length, 0, refused.join('\n'));
    assert.ok(moves > users.length, String(moves));
    assert.ok(passed.some((count) => count > 0), 'calls rang at nodes that their agents left');
    await until(async () => (await Promise.all(nodes.map((node) => node.rpcRows('rtc_json.calls')))).flat().length === 0, { ms: 20_000, what: 'no call is left over' });
    assert.equal(far.ends().filter((ends) => ends > 1).length, 0);
  });
});
