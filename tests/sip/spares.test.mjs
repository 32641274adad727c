/** pkg_spares: free fragments in the private memory of the workers, which are still there after calls. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';

const users = ['5001', '5002'];
/** What rtc_json_pkg.c lays out: 24 sizes of two, 48 of four, 31 of eight. */
const LAID_OUT = 24 * 2 + 48 * 4 + 31 * 8;

/** @returns {Promise<Record<string, number>[]>} used, real_used and total_frags (the free ones) of each worker */
async function workers(kamailio) {
  return (await kamailio.rpcRows('pkg.stats')).filter((row) => row.rank > 0);
}

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
  await withKamailio({ params: { pkg_spares: 0 } }, async (kamailio) => {
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

test('not where private memory is short', { skip }, async () => {
  await withKamailio({ args: ['-M', '3'], debug: 2 }, async (kamailio) => {
    assert.ok((await workers(kamailio)).every((row) => row.total_frags < LAID_OUT / 4));
    await calls(kamailio, 5);
    assert.match(kamailio.log(), /little private memory/);
  });
});
