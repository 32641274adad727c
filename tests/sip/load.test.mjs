/** Many browsers at once, on four workers: whatever crosses, each call ends once, and its messages come in order. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
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

// The far sides. `ends`: what an unanswered call may end with, beside the browser's own hang-up; `longest`: ms until a final reply.
const far = {
  atOnce: { keys: { first: 0, begin: 1, ring: 1, final: 4, talk: 5000 }, longest: 60 },
  rings: { keys: { first: 30, begin: 1, ring: 120, final: 4, talk: 5000 }, longest: 200 },
  early: { keys: { first: 30, begin: 2, ring: 80, final: 4, talk: 5000 }, longest: 150 },
  late: { keys: { first: 50, begin: 3, ring: 150, final: 4, talk: 5000 }, longest: 250 },
  busy: { keys: { first: 20, begin: 1, ring: 60, final: 5, code: 486, talk: 0 }, ends: [486, 'user_busy'], longest: 120 },
  declines: { keys: { first: 10, begin: 3, ring: 30, final: 5, code: 603, talk: 0 }, ends: [603, 'call_rejected'], longest: 80 },
  hangsUp: { keys: { first: 10, begin: 1, ring: 20, final: 4, talk: 60 }, longest: 80, hangsUp: true },
};
const kinds = Object.keys(far);

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

before(async () => {
  kamailio = await startKamailio({
    cfg: hopByNumber(), workers: 4, users: [...dns, shared], params: { max_calls_per_agent: 64, max_sessions_per_agent: 4 },
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
  const context = () => `seed ${seed}\n${client.transcript()}`;
  assert.ok(!client.closed, context());
  const events = client.received.filter((m) => isEvent(m.id)).map((m) => Number(m.id.slice(4)));
  events.forEach((number, i) => assert.equal(number, i + 1, `events without a gap: ${events}\n${context()}`));

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
    assert.equal(outcomes.get(message.id), 1, `one outcome for ${message.id}\n${context()}`);
    outcomes.delete(message.id);
  }
  assert.equal(outcomes.size, 0, `nothing under an id that nobody gave: ${[...outcomes.keys()]}\n${context()}`);
  return calls;
}

/** Waits until SIPp and Kamailio have nothing left to do; SIPp must have seen nothing that it did not expect. */
async function settled(sipps) {
  let failure;
  try { await idle(kamailio); } catch (error) { failure = error; }
  await sleep(1500); // SIPp waits for what may cross a hang-up, and writes its figures once a second
  const errors = sipps.map((sipp) => sipp.errors()).join('');
  assert.equal(errors, '', `SIPp saw something unexpected${failure ? `; ${failure.message}` : ''}`);
  if (failure) throw failure;
}

test(`${BROWSERS * CALLS_EACH} calls of ${BROWSERS} browsers`, { timeout: 120_000 }, async (t) => {
  t.diagnostic(`RTC_JSON_SEED=${seed}`);
  const clients = await Promise.all(dns.map(async (dn, i) => {
    const client = await bench.client(i % 2 ? kamailio.wssUrl : kamailio.wsUrl);
    await client.register(dn);
    return client;
  }));
  const sipps = {};
  for (const kind of kinds) {
    sipps[kind] = await bench.far('load-uas', far[kind].keys, { calls: 1e6, timeout: 300, trace: false });
  }
  const plans = [];

  /** One call. `hangUpAfter`: ms after `trying`; without it the browser lets it ring, talks and then hangs up. */
  const call = async (client, random) => {
    const kind = kinds[random(kinds.length)];
    const hangUpAfter = random(2) ? random(far[kind].longest) : undefined;
    const talk = random(3) ? random(100) : undefined;
    const id = client.send('call', { to: to(sipps[kind]), sdp: fakeOffer() });
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
  await settled(Object.values(sipps));

  const counts = { accepted: 0, cancelled: 0, refused: 0, crossed: 0 };
  const byClient = new Map(clients.map((client) => [client, checkSession(client)]));
  for (const { client, kind, id, callId, hangUp } of plans) {
    const context = () => `seed ${seed}, ${kind}, ${callId}\n${client.transcript()}`;
    const messages = byClient.get(client).get(callId);
    const types = messages.map((m) => (m.type === 'callProgress' ? m.payload.state : m.type));
    const at = (type) => types.indexOf(type);
    const only = (type) => { assert.ok(types.filter((x) => x === type).length <= 1, `${type} twice\n${context()}`); };
    ['trying', 'ringing', 'early', 'callAccepted', 'callEnded'].forEach(only);

    const outcome = outcomesOf(client, id)[0];
    const ended = messages[at('callEnded')];
    assert.equal(at('trying'), 0, context());
    // progress, then the outcome, then the end; only the answer to a hang-up that came too late may follow
    const outcomeAt = messages.indexOf(outcome);
    const lastProgress = Math.max(at('trying'), at('ringing'), at('early'));
    assert.ok(lastProgress < outcomeAt && outcomeAt < at('callEnded'), context());
    for (const m of messages.slice(at('callEnded') + 1)) {
      assert.deepEqual([m.type, m.id, m.payload.code], ['error', `h-${id}`, 404], context());
    }

    if (hangUp && hangUp.type !== 'callEnded') {
      assert.equal(hangUp.payload.code, 404, context());
      counts.crossed += 1;
    }
    if (outcome.type === 'callAccepted') {
      assert.ok(!far[kind].ends, context());
      assert.equal(ended.payload.reason, 'normal_clearing', context());
      // a 200 right behind a 180 may be handled before it, by another process
      if (kind === 'rings') assert.ok(at('ringing') > 0, context());
      if (kind === 'early') assert.ok(at('early') > 0, context());
      counts.accepted += 1;
    } else if (hangUp?.type === 'callEnded') {
      assert.deepEqual([outcome.payload.code, outcome.payload.details, ended.payload.reason], [487, 'cancelled', 'cancelled'], context());
      counts.cancelled += 1;
    } else {
      assert.deepEqual([outcome.payload.code, outcome.payload.details], far[kind].ends, context());
      assert.equal(ended.payload.reason, far[kind].ends[1], context());
      counts.refused += 1;
    }
  }
  t.diagnostic(`${plans.length} calls in ${seconds.toFixed(1)} s (${(plans.length / seconds).toFixed(0)} a second): ${JSON.stringify(counts)}`);
  // every way must have been taken, or the plan is none
  for (const [what, count] of Object.entries(counts)) assert.ok(count > (what === 'crossed' ? 0 : 50), `${what}: ${count}`);

  for (const kind of kinds) {
    await sipps[kind].stop();
    const { failed, retransmissions } = await sipps[kind].done;
    assert.equal(failed, 0, kind);
    t.diagnostic(`${kind}: ${retransmissions} retransmissions`);
  }
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
    while (running) {
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
  const callee = await bench.far('load-uas', far.rings.keys, { calls: 1e6, timeout: 300 });
  const outgoing = 20;
  await Promise.all(browsers.map(async (client, i) => {
    for (let n = 0; n < outgoing; n += 1) {
      const id = client.send('call', { to: to(callee), sdp: fakeOffer() }, { id: `c-${i}-${n}` });
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
  await settled([callee]);

  t.diagnostic(`${2 * incoming} calls in, ${3 * outgoing} out, ${figures.reduce((sum, f) => sum + f.sent, 0)} pings, slowest ${Math.max(...figures.map((f) => f.slowest)).toFixed(0)} ms; answers ${JSON.stringify(answers)}`);
  assert.equal(answers.won, 2 * incoming);
  assert.equal(answers.lost, 2 * incoming);
  const rangIn = browsers.map((client) => {
    const ids = [];
    for (const [callId, messages] of checkSession(client)) {
      const types = messages.map((m) => m.type);
      assert.equal(types.filter((type) => type === 'callEnded').length, 1, `${callId} ends once\n${client.transcript()}`);
      if (types[0] !== 'incomingCall') continue;
      ids.push(callId);
      const reason = messages.find((m) => m.type === 'callEnded').payload.reason;
      const won = types.includes('ack');
      assert.equal(reason, won ? 'normal_clearing' : 'answered_elsewhere', client.transcript());
      if (won) assert.ok(types.indexOf('ack') < types.indexOf('callEnded'), client.transcript());
    }
    return ids;
  });
  for (const ids of rangIn) assert.deepEqual([...ids].sort(), [...rangIn[0]].sort(), 'each call rang in all three');
  assert.equal(rangIn[0].length, 2 * incoming);

});
