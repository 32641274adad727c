/** A contact centre calls an agent through Asterisk: who calls, and what the agent's screen is told. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { openPeer } from '../sip/peer.mjs';
import { startBench } from './fixture.mjs';

const plain = ['v=0', 'o=- 1 1 IN IP4 127.0.0.1', 's=-', 'c=IN IP4 127.0.0.1', 't=0 0', 'm=audio 40000 RTP/AVP 0 101',
  'a=rtpmap:0 PCMU/8000', 'a=rtpmap:101 telephone-event/8000', 'a=sendrecv', ''].join('\r\n');
const headers = {
  'X-Genesys-CallUUID': '01ABCDEFGH0000', 'X-Genesys-ANI': '+4930123456', 'X-Genesys-UserData': 'queue=sales;name="Jane, Roe"',
};
let bench;
let agent;
/** @type {import('../sip/peer.mjs').Peer} the contact centre, known to Asterisk by the user in From */
let centre;
before(async () => {
  bench = await startBench({ 5001: 420 }, { params: { headers_in: 'X-Genesys-*' } });
  agent = bench.agents[5001];
  centre = await openPeer(bench.asterisk.port);
  centre.onRequest((m, repeat) => { if (m.method === 'BYE' && !repeat) centre.reply(m, 200); });
});
afterEach(() => bench.hangUpAll());
after(async () => {
  await centre?.close();
  await bench?.stop();
});

/** The contact centre calls 5001. */
async function ring(more) {
  const index = await agent.run('count');
  const leg = centre.leg('5001', { local: `"Contact Centre" <sip:genesys@127.0.0.1:${centre.port}>`, remote: `<sip:5001@127.0.0.1:${bench.asterisk.port}>` });
  leg.invite({ body: plain, headers: more });
  const about = await agent.reaches(index, 'ringing');
  return { leg, index, about, payload: (await agent.got('incomingCall')).at(-1) };
}

test('header fields of the allow-list reach the screen, the identity that the network asserts is who calls', async () => {
  const { leg, index, payload } = await ring([
    'P-Asserted-Identity: "Jane Roe" <sip:+4930123456@carrier.example>', ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), 'X-Other: secret',
  ]);
  assert.deepEqual([payload.from, payload.displayName], ['+4930123456', 'Jane Roe']);
  // names compare without case
  const lower = (object) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name.toLowerCase(), value]));
  assert.deepEqual(lower(payload.headers), lower(headers));
  await agent.run('answer', index);
  assert.equal((await leg.answer()).status, 200);
  leg.ack({ status: 200, cseq: leg.inviteCseq });
  await agent.reaches(index, 'established');
  await leg.bye();
  assert.equal((await agent.ended(index)).reason, 'normal_clearing');
});

test('a call without them has none', async () => {
  const { leg, index, payload } = await ring([]);
  assert.deepEqual(Object.keys(payload.headers ?? {}), []);
  assert.deepEqual([payload.from, payload.displayName], ['genesys', 'Contact Centre']);
  await agent.run('hangup', index, 'busy');
  const refused = await leg.answer();
  assert.equal(refused.status, 486);
  leg.ack(refused);
});

test('an anonymous caller stays one', async () => {
  const { leg, index, payload } = await ring(['P-Asserted-Identity: "Jane Roe" <sip:+4930123456@carrier.example>', 'Privacy: id']);
  assert.doesNotMatch(JSON.stringify({ ...payload, sdp: '' }), /4930123456|Jane/);
  assert.match(payload.from, /anonymous/i);
  await agent.run('hangup', index, 'declined');
  leg.ack(await leg.answer());
});

test('nothing went wrong that nobody saw', () => bench.clean());
