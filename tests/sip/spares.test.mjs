/** memory_spares: free fragments in private and in shared memory, which are still there after calls. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';

const users = ['5001', '5002'];
/** What rtc_json_spares.c lays out in a worker: 24 sizes of two, 48 of four, 31 of eight. */
const LAID_OUT = 24 * 2 + 48 * 4 + 31 * 8;

/** @returns {Promise<Record<string, number>[]>} used, real_used and total_frags (the free ones) of each worker */
async function workers(kamailio) {
  return (await kamailio.rpcRows('pkg.stats')).filter((row) => row.rank > 0);
}

/** @returns {Promise<Record<string, number>>} of shared memory: total, used, fragments (the free ones) and more */
const shared = async (kamailio) => (await kamailio.rpcRows('core.shmmem'))[0];

async function calls(kamailio, count) {
  const [a, b] = await Promise.all(users.map(async (dn) => {
    const client = await connect(kamailio.wsUrl);
    await client.register(dn);
    return client;
  }));
  for (let i = 0; i < count; i += 1) {
    const accepted = a.expect('call', { to: users[1], sdp: fakeOffer() }, 'callAccepted');
    const { callId } = await b.waitFor('incomingCall');
    await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    await accepted;
    await b.expect('hangup', { callId }, 'callEnded');
    await a.waitFor('callEnded');
  }
  await Promise.all([a.close(), b.close()]);
}

/** @param {import('../common/kamailio.mjs').Options} options */
async function withKamailio(options, use) {
  const kamailio = await startKamailio({ mode: 'local', users, ...options });
  try {
    await use(kamailio);
  } finally {
    await kamailio.stop();
  }
}

// in MANAGER=fm runs there is nothing to lay out
const skip = Boolean(process.env.MANAGER) && process.env.MANAGER !== 'qm';

test('each worker has them, and they outlive its messages', { skip }, async (t) => {
  let without;
  await withKamailio({ params: { memory_spares: 0 } }, async (kamailio) => {
    await calls(kamailio, 5);
    without = await workers(kamailio);
  });
  await withKamailio({}, async (kamailio) => {
    const most = Math.max(...without.map((row) => row.total_frags));
    const least = async () => Math.min(...(await workers(kamailio)).map((row) => row.total_frags));
    t.diagnostic(`free fragments of a worker: without at most ${most}, with at least ${await least()}`);
    assert.ok(most < LAID_OUT / 4, `${most} without`);
    // a few stay in use: what a process remembers
    const enough = 0.95 * LAID_OUT;
    assert.ok(await least() > enough);
    await calls(kamailio, 100);
    await until(async () => await least() > enough, { what: 'the fragments are free again' });
    const [now, was] = [await workers(kamailio), without].map((rows) => Math.max(...rows.map((row) => row.real_used)));
    t.diagnostic(`private memory of a worker: ${was} and ${now} bytes`);
    assert.ok(now - was < 200_000, 'used for good: the walls between them');
  });
});

test('shared memory has chunks of 2 kB, one part of 32 of it, which outlive transactions', { skip }, async (t) => {
  // transactions that go soon
  const cfgExtra = 'modparam("tm", "wt_timer", 200)';
  const [before, after] = [{}, {}];
  for (const memory_spares of [0, 1]) {
    await withKamailio({ params: { memory_spares }, cfgExtra }, async (kamailio) => {
      before[memory_spares] = await shared(kamailio);
      await calls(kamailio, 100);
      await until(async () => {
        after[memory_spares] = await shared(kamailio);
        return !memory_spares || after[1].fragments > 0.95 * before[1].fragments;
      }, { what: 'the chunks are free again' });
    });
  }
  const chunks = Math.floor(before[0].free / 32 / 2048);
  t.diagnostic(`${chunks} chunks; free fragments without ${before[0].fragments} to ${after[0].fragments}, with ${before[1].fragments} to ${after[1].fragments}`);
  assert.ok(after[0].fragments < chunks / 4, `${after[0].fragments} without`);
  assert.ok(before[1].fragments > 0.95 * chunks);
  const more = before[1].real_used - before[0].real_used;
  assert.ok(more < 0.12 * chunks * 2048, `${more} bytes more in use: the walls between them`);
});

test('not where private memory is short', { skip }, async () => {
  await withKamailio({ args: ['-M', '3'], debug: 2 }, async (kamailio) => {
    assert.ok((await workers(kamailio)).every((row) => row.total_frags < LAID_OUT / 4));
    await calls(kamailio, 5);
    assert.match(kamailio.log(), /little private memory/);
  });
});
