/** Many browsers at once, on four workers: whatever crosses, each call ends once, and its messages come in order. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp } from './peer.mjs';
import { Bench, hopByNumber, idle, to } from './support.mjs';

const BROWSERS = 50;
const CALLS_EACH = 20;
const dns = Array.from({ length: BROWSERS }, (_, i) => String(6001 + i));
const shared = '7001';

// The seed is printed, so that the same plan can be tried again: RTC_JSON_SEED=… node --test …
const seed = Number(process.env.RTC_JSON_SEED ?? Date.now() % 1e9);

/** Random whole numbers from 0 to `below` - 1 (mulberry32). One for each browser: the plan does not depend on who is faster. */
function randomOf(number) {
  let state = (seed + number * 0x9e3779b9) | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

// The far sides: SIPp where nothing can cross a CANCEL or BYE, a callee of our own where it can. `refused`: status and word of the
// refusal; `longest`: ms until a final reply; `hangsUp`: ends answered calls itself.
const far = {
  atOnce: { sipp: { ring: 1, final: 1 }, longest: 40 },
  late: { sipp: { ring: 200, final: 1 }, longest: 250 },
  declines: { sipp: { ring: 30, final: 2, code: 603 }, refused: [603, 'call_rejected'], longest: 60 },
  rings: { peer: { first: 30, status: 180, ring: 150, final: 200 }, longest: 200 },
  hangsUp: { peer: { first: 10, status: 180, ring: 20, final: 200, talk: 100 }, hangsUp: true, longest: 60 },
  early: { peer: { first: 30, status: 183, ring: 100, final: 200 }, longest: 150 },
  noAnswer: { peer: { first: 40, status: 180, ring: 0, final: 0 }, longest: 60 },
  busy: { peer: { first: 20, status: 180, ring: 80, final: 486 }, refused: [486, 'user_busy'], longest: 120 },
};
const kinds = Object.keys(far);

/**
 * A called side after RFC 3261 that notes what the caller does wrong.
 * @param {import('./peer.mjs').Peer} peer
 * @param {{ first: number, status: number, ring: number, final: number, talk?: number }} plan ms at most until the
 *   provisional reply, from there to the final one (0: only a CANCEL ends it), and from the ACK until it hangs up itself
 * @param {(below: number) => number} random
 */
function callee(peer, { first, status, ring, final, talk }, random) {
  const calls = new Map();
  /** @type {string[]} */
  const wrong = [];
  const body = farSdp({ setup: 'active' });
  // until it is told to stop: a repetition is no sign of a fault on a busy machine
  const repeat = (send, stop) => {
    if (stop()) return;
    send();
    setTimeout(repeat, 500, send, stop).unref();
  };
  peer.onRequest((m, repeated) => {
    const c = calls.get(m.callId);
    const note = (what) => wrong.push(`${what}: ${m.start} ${m.callId}`);
    if (m.method === 'INVITE') {
      if (repeated) return;
      if (c) { note('a second INVITE'); return; }
      const call = { invite: m, rung: false, final: 0, acked: false, cancels: 0, byes: 0, own: undefined };
      calls.set(m.callId, call);
      call.end = (code) => {
        call.final = code;
        repeat(() => peer.reply(m, code, code === 200 ? { body } : {}), () => call.acked);
      };
      const untilRinging = random(first);
      const untilFinal = 2 + random(ring);
      call.talk = talk && random(talk);
      setTimeout(() => {
        call.rung = true;
        peer.reply(m, status, status === 183 ? { body } : {});
        if (final) setTimeout(() => { if (!call.final) call.end(final); }, untilFinal);
      }, untilRinging);
      return;
    }
    if (!c) { note('for no call'); return; }
    if (m.method === 'ACK') {
      if (!c.final) note('ACK before a final reply');
      if (!c.acked && c.final === 200 && talk) {
        setTimeout(() => {
          if (c.byes) return;
          c.own = peer.legOf(c.invite);
          const branch = `z9hG4bKbye${m.callId}`;
          repeat(() => c.own.send('BYE', { cseq: 1, branch }), () => {
            c.ownReply = peer.log.find((e) => e.dir === 'in' && e.message.branch === branch)?.message.status;
            return c.ownReply;
          });
        }, c.talk);
      }
      c.acked = true;
      return;
    }
    peer.reply(m, 200);
    if (m.method === 'CANCEL') {
      // RFC 3261, 9.1
      if (!c.rung) note('CANCEL before a provisional reply');
      if (!repeated) c.cancels += 1;
      if (!c.final) c.end(487);
    } else if (m.method === 'BYE') {
      if (c.final !== 200) note('BYE for a call that was not answered');
      if (!repeated) c.byes += 1;
    } else note('not expected');
  });
  return {
    port: peer.port,
    /** What went wrong, in all calls; asked when they are over. */
    wrong() {
      const unfinished = [...calls.values()].filter((c) => {
        // of two BYEs that cross, one may be refused
        const ended = c.own ? c.ownReply === 200 || (c.ownReply === 481 && c.byes === 1) : c.byes === (c.final === 200 ? 1 : 0);
        return !(c.final && c.acked && c.cancels <= 1 && c.byes <= 1 && ended);
      });
      return [...wrong, ...unfinished.map(({ invite, final: code, acked, cancels, byes, ownReply }) => (
        `${invite.callId}: ${JSON.stringify({ code, acked, cancels, byes, ownReply })}`))];
    },
  };
}

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

before(async () => {
  kamailio = await startKamailio({
    cfg: hopByNumber(), workers: 4, users: [...dns, shared], params: { max_calls_per_agent: 64, call_rate: 0, max_sessions_per_agent: 4 },
  });
  bench = new Bench(kamailio);
});
after(() => kamailio?.stop());
afterEach(async () => {
  await bench.finish();
  for (const gauge of ['agents', 'sessions', 'calls', 'step_failures']) assert.equal(await kamailio.stat(gauge), 0, gauge);
});

const isEvent = (id) => /^evt-\d+$/.test(id);
const outcomesOf = (client, id) => client.received.filter((m) => m.id === id && m.type !== 'callProgress');

/**
 * What holds for every session, whatever happened in it: events numbered without a gap, one outcome for each request, the
 * messages of each call in order. Gives the messages by call.
 * @param {import('../common/client.mjs').Client} client
 */
function checkSession(client) {
  // a transcript is long, so it is made only for a failure
  const fail = (what) => assert.fail(`${what} (seed ${seed})\n${client.transcript()}`);
  if (client.closed) fail('closed');
  const events = client.received.filter((m) => isEvent(m.id)).map((m) => Number(m.id.slice(4)));
  if (events.some((number, i) => number !== i + 1)) fail(`events with a gap: ${events}`);

  const outcomes = new Map();
  const calls = new Map();
  for (const m of client.received) {
    if (!isEvent(m.id) && m.type !== 'callProgress') outcomes.set(m.id, (outcomes.get(m.id) ?? 0) + 1);
    const callId = m.payload.callId;
    if (callId === undefined) continue;
    if (!calls.has(callId)) calls.set(callId, []);
    calls.get(callId).push(m);
  }
  for (const { message } of client.log.filter((e) => e.dir === 'out')) {
    if (outcomes.get(message.id) !== 1) fail(`${outcomes.get(message.id) ?? 0} outcomes for ${message.id}`);
    outcomes.delete(message.id);
  }
  if (outcomes.size) fail(`under ids that nobody gave: ${[...outcomes.keys()]}`);
  return calls;
}

/**
 * Waits until nothing is left to do in Kamailio and SIPp, which must have seen nothing that it did not expect.
 * @param {import('../common/sipp.mjs').Sipp[]} sipps
 */
async function settled(sipps) {
  await idle(kamailio);
  for (const sipp of sipps) {
    const lines = sipp.errors().match(/(?:unexpected|Dead call|Abort)[^\n]{0,300}/g) ?? [];
    // on a busy machine a request is sent again, and so is its reply
    assert.deepEqual(lines.filter((line) => !/^Dead call .* received 'SIP\/2\.0 /.test(line)), []);
  }
}

test(`${BROWSERS * CALLS_EACH} calls of ${BROWSERS} browsers`, { timeout: 120_000 }, async (t) => {
  t.diagnostic(`RTC_JSON_SEED=${seed}`);
  // one TLS handshake at a time: more of them are too much for Kamailio 5.6 with four processes (docs/operators-guide.md, section 3)
  const connected = [];
  for (const i of dns.keys()) connected.push(await bench.client(i % 2 ? kamailio.wssUrl : kamailio.wsUrl));
  const clients = await Promise.all(dns.map(async (dn, i) => {
    await connected[i].register(dn);
    return connected[i];
  }));
  const ends = {};
  for (const [i, kind] of kinds.entries()) {
    ends[kind] = far[kind].sipp
      ? await bench.far('load-uas', far[kind].sipp, { calls: 1e6, timeout: 300, trace: false })
      : callee(await bench.peer(), far[kind].peer, randomOf(2000 + i));
  }
  const sipps = kinds.filter((kind) => far[kind].sipp).map((kind) => ends[kind]);
  const callees = kinds.filter((kind) => far[kind].peer).map((kind) => ends[kind]);
  const plans = [];

  /** One call. `hangUpAfter`: ms after `trying`; without it the browser lets it ring, talks and then hangs up. */
  const call = async (client, random) => {
    const kind = kinds[random(kinds.length)];
    const hangUpAfter = random(2) || kind === 'noAnswer' ? random(far[kind].longest) : undefined;
    const talk = random(3) ? random(100) : undefined;
    const id = client.send('call', { to: to(ends[kind]), sdp: fakeOffer() });
    const { callId } = await client.waitFor('callProgress', (p, m) => m.id === id, 10_000);
    const plan = { client, kind, id, callId };
    plans.push(plan);
    const hangUp = async () => { plan.hangUp = await client.request('hangup', { callId, reason: 'user_hangup' }, { id: `h-${id}`, ms: 10_000 }); };
    if (hangUpAfter !== undefined) {
      await sleep(hangUpAfter);
      await hangUp();
    } else {
      await until(() => outcomesOf(client, id).length > 0, { ms: 15_000, every: 5, what: `outcome of ${id} (${kind})` });
      if (outcomesOf(client, id)[0].type === 'callAccepted' && (talk !== undefined || !far[kind].hangsUp)) {
        await sleep(talk ?? 0);
        await hangUp();
      }
    }
    await until(() => client.received.some((m) => m.type === 'callEnded' && m.payload.callId === callId), { ms: 15_000, every: 5, what: `end of ${callId} (${kind})` });
  };

  const started = performance.now();
  await Promise.all(clients.map(async (client, number) => {
    const random = randomOf(number);
    let left = CALLS_EACH;
    const lanes = 1 + random(3);
    await Promise.all(Array.from({ length: lanes }, async (_, lane) => {
      const laneRandom = randomOf((number + 1) * 100 + lane);
      while (left > 0) {
        left -= 1;
        await call(client, laneRandom);
      }
    }));
  }));
  const seconds = (performance.now() - started) / 1000;

  assert.equal(plans.length, BROWSERS * CALLS_EACH);
  await settled(sipps);
  for (const end of callees) assert.deepEqual(end.wrong(), [], `seed ${seed}`);

  const rung = [];
  const counts = { accepted: 0, cancelled: 0, refused: 0, crossed: 0 };
  const byClient = new Map(clients.map((client) => [client, checkSession(client)]));
  for (const { client, kind, id, callId, hangUp } of plans) {
    const check = (fine, what) => { if (!fine) assert.fail(`${what} (seed ${seed}, ${kind}, ${callId})\n${client.transcript()}`); };
    const same = (is, wanted) => check(isDeepStrictEqual(is, wanted), `${JSON.stringify(is)} instead of ${JSON.stringify(wanted)}`);
    const messages = byClient.get(client).get(callId);
    const types = messages.map((m) => (m.type === 'callProgress' ? m.payload.state : m.type));
    const at = (type) => types.indexOf(type);
    for (const type of ['trying', 'ringing', 'early', 'callAccepted', 'callEnded']) {
      check(types.filter((x) => x === type).length <= 1, `${type} twice`);
    }

    const outcome = outcomesOf(client, id)[0];
    const ended = messages[at('callEnded')];
    check(at('trying') === 0, 'begins with trying');
    // progress, then the outcome, then the end; only the answer to a hang-up that came too late may follow
    const outcomeAt = messages.indexOf(outcome);
    const lastProgress = Math.max(at('trying'), at('ringing'), at('early'));
    check(lastProgress < outcomeAt && outcomeAt < at('callEnded'), 'progress, outcome, end');
    for (const m of messages.slice(at('callEnded') + 1)) {
      same([m.type, m.id, m.payload.code], ['error', `h-${id}`, 404]);
    }

    if (hangUp && hangUp.type !== 'callEnded') {
      same(hangUp.payload.code, 404);
      counts.crossed += 1;
    }
    if (outcome.type === 'callAccepted') {
      check(!far[kind].refused, 'accepted');
      same(ended.payload.reason, 'normal_clearing');
      counts.accepted += 1;
      // right behind a provisional reply the 200 may be handled before it, by another process: rarely
      if (far[kind].peer) rung.push(at('ringing') > 0 || at('early') > 0);
    } else if (hangUp?.type === 'callEnded') {
      same([outcome.payload.code, outcome.payload.details, ended.payload.reason], [487, 'cancelled', 'cancelled']);
      counts.cancelled += 1;
    } else {
      same([outcome.payload.code, outcome.payload.details], far[kind].refused);
      same(ended.payload.reason, far[kind].refused[1]);
      counts.refused += 1;
    }
  }
  t.diagnostic(`${plans.length} calls in ${seconds.toFixed(1)} s (${(plans.length / seconds).toFixed(0)} a second): ${JSON.stringify(counts)}`);
  assert.ok(rung.filter(Boolean).length > rung.length * 0.8, `${rung.filter(Boolean).length} of ${rung.length} were seen ringing`);
  // every way must have been taken, or the plan is none
  for (const [what, count] of Object.entries(counts)) assert.ok(count > (what === 'crossed' ? 0 : 50), `${what}: ${count}`);
});

test('three browsers of one agent ask and answer while its calls go on', { timeout: 60_000 }, async (t) => {
  t.diagnostic(`RTC_JSON_SEED=${seed}`);
  const random = randomOf(1000);
  const browsers = await Promise.all([kamailio.wsUrl, kamailio.wssUrl, kamailio.wsUrl].map(async (url) => {
    const client = await bench.client(url);
    await client.register(shared);
    return client;
  }));
  let running = true;
  t.after(() => { running = false; });
  const pings = browsers.map(async (client, i) => {
    let sent = 0;
    let slowest = 0;
    while (running) {
      // several at once: they wait in the same queue as the events
      const at = performance.now();
      const asked = Array.from({ length: 4 }, () => client.request('ping', {}, { id: `p-${i}-${sent += 1}` }));
      for (const pong of await Promise.all(asked)) assert.equal(pong.type, 'pong');
      slowest = Math.max(slowest, performance.now() - at);
      await sleep(5);
    }
    return { sent, slowest };
  });

  // In: each call rings in all three, and two of them take it at the same instant. The caller hangs up, or the browser.
  const answers = { won: 0, lost: 0 };
  const taken = new Set();
  const waiting = browsers.map(async (client) => {
    while (running && !client.closed) {
      let call;
      try { call = await client.waitFor('incomingCall', undefined, 500); } catch { continue; }
      const key = call.callId;
      const number = [...key].reduce((sum, c) => sum + c.charCodeAt(0), 0);
      if (number % 3 === browsers.indexOf(client)) continue; // one of three does not care
      taken.add((async () => {
        await sleep(random(3));
        const outcome = await client.request('answer', { callId: key, sdp: fakeAnswer() }, { id: `a-${key.slice(0, 20)}` });
        if (outcome.type === 'ack') {
          answers.won += 1;
          if (call.from === 'waits') {
            await sleep(random(60));
            await client.expect('hangup', { callId: key, reason: 'user_hangup' }, 'callEnded');
          }
        } else {
          assert.equal(outcome.payload.code, outcome.payload.code === 404 ? 404 : 409);
          answers.lost += 1;
        }
      })());
    }
  });
  const incoming = 60;
  const incomingLoad = { service: shared, calls: incoming, rate: 15, concurrent: 8 };
  const callers = [
    await bench.far('uac-call', { talk: 80, caller: 'talks' }, incomingLoad),
    await bench.far('uac-bye-wait', { caller: 'waits' }, incomingLoad),
  ];
  // Out, from each of them, at the same time.
  const rings = callee(await bench.peer(), far.rings.peer, randomOf(3000));
  const outgoing = 20;
  await Promise.all(browsers.map(async (client, i) => {
    for (let n = 0; n < outgoing; n += 1) {
      const id = client.send('call', { to: to(rings), sdp: fakeOffer() }, { id: `c-${i}-${n}` });
      const { callId } = await client.waitFor('callProgress', (p, m) => m.id === id);
      await sleep(random(200));
      await client.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
    }
  }));
  for (const caller of callers) await caller.ok();
  await Promise.all(taken);
  running = false;
  const figures = await Promise.all(pings);
  await Promise.all(waiting);
  await settled(callers);
  assert.deepEqual(rings.wrong(), [], `seed ${seed}`);

  t.diagnostic(`${2 * incoming} calls in, ${3 * outgoing} out, ${figures.reduce((sum, f) => sum + f.sent, 0)} pings, slowest ${Math.max(...figures.map((f) => f.slowest)).toFixed(0)} ms; answers ${JSON.stringify(answers)}`);
  assert.equal(answers.won, 2 * incoming);
  assert.equal(answers.lost, 2 * incoming);
  const rangIn = browsers.map((client) => {
    const ids = [];
    for (const [callId, messages] of checkSession(client)) {
      const types = messages.map((m) => m.type);
      const check = (fine, what) => { if (!fine) assert.fail(`${what} (seed ${seed}, ${callId})\n${client.transcript()}`); };
      check(types.filter((type) => type === 'callEnded').length === 1, 'ends once');
      if (types[0] !== 'incomingCall') continue;
      ids.push(callId);
      const reason = messages.find((m) => m.type === 'callEnded').payload.reason;
      const won = types.includes('ack');
      check(reason === (won ? 'normal_clearing' : 'answered_elsewhere'), reason);
      if (won) check(types.indexOf('ack') < types.indexOf('callEnded'), 'the ack, then the end');
    }
    return ids;
  });
  for (const ids of rangIn) assert.deepEqual([...ids].sort(), [...rangIn[0]].sort(), 'each call rang in all three');
  assert.equal(rangIn[0].length, 2 * incoming);

});
