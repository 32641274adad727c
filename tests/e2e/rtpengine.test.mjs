/** WITH_RTPENGINE of the example: a far side that knows plain RTP only, and a browser that knows none of it. Both hear. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { after, before, test } from 'node:test';
import { freePort, freePorts } from '../common/ports.mjs';
import { startRtpengine } from '../common/rtpengine.mjs';
import { openPeer } from '../sip/peer.mjs';
import { complaints, hears, note, openAgent, serveTestPages, startBrowser, startKamailio, until } from './fixture.mjs';

/** @type {(() => unknown)[]} */
const ends = [];
let kamailio;
let peer;
let relay;
let agent;
/** RTP of the far side: comes back as it came. */
let echo;
let heard = 0;

const plain = () => ['v=0', 'o=far 1 1 IN IP4 127.0.0.1', 's=-', 'c=IN IP4 127.0.0.1', 't=0 0', `m=audio ${echo.address().port} RTP/AVP 0 101`,
  'a=rtpmap:0 PCMU/8000', 'a=rtpmap:101 telephone-event/8000', 'a=sendrecv', ''].join('\r\n');
const isPlain = (sdp) => {
  assert.match(sdp, /^m=audio \d+ RTP\/AVP /m);
  assert.doesNotMatch(sdp, /fingerprint|ice-ufrag|candidate/);
};

before(async () => {
  const rtpengine = await startRtpengine();
  ends.push(() => rtpengine.stop());
  echo = dgram.createSocket('udp4');
  echo.on('message', (data, from) => { heard += 1; echo.send(data, from.port, from.address); });
  await new Promise((done) => { echo.bind(0, '127.0.0.1', done); });
  ends.push(() => echo.close());
  relay = await freePort();
  const far = await freePorts(1);
  kamailio = await startKamailio({
    mode: 'upstream', nextHop: `sip:127.0.0.1:${far}`, workers: 4,
    defines: { WITH_RTPENGINE: true, RELAY_PORT: relay, RELAY_ADDRESS: `"127.0.0.1:${relay}"`, RELAY_URI: `"sip:127.0.0.1:${relay}"`, RTPENGINE: `"udp:127.0.0.1:${rtpengine.port}"` },
  });
  ends.push(() => kamailio.stop());
  peer = await openPeer(relay, { port: far });
  ends.push(() => peer.close());
  peer.onRequest((m) => {
    if (m.method === 'REGISTER') peer.reply(m, 200, { headers: [`Contact: <${m.contact}>;expires=300`] });
    if (m.method === 'BYE') peer.reply(m, 200);
  });
  const pages = await serveTestPages();
  ends.push(() => pages.close());
  const browser = await startBrowser();
  ends.push(() => browser.close());
  agent = await openAgent(browser, pages, { url: kamailio.wssUrl, dn: '5001' });
});
after(async () => { for (const end of ends.reverse()) await end(); });

test('the far side knows the agent by the relay', async () => {
  const register = peer.log.find(({ message }) => message.method === 'REGISTER').message;
  assert.match(register.contact, new RegExp(`@127\\.0\\.0\\.1:${relay}\\b`));
  assert.equal((await kamailio.rpcRows('rtc_json.agents'))[0].upstream, 1);
});

test('a call from the browser: the offer arrives without DTLS and ICE, and both hear', async () => {
  heard = 0;
  const index = await agent.run('call', '1003');
  const invite = await peer.request('INVITE');
  isPlain(invite.body);
  peer.reply(invite, 200, { body: plain() });
  await peer.request('ACK');
  await agent.reaches(index, 'established');
  note(await hears([agent, index]));
  assert.ok(heard > 50, `${heard} packets came to the far side`);
  assert.equal((await agent.run('hangup', index)).reason, 'normal_clearing');
});

test('a call to the browser: the answer arrives without DTLS and ICE, and both hear', async () => {
  heard = 0;
  const index = await agent.run('count');
  const leg = peer.leg('5001');
  leg.invite({ body: plain() });
  await agent.reaches(index, 'ringing');
  await agent.run('answer', index);
  const ok = await leg.answer();
  assert.equal(ok.status, 200);
  isPlain(ok.body);
  leg.ack(ok);
  await agent.reaches(index, 'established');
  note(await hears([agent, index]));
  assert.ok(heard > 50, `${heard} packets came to the far side`);
  assert.equal((await leg.bye()).status, 200);
  await agent.ended(index);
});

test('nothing is left, nothing was complained about', async () => {
  await until(async () => (await kamailio.rpcRows('rtc_json.calls')).length === 0, { what: 'no call is left' });
  assert.deepEqual(complaints(kamailio), []);
});
