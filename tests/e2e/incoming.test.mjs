/** Calls that come in through Asterisk. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { codecs, complaints, hears, hearsSilence, ms, note, openAgent, serveTestPages, startBrowser, startUpstream, until } from './fixture.mjs';

/** @type {Awaited<ReturnType<typeof startUpstream>>} */
let servers;
let browser;
let pages;
/** @type {import('./fixture.mjs').Agent} who calls, 5002 */
let caller;
/** @type {import('./fixture.mjs').Agent} who is called, 5001 */
let callee;
// indices of the last call of each
let [made, got] = [-1, -1];

before(async () => {
  servers = await startUpstream();
  pages = await serveTestPages();
  browser = await startBrowser();
  const open = (dn) => openAgent(browser, pages, { dn, url: servers.kamailio.wssUrl });
  [callee, caller] = [await open('5001'), await open('5002')];
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});

const noChannels = () => until(async () => await servers.asterisk.channels() === 0, { what: 'the channels in Asterisk are gone' });

/** The next call to the callee, once it rings. */
async function rings() {
  got += 1;
  return callee.reaches(got, 'ringing');
}

/** 5002 calls 5001, which rings. */
async function dial() {
  made = await caller.run('call', '5001');
  return rings();
}

/** What came of a call, when it is over. */
const ended = async (agent, index) => (await agent.reaches(index, 'ended')).end;

test('5002 calls 5001: both hear each other, the far side hangs up', async () => {
  const incoming = await dial();
  assert.deepEqual([incoming.direction, incoming.from, incoming.displayName], ['in', '5002', 'Agent 5002']);
  await caller.reaches(made, 'ringing');
  await callee.run('answer', got);
  await callee.reaches(got, 'established');
  await caller.reaches(made, 'established');
  const { at: { established } } = await callee.about(got);

  note(await hears([caller, made], [callee, got]));
  const last = await caller.run('hangup', made);
  const end = await ended(callee, got);
  const { at } = await callee.about(got);
  const talked = (at.ended - established) / 1000;
  assert.equal(last.reason, 'normal_clearing');
  assert.equal(end.reason, 'normal_clearing');
  assert.ok(talked > 2);
  assert.ok(end.duration >= Math.floor(talked - 0.2) && end.duration <= talked + 0.2, `duration ${end.duration}, talked ${talked}`);
  await noChannels();

  const start = (await caller.about(made)).at.start;
  note(`call() of 5002 to incomingCall at 5001 ${ms(start, at.start)} ms; answer to first packet ${ms(established, at.firstPacket)} ms; hangup() to callEnded at 5001 ${ms((await caller.about(made)).at.ending, at.ended)} ms`);
});

test('each hears the other, not itself: one side is muted, then only that side is heard no more', async () => {
  await dial();
  await callee.run('answer', got);
  await caller.reaches(made, 'established');
  await caller.run('mute', made, true);
  await until(async () => (await callee.run('sound', got)).packets > 25, { what: 'sound flows' });
  await Promise.all([hearsSilence([callee, got]), hears([caller, made])]);
  await callee.run('hangup', got);
  assert.equal((await ended(caller, made)).reason, 'normal_clearing');
  await noChannels();
});

for (const { how, reason, code } of [
  { how: 'busy', reason: 'user_busy', code: 486 },
  { how: 'declined', reason: 'call_rejected' },
]) {
  test(`5001 is ${how}: 5002 is told ${reason}`, async () => {
    await dial();
    await callee.run('hangup', got, how);
    assert.equal((await ended(callee, got)).reason, reason);
    const told = await ended(caller, made);
    assert.equal(told.reason, reason);
    if (code) assert.equal(told.code, code);
    await noChannels();
  });
}

test('the caller gives up: 5001 rings no more', async () => {
  await dial();
  await caller.reaches(made, 'ringing');
  assert.equal((await caller.run('hangup', made)).reason, 'cancelled');
  assert.equal((await ended(callee, got)).reason, 'cancelled');
  await noChannels();
});

test('Asterisk itself calls 5001, which hears its own echo, and ends the call', async () => {
  const originated = servers.asterisk.rx('channel originate PJSIP/5001 extension 600@from-webrtc');
  await rings();
  await callee.run('answer', got);
  await originated;
  note(await hears([callee, got]));
  await servers.asterisk.rx('channel request hangup all');
  const end = await ended(callee, got);
  assert.equal(end.reason, 'normal_clearing');
  assert.ok(end.duration >= 2);
  await noChannels();
});

test('Asterisk offers opus before PCMU: the browser is shown PCMU and telephone-event alone', async () => {
  const agent = await openAgent(browser, pages, { dn: '5011', url: servers.kamailio.wssUrl });
  const logged = servers.asterisk.log().length;
  const originated = servers.asterisk.rx('channel originate PJSIP/5011 extension 600@from-webrtc');
  await agent.reaches(0, 'ringing');
  await agent.run('answer', 0);
  await originated;
  const invite = servers.asterisk.log().slice(logged).split('--->\n').find((text) => text.startsWith('INVITE sip:5011@'));
  assert.ok(codecs(invite).mapped.includes('opus/48000/2'), invite);
  const shown = codecs((await agent.message('in', 'incomingCall')).payload.sdp);
  assert.deepEqual(shown, { formats: ['PCMU/8000', 'telephone-event/8000'], mapped: ['PCMU/8000', 'telephone-event/8000'] });
  note(await hears([agent, 0]));
  await agent.run('hangup', 0);
  await noChannels();
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(servers.kamailio), []);
});
