/** Registration at Asterisk without the server ever seeing the password: the browser answers the challenges. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { connect } from '../common/client.mjs';
import { digestResponse, ha1 } from '../common/digest.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { note, startUpstream, until } from './fixture.mjs';

let servers;
let clients = [];
before(async () => { servers = await startUpstream(); });
afterEach(async () => {
  for (const client of clients) {
    if (client.closed) continue;
    await client.request('unregister').catch(() => {});
    await client.close();
  }
  clients = [];
});
after(async () => {
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});

/** What a browser answers to a challenge (RFC 7616, section 3.4.1). */
function answer(challenge, dn, password = `pw${dn}`) {
  const { realm, nonce, algorithm, qop, method, uri } = challenge;
  const fields = { realm, nonce, uri, algorithm, ...(qop ? { qop: 'auth', cnonce: 'f2/wE4q74E6zIJEt', nc: '00000001' } : {}) };
  return { ...fields, response: digestResponse({ ...fields, method, ha1: ha1(dn, realm, password, algorithm) }) };
}

async function open() {
  const client = await connect(servers.kamailio.wssUrl);
  clients.push(client);
  return client;
}

/** Registers by a challenge. */
async function register(client, dn, more = {}) {
  const challenge = await client.expect('register', { dn, displayName: `Agent ${dn}`, ...more }, 'challenge');
  return { challenge, registered: await client.expect('register', { dn, displayName: `Agent ${dn}`, digest: answer(challenge, dn), ...more }, 'registered') };
}

/** Answers what is challenged later, as it comes. */
function keepAnswering(client, dn) {
  let [going, answered] = [true, 0];
  (async () => {
    while (going && !client.closed) {
      const challenge = await client.waitFor('challenge', () => true, 500).catch(() => undefined);
      if (!challenge) continue;
      answered += 1;
      client.send('digest', { digest: answer(challenge, dn), callId: challenge.callId });
    }
  })();
  return { stop() { going = false; return answered; } };
}

test('challenge, answer, registered: Asterisk has the contact', async () => {
  const client = await open();
  const { challenge, registered } = await register(client, '5001');
  note(`challenge: ${JSON.stringify({ ...challenge, nonce: '…' })}`);
  assert.equal(challenge.method, 'REGISTER');
  assert.equal(registered.dn, '5001');
  assert.match(await servers.asterisk.contact('5001'), new RegExp(`:${servers.kamailio.sipPort}\\b`));
  await client.request('unregister');
});

test('a wrong answer is refused, and leaves no contact', async () => {
  const client = await open();
  const challenge = await client.expect('register', { dn: '5002' }, 'challenge');
  const outcome = await client.request('register', { dn: '5002', digest: answer(challenge, '5002', 'wrong') });
  assert.ok(['registrationFailed', 'challenge'].includes(outcome.type), JSON.stringify(outcome));
  if (outcome.type === 'registrationFailed') assert.ok([401, 403].includes(outcome.payload.code), JSON.stringify(outcome));
  assert.equal(await servers.asterisk.contact('5002'), undefined);
});

test('the INVITE of such an agent is challenged, too: the call comes about', async () => {
  const client = await open();
  await register(client, '5001');
  const helper = keepAnswering(client, '5001');
  const accepted = await client.expect('call', { to: '600', sdp: fakeOffer() }, 'callAccepted');
  assert.ok(accepted.sdp);
  await client.expect('hangup', { callId: accepted.callId, reason: 'user_hangup' }, 'callEnded');
  note(`${helper.stop()} challenges answered after the registration`);
  await until(async () => await servers.asterisk.channels() === 0, { what: 'the channel is gone' });
});

test('so is a text', async () => {
  const [sender, receiver] = [await open(), await open()];
  await register(sender, '5001');
  await register(receiver, '5002');
  const helper = keepAnswering(sender, '5001');
  await sender.expect('message', { to: '5002', text: 'sent without a password' }, 'ack');
  assert.deepEqual(await receiver.waitFor('message'), { from: '5001', text: 'sent without a password' });
  helper.stop();
});

test('the refresh of the registration is answered by the browser', async () => {
  const client = await open();
  const { registered } = await register(client, '5001', { expires: 30 });
  const helper = keepAnswering(client, '5001');
  const since = servers.asterisk.log().length;
  // the browser must be heard within `expires` as well
  const pings = setInterval(() => client.send('ping'), 5000);
  try {
    await until(() => servers.asterisk.log().slice(since).split('--->\n').some((text) => text.startsWith('SIP/2.0 200') && /CSeq: \d+ REGISTER/.test(text)), {
      ms: 40_000, every: 200, what: 'a refresh',
    });
    await until(async () => await servers.asterisk.contact('5001'), { what: 'the contact' });
  } finally { clearInterval(pings); }
  note(`granted ${registered.expires} s; ${helper.stop()} challenges answered`);
});

test('the password is nowhere', () => {
  for (const text of [servers.kamailio.log(), servers.asterisk.log()]) assert.doesNotMatch(text, /pw500[12]/);
});
