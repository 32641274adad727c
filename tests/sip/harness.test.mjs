/** The harness itself: if these fail, no other result here means anything. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { connect } from '../common/client.mjs';
import { ha1, checkDigest } from '../common/digest.mjs';
import { agents, parseKamcmd, realm, startKamailio } from '../common/kamailio.mjs';
import { startSipp } from '../common/sipp.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
before(async () => { kamailio = await startKamailio(); });
after(() => kamailio?.stop());

for (const kind of ['wsUrl', 'wssUrl']) {
  test(`a ping over ${kind.replace('Url', '')} gets its pong`, async () => {
    const client = await connect(kamailio[kind]);
    const pong = await client.request('ping', {}, { id: 'p-1' });
    assert.equal(pong.type, 'pong');
    assert.equal(pong.id, 'p-1');
    await client.close();
  });
}

test('the agents of the database can register', async () => {
  const client = await connect(kamailio.wsUrl);
  const payload = await client.register(agents[0]);
  assert.equal(payload.dn, agents[0]);
  await client.close();
});

test('a reset connection is seen as such by the client', async () => {
  const client = await connect(kamailio.wssUrl);
  client.rst();
  assert.equal((await client.whenClosed()).code, 1006);
});

test('RPC answers as values, and faults as errors', async () => {
  assert.match(await kamailio.rpc('core.version'), /^kamailio \d/);
  const processes = await kamailio.rpcRows('core.psx');
  assert.equal(processes.length, kamailio.pids.length);
  await assert.rejects(kamailio.rpc('no.such'), { code: 500 });
});

test('kamcmd output is parsed', () => {
  assert.deepEqual(parseKamcmd('{\n\tdn: 5001\n\tcalls: {\n\t\tid: a\n\t}\n}\n{\n\tdn: 5002\n}\n'), [
    { dn: 5001, calls: { id: 'a' } }, { dn: 5002 },
  ]);
  assert.deepEqual(parseKamcmd(''), []);
});

test('SIPp calls SIPp', async () => {
  const callee = await startSipp({ scenario: 'uas-answer' });
  const caller = await startSipp({ scenario: 'uac-reinvite', remote: `127.0.0.1:${callee.port}`, keys: { talk: 100 } });
  try {
    await Promise.all([caller.ok(), callee.ok()]);
    const directions = callee.messages().flatMap((m) => (m.dir === 'out' ? /a=(send\w+|recv\w+)/.exec(m.text)?.[1] ?? [] : []));
    assert.deepEqual(directions, ['sendrecv', 'recvonly', 'sendrecv']);
  } finally {
    await Promise.all([caller.stop(), callee.stop()]);
  }
});

test('the digest check knows right from wrong', () => {
  // RFC 2617, 3.5
  const header = 'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html", '
    + 'qop=auth, nc=00000001, cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"';
  assert.ok(checkDigest(header, { method: 'GET', password: 'Circle Of Life' }));
  assert.ok(!checkDigest(header, { method: 'GET', password: 'circle of life' }));
  assert.equal(ha1('5001', realm, 'pw5001').length, 32);
});

test('Kamailio can be killed, started again on the same ports, and leaves no process', async () => {
  await kamailio.kill9();
  assert.deepEqual(kamailio.pids, []);
  await kamailio.restart();
  const client = await connect(kamailio.wsUrl);
  assert.equal((await client.request('ping')).type, 'pong');
  await client.close();
  await kamailio.stop();
  assert.deepEqual(kamailio.pids, []);
  assert.ok(!fs.existsSync(kamailio.workdir));
});
