import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mos, stats } from '../dist/stats.js';

const call = (...reports) => ({ pc: { getStats: async () => new Map(reports.map((report, i) => [i, report])) } });
const inbound = (fields) => ({ type: 'inbound-rtp', packetsReceived: 500, packetsLost: 0, jitter: 0.002, ...fields });

test('what the browser has measured, and a score of it', async () => {
  const found = await stats(
    call(
      inbound({ packetsReceived: 950, packetsLost: 50 }),
      { type: 'outbound-rtp', packetsSent: 1000 },
      { type: 'remote-inbound-rtp', roundTripTime: 0.1, fractionLost: 0.02 },
      { type: 'candidate-pair', nominated: true, currentRoundTripTime: 0.05 },
      { type: 'candidate-pair', nominated: false, currentRoundTripTime: 9 },
    ),
  );
  const { mos: score, ...rest } = found;
  assert.deepEqual(rest, { roundTripTime: 0.1, jitter: 0.002, loss: 0.05, packetsReceived: 950, packetsSent: 1000, remoteLoss: 0.02 });
  assert.ok(score > 3.4 && score < 3.9, `${score}`);
});

test('before the far side has reported: the time that ICE has measured; before any sound: nothing', async () => {
  const pair = { type: 'candidate-pair', nominated: true, currentRoundTripTime: 0.05 };
  assert.equal((await stats(call(inbound(), pair))).roundTripTime, 0.05);
  assert.equal(await stats(call(pair)), undefined);
});

test('loss is that since the last time', async () => {
  let report = inbound({ packetsReceived: 90, packetsLost: 10 });
  const one = { pc: { getStats: async () => new Map([[0, report]]) } };
  assert.equal((await stats(one)).loss, 0.1);
  report = inbound({ packetsReceived: 190, packetsLost: 10 });
  assert.equal((await stats(one)).loss, 0);
  assert.equal((await stats(one)).loss, 0, 'nothing came and nothing was lost');
  // duplicates make the browsers' count go down
  report = inbound({ packetsReceived: 290, packetsLost: 8 });
  assert.equal((await stats(one)).loss, 0);
});

test('the score: as good as a telephone gets, down to useless, falling with each of the three', () => {
  const of = (roundTripTime, jitter, loss) => mos({ roundTripTime, jitter, loss });
  // (R 93.2 less 0.48 for the 20 ms of a packet: ITU-T G.107, annex B)
  assert.ok(Math.abs(of(0, 0, 0) - 4.4) < 0.02, `${of(0, 0, 0)}`);
  assert.equal(of(3, 0, 0.5), 1);
  for (const worse of [of(0.4, 0, 0), of(0, 0.05, 0), of(0, 0, 0.02)]) assert.ok(worse < of(0, 0, 0) - 0.05, `${worse}`);
  // G.113: G.711 with concealment at 5 % random loss loses some 16 of R
  assert.ok(Math.abs(of(0, 0, 0.05) - 3.9) < 0.1, `${of(0, 0, 0.05)}`);
});
