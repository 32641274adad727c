/** Digits: Asterisk reads what was dialled, from INFO or from the sound's own stream. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { ms, note, refused, startBench, talk, until } from './fixture.mjs';

// 605 reads four digits; # would end it
const read = (log) => /NoOp\("[^"]*", "DTMF-READ ([^"]*)"\)/.exec(log)?.[1];

/** Ways to dial that Asterisk must read alike. */
for (const { how, mode, params } of [
  { how: 'INFO', params: {} },
  { how: 'RFC 4733, by the browser', mode: 'rfc4733', params: { dtmf_mode: 'rfc4733' } },
]) {
  describe(`by ${how}`, () => {
    let bench;
    let agent;
    before(async () => {
      bench = await startBench({ 5001: 420 }, { params });
      agent = bench.agents[5001];
    });
    afterEach(() => bench.hangUpAll());
    after(() => bench?.stop());

    const infos = (since) => bench.sip('INFO ', since).filter((text) => /^Content-Type: application\/dtmf-relay/m.test(text));

    for (const [digits, parts, duration] of [['5123', ['5', '1', '2', '3']], ['0987', ['0987']], ['*7AD', ['*7', 'AD'], 120], ['6666', ['6666'], 60]]) {
      test(`${parts.join(', ')}${duration ? ` of ${duration} ms` : ''}`, async () => {
        const since = bench.asterisk.log().length;
        const call = await agent.callAndWait('605');
        await until(async () => (await agent.run('sound', call)).packets >= 0 && (await agent.run('sound', call)).sent > 10, { what: 'sound flows' });
        const start = performance.now();
        for (const part of parts) {
          const outcome = await agent.run('dtmf', call, part, duration);
          // (a client may keep the mode to itself)
          if (outcome) assert.equal(outcome.mode, mode);
        }
        const acked = performance.now();
        const got = await until(() => read(bench.asterisk.log().slice(since)), { what: 'Asterisk has read the digits' });
        note(`${digits}: ack after ${ms(start, acked)} ms, read after ${ms(start, performance.now())} ms`);
        assert.equal(got, digits);
        const sent = infos(since).map((text) => /^Signal=(.)\r?\nDuration=(\d+)/m.exec(text).slice(1));
        if (mode) assert.deepEqual(sent, []);
        else {
          assert.deepEqual(sent.map(([digit]) => digit).join(''), digits);
          if (duration) assert.ok(sent.every(([, length]) => Number(length) === duration), JSON.stringify(sent));
        }
        // Asterisk hangs up
        assert.equal((await agent.ended(call)).reason, 'normal_clearing');
      });
    }

    test('the # key', async () => {
      const since = bench.asterisk.log().length;
      const call = await agent.callAndWait('600');
      await until(async () => (await agent.run('sound', call)).sent > 10, { what: 'sound flows' });
      await agent.run('dtmf', call, '#');
      await until(() => /DTMF end '#' received on PJSIP\/5001/.test(bench.asterisk.log().slice(since)), { what: 'Asterisk has heard it' });
    });

    test('what is no digit is refused, and the call goes on', async () => {
      const call = await agent.callAndWait('600');
      for (const digit of ['x', '', '5\r\nSignal=6', '12345678901234567890123456789012345678901234567890123456789012345']) {
        await refused(agent, 'dtmf', { callId: (await agent.about(call)).id, digit }, 400);
      }
      assert.equal((await agent.about(call)).state, 'established');
      await agent.run('hangup', call);
    });

    test('nothing went wrong that nobody saw', () => bench.clean());
  });
}

describe('to another agent', () => {
  let bench;
  before(async () => { bench = await startBench({ 5001: 420, 5002: 1000 }); });
  after(() => bench?.stop());

  test('Asterisk hears a digit of either side of a bridge', async () => {
    const { 5001: a, 5002: b } = bench.agents;
    const [ours, theirs] = await talk(a, b);
    const since = bench.asterisk.log().length;
    await a.run('dtmf', ours, '1');
    await b.run('dtmf', theirs, '2');
    for (const [digit, dn] of [['1', '5001'], ['2', '5002']]) {
      await until(() => new RegExp(`DTMF end '${digit}' received on PJSIP/${dn}`).test(bench.asterisk.log().slice(since)), { what: `digit of ${dn}` });
    }
    await a.run('hangup', ours);
    await bench.quiet();
    bench.clean();
  });
});
