/** The arena when it is full, damaged, or somebody else's. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';

const dns = Array.from({ length: 800 }, (_, i) => String(6301 + i));

let kamailio;
let clients = [];
let tokens;
const file = () => path.join(kamailio.workdir, 'arena');

before(async () => {
  kamailio = await startKamailio({ mode: 'local', users: dns, params: { arena_size: 1, resume_grace: 300 } });
});

after(() => kamailio?.stop());

test('a full arena refuses with 503, and the calls that run go on', async (t) => {
  const [a, b] = [await connect(kamailio.wsUrl), await connect(kamailio.wsUrl)];
  await a.register(dns[0]);
  await b.register(dns[1]);
  const accepted = a.expect('call', { to: dns[1], sdp: fakeOffer() }, 'callAccepted');
  const { callId } = await b.waitFor('incomingCall');
  await b.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
  const { callId: own } = await accepted;

  let refused;
  for (let i = 2; i < dns.length && !refused; i += 1) {
    const client = await connect(kamailio.wsUrl);
    clients.push(client);
    const answer = await client.request('register', { dn: dns[i], password: `pw${dns[i]}` });
    if (answer.type !== 'registered') refused = { dn: dns[i], client, answer };
  }
  assert.ok(refused, 'one megabyte is never full');
  assert.ok(['registrationFailed', 'error'].includes(refused.answer.type), JSON.stringify(refused.answer));
  assert.equal(refused.answer.payload.code, 503);
  t.diagnostic(`${clients.length} browsers fit into 1 MB`);
  assert.ok(await kamailio.stat('arena_full') > 0);

  await a.expect('hangup', { callId: own }, 'callEnded');
  await b.waitFor('callEnded');
  // room again: two agents that leave are enough for one that comes
  for (const client of clients.slice(0, 8)) {
    await client.expect('unregister', {}, 'unregistered');
    await client.close();
  }
  clients = clients.slice(8);
  const answer = await refused.client.request('register', { dn: refused.dn, password: `pw${refused.dn}` });
  assert.equal(answer.type, 'registered', JSON.stringify(answer));
  tokens = clients.slice(0, 5).map((client) => client.received.find((m) => m.type === 'registered').payload);
});

test('killed and started again with a nearly full arena: sessions resume', async () => {
  await kamailio.kill9();
  await kamailio.start();
  for (const { dn, session } of tokens) {
    const client = await connect(kamailio.wsUrl);
    const { session: same } = await client.expect('register', { dn, resume: session }, 'registered');
    assert.equal(same, session);
  }
});

test('a second Kamailio on the same arena does not start', async () => {
  await assert.rejects(
    startKamailio({ mode: 'local', params: { arena_size: 1, arena_path: file() } }).then((second) => second.stop()),
    /arena_path: .*(use|lock)/s,
  );
});

test('a damaged arena: Kamailio starts, and says what was lost', async () => {
  await kamailio.kill9();
  const bytes = fs.readFileSync(file());
  for (let at = 0; at < bytes.length; at += 97) bytes[at] ^= 0x5a;
  fs.writeFileSync(file(), bytes);
  await kamailio.start();
  assert.match(kamailio.log().split('arena: Recovery').at(-1), /replaced: Some|damaged: [1-9]/);
  const client = await connect(kamailio.wsUrl);
  await client.register(dns[0]);
  assert.equal((await kamailio.rpcRows('rtc_json.agents')).length, 1);
});
