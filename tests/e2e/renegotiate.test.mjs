/** The media of a call changes while it goes on: another path, another device. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { hearsTones, note, refused, sleep, startBench, talk, until } from './fixture.mjs';

const tones = { 5001: 420, 5002: 1000 };
const [first, second] = Object.values(tones);
const ufrag = (sdp) => /^a=ice-ufrag:(\S+)/m.exec(sdp)[1];
const version = (sdp) => Number(/^o=\S+ \S+ (\d+)/m.exec(sdp)[1]);
// an outage of the sound shorter than this is the jitter of a busy machine
const shortSilence = 1000;

for (const local of [false, true]) {
  describe(local ? 'between browsers of one Kamailio' : 'with Asterisk', () => {
    let bench;
    let a;
    let b;
    before(async () => {
      bench = await startBench(tones, { local });
      [a, b] = [bench.agents[5001], bench.agents[5002]];
    });
    afterEach(() => bench.hangUpAll());
    after(() => bench?.stop());

    const bothHear = async (ours, theirs, tone = first) => note((await Promise.all([
      hearsTones([a, ours], { has: [second], not: [tone] }), hearsTones([b, theirs], { has: [tone], not: [second] }),
    ])).join('; '));

    /** An ICE restart by this agent; gives the time without sound at both. */
    async function restart(agent, index, ...watched) {
      await Promise.all(watched.map(([who, i]) => who.run('watchAgain', i)));
      await sleep(500);
      const sent = (await agent.messages()).length;
      const start = performance.now();
      await agent.run('update', index);
      const took = Math.round(performance.now() - start);
      await sleep(2000);
      const gaps = await Promise.all(watched.map(async ([who, i]) => `${who.dn} ${Math.round((await who.about(i)).watched.longest)} ms`));
      const news = (await agent.messages()).slice(sent);
      const offer = news.find(({ dir, type }) => dir === 'out' && type === 'update').payload.sdp;
      const answer = news.find(({ dir, type, payload }) => dir === 'in' && type === 'callUpdated' && payload.sdp).payload.sdp;
      note(`update() took ${took} ms; longest time without a packet: ${gaps.join(', ')}`);
      for (const [who, i] of watched) {
        const { longest } = (await who.about(i)).watched;
        assert.ok(longest < shortSilence, `${who.dn} heard nothing for ${longest} ms`);
      }
      return { offer, answer };
    }

    /** The sound has gone over to the pair of the new credentials: a restart that is only talked about leaves it where it was. */
    const newPath = (index, offer) => until(
      async () => (await a.run('sound', index)).ufrag === ufrag(offer), { ms: 5000, what: 'the sound takes the path of the new credentials' },
    );

    for (const caller of [true, false]) {
      test(`ICE restart by the ${caller ? 'caller' : 'called side'}: new credentials on both sides, and the sound goes on`, async () => {
        const [ours, theirs] = caller ? await talk(a, b) : (await talk(b, a)).reverse();
        const before = (await a.messages()).filter(({ payload }) => payload.sdp);
        const ownBefore = before.findLast(({ dir }) => dir === 'out').payload.sdp;
        const farBefore = before.findLast(({ dir }) => dir === 'in').payload.sdp;
        const { offer, answer } = await restart(a, ours, [a, ours], [b, theirs]);
        assert.notEqual(ufrag(offer), ufrag(ownBefore));
        assert.notEqual(ufrag(answer), ufrag(farBefore));
        await newPath(ours, offer);
        await bothHear(ours, theirs);
        // and again
        const again = await restart(a, ours, [a, ours], [b, theirs]);
        assert.ok(version(again.offer) > version(offer));
        await newPath(ours, again.offer);
        await bothHear(ours, theirs);
        assert.equal((await a.run('hangup', ours)).reason, 'normal_clearing');
        await bench.quiet();
      });
    }

    test('an ICE restart on hold stays on hold', async () => {
      const [ours, theirs] = await talk(a, b);
      await a.run('hold', ours, true);
      await a.run('update', ours);
      await sleep(500);
      note(await hearsTones([b, theirs], { has: local ? [] : [523, 659, 784], not: [first] }));
      await a.run('hold', ours, false);
      await bothHear(ours, theirs);
    });

    test('hold after an ICE restart, and back', async () => {
      const [ours, theirs] = await talk(a, b);
      await a.run('update', ours);
      await a.run('hold', ours, true);
      note(await hearsTones([b, theirs], { not: [first] }));
      await a.run('hold', ours, false);
      await bothHear(ours, theirs);
    });

    test('both sides restart at once: one after the other has its way, and the sound goes on', async () => {
      const [ours, theirs] = await talk(a, b);
      await Promise.all([a.run('update', ours), b.run('update', theirs)]);
      await sleep(500);
      await bothHear(ours, theirs);
    });

    test('another microphone: it is heard at once, nothing is sent', async () => {
      const [ours, theirs] = await talk(a, b);
      const sent = (await a.messages()).length;
      await b.run('watchAgain', theirs);
      await a.run('replaceTone', ours, 1800);
      await bothHear(ours, theirs, 1800);
      note(await hearsTones([b, theirs], { has: [1800], not: [first] }));
      const { watched } = await b.about(theirs);
      note(`longest time without a packet at ${b.dn}: ${Math.round(watched.longest)} ms`);
      assert.ok(watched.longest < shortSilence);
      assert.deepEqual((await a.messages()).slice(sent).filter(({ dir, type }) => dir === 'out' && type !== 'ping').map(({ type }) => type), []);
    });

    test('an update that no codec is left of is refused, and the call goes on', async () => {
      const [ours, theirs] = await talk(a, b);
      const { id } = await a.about(ours);
      const sdp = (await a.messages()).findLast(({ dir, payload }) => dir === 'out' && payload.sdp).payload.sdp;
      const none = sdp.replace(/^(m=audio \d+ \S+) .*$/m, '$1 111').replaceAll(/^a=(rtpmap|fmtp|rtcp-fb):\d+ .*\r\n/gm, '').replace(/^(a=setup:.*)$/m, '$1\na=rtpmap:111 opus/48000/2');
      await refused(a, 'update', { callId: id, sdp: none.replaceAll(/\r?\n/g, '\r\n') }, 488);
      await bothHear(ours, theirs);
    });

    test('nothing went wrong that nobody saw', () => bench.clean());
  });
}
