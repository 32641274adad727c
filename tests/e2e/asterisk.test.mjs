/** A browser behind Kamailio, Asterisk 22 as registrar and far side. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { after, before, test } from 'node:test';
import { freePort } from '../common/ports.mjs';
import { codecs, complaints, hears, hearsSilence, ms, note, openAgent, serveTestPages, startBrowser, startUpstream, until } from './fixture.mjs';
import { addNetwork } from './room.mjs';

/** @type {Awaited<ReturnType<typeof startUpstream>>} */
let servers;
let browser;
let pages;
/** @type {import('./fixture.mjs').Agent} with the client's own defaults */
let agent;

before(async () => {
  servers = await startUpstream();
  pages = await serveTestPages();
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});

const open = (options) => openAgent(browser, pages, { url: servers.kamailio.wssUrl, ...options });

/** From the click to what came of it, as text and as numbers. */
async function setupTimes(who, index) {
  const { at } = await who.about(index);
  const frame = (await who.messages()).findLast((m) => m.dir === 'out' && m.type === 'call').at;
  const times = { frame: ms(at.start, frame), accepted: ms(at.start, at.accepted), firstPacket: ms(at.start, at.firstPacket) };
  return { ...times, text: `call() to frame ${times.frame} ms, callAccepted ${times.accepted} ms, first packet ${times.firstPacket} ms` };
}

async function hangUp(who, index) {
  const end = await who.run('hangup', index);
  assert.equal(end.reason, 'normal_clearing');
  await until(async () => await servers.asterisk.channels() === 0, { what: 'the channel in Asterisk is gone' });
  return end;
}

test('an agent registers at Asterisk, calls the echo, hears itself and hangs up', async () => {
  agent = await open({ dn: '5001', codecs: /./ });
  assert.match(await servers.asterisk.contact('5001'), new RegExp(`:${servers.kamailio.sipPort}\\b`));

  const call = await agent.callAndWait('600');
  note(await hears([agent, call]));
  assert.equal(await servers.asterisk.channels(), 1);
  const end = await hangUp(agent, call);
  assert.ok(end.duration >= 2, `duration ${end.duration}`);
  const { at } = await agent.about(call);
  note(`${(await setupTimes(agent, call)).text}; hangup() to callEnded ${ms(at.ending, at.ended)} ms`);
});

test('what is heard is the own microphone: muted, the echo is silent', async () => {
  const call = await agent.callAndWait('600');
  await agent.run('mute', call, true);
  await until(async () => (await agent.run('sound', call)).packets > 25, { what: 'sound flows' });
  await hearsSilence([agent, call]);
  await hangUp(agent, call);
});

for (const { dn, why } of [
  { dn: '5001', why: 'whom Asterisk allows PCMU only' },
  { dn: '5011', why: 'whom Asterisk would rather give opus' },
]) {
  test(`the browser offers opus, the INVITE carries PCMU and telephone-event alone (${dn}, ${why})`, async () => {
    const who = dn === '5001' ? agent : await open({ dn, codecs: /./ });
    const logged = servers.asterisk.log().length;
    const call = await who.callAndWait('600');
    const offered = codecs((await who.messages()).findLast((m) => m.type === 'call').payload.sdp);
    assert.ok(offered.mapped.includes('opus/48000/2'), `the browser offers ${offered.mapped}`);
    assert.ok(offered.mapped.length > 4);

    const log = servers.asterisk.log().slice(logged);
    const invites = log.split('--->\n').filter((text) => text.startsWith('INVITE sip:600@') && text.includes('\nm=audio'));
    assert.ok(invites.length >= 1, log);
    for (const invite of invites) {
      assert.deepEqual(codecs(invite), { formats: ['PCMU/8000', 'telephone-event/8000'], mapped: ['PCMU/8000', 'telephone-event/8000'] });
      // attributes of a format that is gone would be stray
      for (const [, format] of invite.matchAll(/^a=(?:fmtp|rtcp-fb|rtpmap):(\d+) /gm)) assert.match(format, /^(0|126)$/);
      assert.doesNotMatch(invite, /opus|red\/|CN\/|G722|PCMA|transport-cc/);
    }
    const answered = codecs((await who.messages()).findLast((m) => m.type === 'callAccepted').payload.sdp);
    assert.deepEqual(answered.mapped, ['PCMU/8000', 'telephone-event/8000']);
    assert.deepEqual(answered.formats, answered.mapped);
    note(await hears([who, call]));
    await hangUp(who, call);
  });
}

test('a STUN server that never answers costs nothing', async () => {
  const silent = dgram.createSocket('udp4');
  let asked = 0;
  silent.on('message', () => { asked += 1; });
  const port = await freePort();
  await new Promise((done) => { silent.bind(port, '127.0.0.1', done); });
  try {
    const plain = await agent.callAndWait('600');
    await until(async () => (await agent.about(plain)).at.firstPacket, { what: 'the first packet' });
    note(`without a STUN server: ${(await setupTimes(agent, plain)).text}`);
    await hangUp(agent, plain);

    const who = await open({ dn: '5002', rtc: { iceServers: [{ urls: `stun:127.0.0.1:${port}` }] } });
    const times = [];
    for (let i = 0; i < 3; i += 1) {
      const call = await who.callAndWait('600');
      await until(async () => (await who.about(call)).at.firstPacket, { what: 'the first packet' });
      times.push(await setupTimes(who, call));
      const { gatheringAtAnswer } = await who.about(call);
      assert.equal(gatheringAtAnswer, 'gathering', 'the browser still waits for the STUN server when the call is answered');
      if (i === 2) note(await hears([who, call]));
      await hangUp(who, call);
    }
    assert.ok(asked > 0, 'the browser asks the STUN server');
    for (const [i, { text, frame, accepted }] of times.entries()) {
      note(`silent STUN server, call ${i + 1}: ${text}`);
      assert.ok(frame < 3000 && accepted < 3000, text);
    }
  } finally { silent.close(); }
});

test('a browser that shows nothing but mDNS names has sound', async () => {
  addNetwork();
  // A page without leave to open the microphone gets no addresses (RFC 8828, section 5.2): it sends a tone instead.
  const shy = await startBrowser({ flags: ['--use-fake-ui-for-media-stream=deny'] });
  try {
    const who = await openAgent(shy, pages, { dn: '5003', url: servers.kamailio.wssUrl, tone: 440, trickle: true });
    const call = await who.callAndWait('600');
    const figures = await hears([who, call]);
    const { candidates } = await who.about(call);
    assert.ok(candidates.length > 0, 'the browser has candidates');
    for (const candidate of candidates) assert.match(candidate, / udp \d+ [0-9a-f-]{36}\.local \d+ typ host/);
    note(`${figures}; shown: ${candidates.map((c) => c.split(' ')[4]).join(', ')}`);
    note((await setupTimes(who, call)).text);
    await hangUp(who, call);
  } finally { await shy.close(); }
});

test('nothing went wrong that nobody saw', () => {
  assert.deepEqual(browser.errors, []);
  assert.deepEqual(complaints(servers.kamailio), []);
});
