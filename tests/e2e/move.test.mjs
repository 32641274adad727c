/** The browser's machine changes to another network in mid-call: its interface and address are gone, others are there. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { chromiumPath } from '../common/browser.mjs';
import { firefoxPath, startFirefox } from '../common/firefox.mjs';
import { freePort } from '../common/ports.mjs';
import { complaints, hears, hearsTones, ms, note, openAgent, serveTestPages, startBrowser, startUpstream, talk, until } from './fixture.mjs';
import { openRoom, serversAddress } from './room.mjs';

const tones = { 5001: 420, 5002: 1000 };
const [own, second] = Object.values(tones);
// the client needs some four seconds; a machine that is busy, more
const limit = 30_000;

const start = {
  Chromium: (room) => startBrowser({ program: room.inside(chromiumPath) }),
  async Firefox(room) {
    const port = await freePort();
    await room.forward(port);
    // (as on any machine: it looks by itself whether there is a network, and for what is not loopback)
    const preferences = { 'media.peerconnection.ice.loopback': false, 'network.manage-offline-status': true };
    return startFirefox({ hertz: own, program: room.inside(firefoxPath), port, preferences });
  },
};

for (const name of ['Chromium', 'Firefox']) {
  describe(name, { skip: !process.env.RTC_JSON_NAMESPACE && 'there is no network of its own to take away' }, () => {
    let servers;
    let pages;
    /** @type {import('./room.mjs').Room[]} of the one that moves, and of the one that stays */
    let rooms;
    let browsers;
    /** @type {import('./fixture.mjs').Agent} moves */
    let a;
    /** @type {import('./fixture.mjs').Agent} stays */
    let b;

    before(async () => {
      const port = await freePort();
      servers = await startUpstream({ media: serversAddress, cfgExtra: `listen=tls:${serversAddress}:${port}` });
      pages = await serveTestPages([], { https: true, host: serversAddress });
      rooms = [await openRoom(), await openRoom()];
      browsers = [await start[name](rooms[0]), await start.Chromium(rooms[1])];
      const url = `wss://${serversAddress}:${port}/`;
      // (Firefox hums by its fake microphone)
      a = await openAgent(browsers[0], pages, { dn: '5001', url, tone: name === 'Chromium' ? own : undefined });
      b = await openAgent(browsers[1], pages, { dn: '5002', url, tone: second });
    });
    afterEach(async () => {
      for (const { callId } of await servers.kamailio.rpcRows('rtc_json.calls')) await servers.kamailio.rpc('rtc_json.hangup', callId).catch(() => {});
      await servers.asterisk.rx('channel request hangup all');
      await until(async () => await servers.asterisk.channels() === 0, { what: 'no channel is left' });
    });
    after(async () => {
      for (const browser of browsers ?? []) await browser.close();
      await pages?.close();
      for (const room of rooms ?? []) room.close();
      await servers?.kamailio.stop();
      await servers?.asterisk.stop();
    });

    /** Changes the network in a call, and waits until both hear each other again. */
    async function goesOn(change) {
      const [ours, theirs] = await talk(a, b);
      const { id } = await a.about(ours);
      const sent = (await a.messages()).length;
      await Promise.all([a.run('watchAgain', ours), b.run('watchAgain', theirs)]);
      const left = performance.timeOrigin + performance.now();
      const told = async () => (await a.messages()).slice(sent).map(({ at, dir, type }) => `${dir} ${type} ${ms(left, at)}`).join(', ');
      await change();
      const then = await Promise.all([a.run('sound', ours), b.run('sound', theirs)]);
      for (const [i, [agent, index]] of [[a, ours], [b, theirs]].entries()) {
        await until(async () => (await agent.run('sound', index)).packets > then[i].packets + 50, { ms: limit, what: `sound reaches ${agent.dn}` })
          .catch(async (error) => { throw new Error(`${error.message}; 5001: ${await told()}`); });
      }
      await until(async () => await a.run('phoneState') === 'registered', { ms: limit, what: 'the phone is registered' });
      // (Web Audio of Firefox stands still where there is no sound card)
      note((await Promise.all([
        name === 'Firefox' ? hears([a, ours]) : hearsTones([a, ours], { has: [second], not: [own] }),
        hearsTones([b, theirs], { has: [own], not: [second] }),
      ])).join('; '));
      const now = await a.about(ours);
      assert.deepEqual([now.id, now.state], [id, 'established']);
      const [silence, silenceThere] = [now, await b.about(theirs)].map(({ watched }) => Math.round(watched.longest));
      note(`no sound for ${silence} ms here, ${silenceThere} ms at the far side (${await told()})`);
      assert.equal((await a.run('hangup', ours)).reason, 'normal_clearing');
    }

    test('the new network is there before the old one is gone', () => goesOn(() => {
      rooms[0].plugIn();
      rooms[0].pullOut();
    }));

    test('for two seconds there is no network', () => goesOn(() => rooms[0].move(2000)));

    test('there were two from the beginning, and the one in use is gone', async () => {
      rooms[0].plugIn();
      await goesOn(() => rooms[0].pullOut());
    });

    test('nothing went wrong that nobody saw', () => {
      assert.deepEqual(browsers.flatMap(({ errors }) => errors), []);
      // (what is still sent to a network that is gone, and its connection closed for it)
      assert.deepEqual(complaints(servers.kamailio, /wsconn_close_now\(\): getting TCP|ws_keepalive\(\): forcibly closing/), []);
    });
  });
}
