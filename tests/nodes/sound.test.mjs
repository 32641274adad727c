/** A real browser in a call through Asterisk whose node is killed, or gone with its network: the sound goes on, and the call is held and ended at another node. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startAsterisk } from '../common/asterisk.mjs';
import { startBrowser } from '../common/browser.mjs';
import { until } from '../common/cleanup.mjs';
import { freePort } from '../common/ports.mjs';
import { hears, hearsTones, note, openAgent, serveTestPages } from '../e2e/fixture.mjs';
import { agentAt, allKnown, network, others, startNodes, uncut } from './support.mjs';

const tones = { 5001: 420, 5002: 1000 };

let nodes = [];
let asterisk;
let browser;
let pages;

before(async () => {
  const port = await freePort();
  const machine = await network.machine();
  nodes = await startNodes(3, `sip:${machine?.address ?? network.address}:${port}`, {
    mode: 'upstream', users: [],
    // the pages come from the tests' own address
    defines: { ALLOWED_ORIGINS: '"^http://"' },
  });
  asterisk = await startAsterisk({ machine, kamailio: nodes[2].node, port });
  pages = await serveTestPages();
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await pages?.close();
  for (const node of nodes) await node.stop();
  await asterisk?.stop();
});

for (const [how, what] of [['kill9', 'the node of a browser is killed'], ['lose', 'the machine of a browser\'s node is gone']]) {
  test(`${what} in a call: both go on hearing each other, and the call is held and ended at another node`, { skip: how === 'lose' && uncut }, async () => {
    const [a, b, c] = nodes;
    const first = await openAgent(browser, pages, { dn: '5001', tone: tones[5001], urls: [a.wssUrl, b.wssUrl], url: a.wssUrl });
    const second = await openAgent(browser, pages, { dn: '5002', tone: tones[5002], url: c.wssUrl });
    const theirs = await second.run('count');
    const ours = await first.run('call', '5002');
    await second.reaches(theirs, 'ringing', 15_000);
    await second.run('answer', theirs);
    await first.reaches(ours, 'established', 15_000);
    await second.reaches(theirs, 'established', 15_000);
    for (const [agent, index] of [[first, ours], [second, theirs]]) {
      await until(async () => (await agent.run('sound', index)).packets > 25, { ms: 15_000, what: `sound reaches ${agent.dn}` });
    }
    await until(async () => (await others(b)).some((row) => row.node === a.node && row.knownCalls === 1), { ms: 15_000, what: 'the call is known' });
    await Promise.all([first.run('watchAgain', ours), second.run('watchAgain', theirs)]);
    const killed = performance.now();
    await a[how]();
    // nobody tells the browser that its machine is gone: it says something every twenty seconds, and waits as long for an answer
    await until(() => agentAt(b, '5001'), { ms: how === 'lose' ? 90_000 : 30_000, what: 'the browser is at another node' });
    note(`at another node ${Math.round(performance.now() - killed)} ms after the kill`);
    assert.equal(await asterisk.channels(), 2);
    // from end to end, after the takeover
    note(await hears([first, ours], [second, theirs]));
    note((await Promise.all([
      hearsTones([first, ours], { has: [tones[5002]] }), hearsTones([second, theirs], { has: [tones[5001]] }),
    ])).join('; '));
    for (const [agent, index] of [[first, ours], [second, theirs]]) {
      const { watched, state } = await agent.about(index);
      assert.equal(state, 'established');
      note(`${agent.dn}: longest time without sound ${Math.round(watched.longest)} ms`);
      assert.ok(watched.longest < 3000, `${agent.dn} was silent for ${watched.longest} ms`);
    }
    // Asterisk sends calls to where he is now
    await until(async () => (await asterisk.contact('5001'))?.includes(b.node), { ms: 15_000, what: 'the registrar knows the new node' });
    await first.run('hold', ours, true);
    await second.gets('callUpdated', ({ remoteHold }) => remoteHold, 10_000).catch(() => {});
    await first.run('hold', ours, false);
    note(await hears([first, ours], [second, theirs]));
    assert.equal((await first.run('hangup', ours)).reason, 'normal_clearing');
    await second.ended(theirs, 15_000);
    await until(async () => await asterisk.channels() === 0, { ms: 15_000, what: 'no channel is left' });
    for (const one of [first, second]) await one.page.close();
    await a[how === 'lose' ? 'back' : 'start']();
    await allKnown(nodes);
  });
}
