/** Nothing leaks: after ten thousand calls, and after browsers that came and went, memory is where it was. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { memoryOf } from './support.mjs';

/** Each call of the browsers is two for the module: one out, one in. */
const CALLS = 10_000;
const PAIRS = 10;
/** How many calls that are over stay in the arena (`call_history`, the default). */
const KEPT = 1000;
const dns = Array.from({ length: 2 * PAIRS }, (_, i) => String(6101 + i));
const visitors = Array.from({ length: 20 }, (_, i) => String(6201 + i));

let kamailio;
let pairs;

before(async () => {
  kamailio = await startKamailio({ mode: 'local', users: [...dns, ...visitors], shm: 1024, params: { resume_grace: 5, call_rate: 0 } });
  pairs = await Promise.all(Array.from({ length: PAIRS }, async (_, i) => {
    const [a, b] = await Promise.all([connect(kamailio.wsUrl), connect(kamailio.wsUrl)]);
    await Promise.all([a.register(dns[2 * i]), b.register(dns[2 * i + 1])]);
    return { a, b, to: dns[2 * i + 1] };
  }));
});

after(() => kamailio?.stop());

async function calls(count) {
  let left = count / 2;
  await Promise.all(pairs.map(async ({ a, b, to }) => {
    while (left > 0) {
      left -= 1;
      const accepted = a.expect('call', { to, sdp: fakeOffer() }, 'callAccepted', { ms: 20_000 });
      const { callId } = await b.waitFor('incomingCall', undefined, 20_000);
      await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack', { ms: 20_000 });
      const { callId: own } = await accepted;
      // each side hangs up in turn
      const [ends, other, id] = left % 2 ? [a, b, own] : [b, a, callId];
      await ends.expect('hangup', { callId: id }, 'callEnded', { ms: 20_000 });
      await other.waitFor('callEnded', undefined, 20_000);
      // the raw client remembers everything; thousands of SDPs need not stay
      a.log.length = 0;
      b.log.length = 0;
    }
  }));
}

function compare(t, from, to) {
  const grown = [...to.pkg].map(([name, used]) => [name, used - (from.pkg.get(name) ?? used)]).sort((x, y) => y[1] - x[1]);
  t.diagnostic(`shm ${from.shm} to ${to.shm} (${to.shm - from.shm}); pkg grown most: ${grown[0]}; arena ${from.arena} to ${to.arena}, records ${from.records} to ${to.records}`);
  // 20 bytes a call would already show
  assert.ok(to.shm - from.shm < 200_000, `shm has grown by ${to.shm - from.shm}`);
  assert.ok(grown[0][1] < 50_000, `pkg of ${grown[0][0]} has grown by ${grown[0][1]}`);
  assert.equal(to.records, from.records);
  // a record may have come to stand in a block of the next size: remembered outcomes
  assert.ok(to.arena - from.arena <= dns.length * 1024, `the arena has grown by ${to.arena - from.arena}`);
}

test(`${CALLS} calls`, async (t) => {
  await calls(1_000);
  const from = await memoryOf(kamailio);
  const began = performance.now();
  await calls(CALLS);
  t.diagnostic(`${CALLS} calls in ${((performance.now() - began) / 1000).toFixed(1)} s`);
  compare(t, from, await memoryOf(kamailio));
});

test('500 browsers that come, register and go', async (t) => {
  const visit = async (i) => {
    const client = await connect(kamailio.wsUrl);
    await client.register(visitors[i % visitors.length]);
    if (i % 2) await client.expect('unregister', {}, 'unregistered');
    await client.close();
  };
  const visits = async (count) => { for (let i = 0; i < count; i += 5) await Promise.all([0, 1, 2, 3, 4].map((n) => visit(i + n))); };
  // the latest calls that are over stand in the arena, too
  const kept = await kamailio.stat('arena_records') - 2 * dns.length;
  assert.equal(kept, KEPT);
  const settled = async () => {
    // sessions that went without a word wait for resume_grace, from when the websocket module tells of the end; the records
    // of their connections go with that word
    await until(async () => await kamailio.stat('sessions') === dns.length && await kamailio.stat('arena_records') === 2 * dns.length + kept, { ms: 60_000, every: 500, what: 'only the first browsers are left' });
    return memoryOf(kamailio);
  };
  await visits(50);
  const from = await settled();
  await visits(500);
  compare(t, from, await settled());
});
