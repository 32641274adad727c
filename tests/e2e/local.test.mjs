/** Calls between browsers of one Kamailio, without Asterisk. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { codecs, complaints, hears, hearsSilence, ms, note, openAgent, serveTestPages, startBrowser, startKamailio, until } from './fixture.mjs';

let kamailio;
let browser;
let pages;
before(async () => {
  kamailio = await startKamailio({ mode: 'local', workers: 4 });
  pages = await serveTestPages();
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await kamailio?.stop();
});

// neither side of such a call knows an address of the other before it is told one
const open = (dn) => openAgent(browser, pages, { dn, url: kamailio.wssUrl });
/** Waits until Kamailio has no call of this agent any more. */
const noCalls = (agent) => until(
  async () => !(await kamailio.rpcRows('rtc_json.calls')).some(({ dn }) => String(dn) === agent.dn),
  { what: `no call of ${agent.dn} is left in Kamailio` },
);

test('page to page: both hear each other, and not themselves', async () => {
  const [caller, callee] = [await open('5001'), await open('5002')];
  const made = await caller.run('call', '5002');
  const incoming = await callee.reaches(0, 'ringing');
  assert.deepEqual([incoming.from, incoming.displayName], ['5001', 'Agent 5001']);
  await caller.reaches(made, 'ringing');
  const shown = codecs((await callee.message('in', 'incomingCall')).payload.sdp);
  assert.deepEqual(shown.mapped, ['PCMU/8000', 'telephone-event/8000']);
  await callee.run('answer', 0);
  await caller.reaches(made, 'established');

  note(await hears([caller, made], [callee, 0]));
  await caller.run('mute', made, true);
  await until(async () => (await callee.run('sound', 0)).packets > 100, { what: 'sound flows' });
  await Promise.all([hearsSilence([callee, 0]), hears([caller, made])]);

  const end = await callee.run('hangup', 0);
  assert.equal(end.reason, 'normal_clearing');
  assert.ok(end.duration >= 4, `duration ${end.duration}`);
  const far = await caller.reaches(made, 'ended');
  assert.equal(far.end.reason, 'normal_clearing');
  await noCalls(caller);
  const { at } = await callee.about(0);
  note(`call() to incomingCall ${ms(far.at.start, at.start)} ms; answer to first packet: caller ${ms(at.established, far.at.firstPacket)} ms, callee ${ms(at.established, at.firstPacket)} ms`);
});

test('two browsers of one DN ring, the first answer wins, the other is told answered_elsewhere', async () => {
  const [caller, first, second] = [await open('5003'), await open('5004'), await open('5004')];
  const made = await caller.run('call', '5004');
  await Promise.all([first.reaches(0, 'ringing'), second.reaches(0, 'ringing')]);
  await second.run('answer', 0);
  await caller.reaches(made, 'established');
  assert.equal((await first.reaches(0, 'ended')).end.reason, 'answered_elsewhere');
  note(await hears([caller, made], [second, 0]));
  await caller.run('hangup', made);
  assert.equal((await second.reaches(0, 'ended')).end.reason, 'normal_clearing');
  await noCalls(caller);
});

test('two browsers of one DN answer in the same moment: one has the call, the other has not', async () => {
  const [caller, ...both] = [await open('5005'), await open('5006'), await open('5006')];
  const made = await caller.run('call', '5006');
  await Promise.all(both.map((agent) => agent.reaches(0, 'ringing')));
  const outcomes = await Promise.allSettled(both.map((agent) => agent.run('answer', 0)));
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  await caller.reaches(made, 'established');
  const [winner, loser] = outcomes[0].status === 'fulfilled' ? both : [...both].reverse();
  const lost = await loser.reaches(0, 'ended');
  assert.equal(lost.end.reason, 'answered_elsewhere', JSON.stringify(lost.end));
  assert.equal((await winner.about(0)).state, 'established');
  await caller.run('hangup', made);
  await winner.reaches(0, 'ended');
  await noCalls(caller);
});

test('the caller gives up: it rings no longer', async () => {
  const [caller, callee] = [await open('5001'), await open('5002')];
  // (several, so that it does not depend on the order in which the two ends of a call stand in a table)
  for (const i of [0, 1, 2]) {
    const made = await caller.run('call', '5002');
    await callee.reaches(i, 'ringing');
    await caller.reaches(made, 'ringing');
    assert.equal((await caller.run('hangup', made)).reason, 'cancelled');
    assert.equal((await callee.reaches(i, 'ended', 2000)).end.reason, 'cancelled');
    await noCalls(caller);
    await noCalls(callee);
  }
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(kamailio), []);
});
