/** TURN credentials of a session, taken and refused by the real coturn. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { onExit, sleep } from '../common/cleanup.mjs';
import { openTurn, startCoturn } from '../common/coturn.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { Bench, Secrets } from '../sip/support.mjs';

const secrets = new Secrets();
const secret = secrets.add('the TURN secret', crypto.randomBytes(24).toString('hex'));
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-turn-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));

/** The user name and password that coturn would compute. */
const made = (until, dn, key = secret) => {
  const username = `${until}:${dn}`;
  return { username, credential: crypto.createHmac('sha1', key).update(username).digest('base64') };
};
const unix = () => Math.floor(Date.now() / 1000);
const turnOf = (registered) => registered.iceServers.find((server) => server.username);

let coturn;
let turns = [];
/** One try with these credentials, on a socket of its own. */
async function client() {
  const turn = await openTurn(coturn.port);
  turns.push(turn);
  return turn;
}
const allocate = async (server) => (await client()).allocate(server);

before(async () => { coturn = await startCoturn({ secret }); });
after(async () => { await coturn?.stop(); });
afterEach(() => { for (const turn of turns.splice(0)) turn.close(); });

describe('credentials of ten minutes', () => {
  let kamailio;
  let bench;
  const file = path.join(dir, 'secret');
  before(async () => {
    fs.writeFileSync(file, `${secret}\n`, { mode: 0o600 });
    kamailio = await startKamailio({
      params: {
        log_messages: 1, turn_secret: `file:${file}`,
        turn_uris: `stun:127.0.0.1:${coturn.port}, turn:127.0.0.1:${coturn.port}?transport=udp,turns:127.0.0.1:${coturn.port + 1}?transport=tcp`,
      },
    });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('registered names the servers, with credentials of the session', async () => {
    const before_ = unix();
    const a = await bench.agent('5001');
    const { iceServers } = a.registered;
    assert.deepEqual(iceServers.map(({ urls }) => urls), [
      [`stun:127.0.0.1:${coturn.port}`],
      [`turn:127.0.0.1:${coturn.port}?transport=udp`, `turns:127.0.0.1:${coturn.port + 1}?transport=tcp`],
    ]);
    assert.deepEqual(Object.keys(iceServers[0]), ['urls']);
    const turn = turnOf(a.registered);
    secrets.add('a TURN password', turn.credential);
    const [until, dn] = turn.username.split(':');
    assert.equal(dn, '5001');
    assert.ok(Number(until) >= before_ + 600 && Number(until) <= unix() + 600, turn.username);
    assert.deepEqual({ username: turn.username, credential: turn.credential }, made(until, '5001'));

    const b = await bench.agent('5002');
    assert.match(turnOf(b.registered).username, /:5002$/);
    assert.notEqual(turnOf(b.registered).credential, turn.credential);
    await secrets.notShown(kamailio, ['5001', '5002']);
  });

  test('coturn takes them', async () => {
    const a = await bench.agent('5001');
    const server = turnOf(a.registered);
    const turn = await client();
    const answer = await turn.allocate(server);
    assert.equal(answer.code, 200, coturn.log().slice(-1500));
    assert.ok(answer.relayed, 'an address of its own');
    assert.equal((await turn.refresh(server, 0)).code, 200);
  });

  test('nothing leads into a network that is not public', async () => {
    const a = await bench.agent('5001');
    const server = turnOf(a.registered);
    const turn = await client();
    assert.equal((await turn.allocate(server)).code, 200);
    for (const address of ['127.0.0.1', '10.0.0.1', '172.20.1.1', '192.168.1.1', '169.254.169.254', '100.64.0.1', '0.0.0.0', '198.18.0.1', '224.0.0.1', '255.255.255.255']) {
      assert.equal((await turn.permission(server, address)).code, 403, address);
    }
    assert.equal((await turn.permission(server, '9.9.9.9')).code, 200, 'a public one is allowed');
    assert.equal((await turn.refresh(server, 0)).code, 200);
  });

  test('altered or expired ones are refused', async () => {
    const a = await bench.agent('5001');
    const { username, credential } = turnOf(a.registered);
    const [until, dn] = username.split(':');
    for (const [what, wrong] of Object.entries({
      'a longer life': { username: `${Number(until) + 3600}:${dn}`, credential },
      'another number': { username: `${until}:5002`, credential },
      'another password': { username, credential: credential.replace(/^./, (c) => (c === 'A' ? 'B' : 'A')) },
      'another secret': made(until, dn, 'another-secret-of-somebody'),
      'no time at all': { username: dn, credential: crypto.createHmac('sha1', secret).update(dn).digest('base64') },
      expired: made(unix() - 1, dn),
    })) {
      assert.equal((await allocate(wrong)).code, 401, what);
    }
    assert.equal((await allocate(made(unix() + 60, dn))).code, 200, 'the same way of making them, but good');
  });

  test('a session that is resumed gets new ones', async () => {
    const a = await bench.agent('5001');
    await sleep(1100);
    const b = await bench.client();
    const again = await b.expect('register', { dn: '5001', resume: a.registered.session }, 'registered');
    assert.equal(again.session, a.registered.session);
    assert.ok(Number(turnOf(again).username.split(':')[0]) > Number(turnOf(a.registered).username.split(':')[0]));
    assert.equal((await allocate(turnOf(again))).code, 200);
  });

  test('the secret is changed in its file, without a restart', async () => {
    const other = secrets.add('the next TURN secret', crypto.randomBytes(24).toString('hex'));
    fs.writeFileSync(file, other);
    await sleep(1100);
    const a = await bench.agent('5001');
    const { username, credential } = turnOf(a.registered);
    assert.deepEqual(made(username.split(':')[0], '5001', other), { username, credential });
    // one that cannot be used changes nothing
    fs.writeFileSync(file, 'short');
    bench.expectLog(/turn_secret: .* cannot be used/);
    await sleep(1100);
    const b = await bench.agent('5001');
    const kept = turnOf(b.registered);
    // (a process that had nothing to do in between has not seen the one before)
    const good = [secret, other].map((key) => made(kept.username.split(':')[0], '5001', key).credential);
    assert.ok(good.includes(kept.credential), 'neither of the good ones');
    fs.writeFileSync(file, secret);
    await sleep(1100);
    const c = await bench.agent('5001');
    assert.equal((await allocate(turnOf(c.registered))).code, 200);
    await secrets.notShown(kamailio, ['5001']);
  });
});

describe('short-lived credentials', () => {
  let kamailio;
  let bench;
  before(async () => {
    kamailio = await startKamailio({ params: { turn_ttl: 30, turn_secret: secret, turn_uris: `turn:127.0.0.1:${coturn.port}` } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('they are renewed by themselves, well before they expire, and the old ones then are refused', async () => {
    const a = await bench.agent('5001');
    const first = turnOf(a.registered);
    assert.equal((await allocate(first)).code, 200);
    const [renewed, message] = await a.waitFor('registered', undefined, 20_000).then((payload) => [payload, a.received.at(-1)]);
    assert.match(message.id, /^evt-\d+$/);
    assert.ok(Number(first.username.split(':')[0]) - unix() >= 10, 'in good time');
    assert.deepEqual({ ...renewed, iceServers: [] }, { ...a.registered, iceServers: [] }, 'nothing else has changed');
    await sleep(16_500);
    assert.equal((await allocate(first)).code, 401, 'expired by now');
    assert.equal((await allocate(turnOf(renewed))).code, 200);
    await secrets.notShown(kamailio, ['5001']);
  });
});

test('what cannot be used is told at the start, without the secret', async () => {
  for (const [params, reason] of [
    [{ turn_secret: secret }, /turn_uris is missing/],
    [{ turn_uris: 'turn:127.0.0.1' }, /turn_secret is missing/],
    [{ turn_uris: 'http://127.0.0.1', turn_secret: secret }, /turn_uris: 'http:/],
    [{ turn_uris: 'turn:127.0.0.1', turn_secret: secrets.add('a short secret', 'sh0rt-s3cret') }, /turn_secret: not a secret/],
    [{ turn_uris: 'turn:127.0.0.1', turn_secret: 'file:/nowhere/secret' }, /turn_secret: \/nowhere\/secret cannot be used/],
    [{ turn_uris: 'turn:127.0.0.1', turn_secret: secret, turn_ttl: 5 }, /turn_ttl: 5 is out of range/],
  ]) {
    const error = await startKamailio({ params }).then(async (kamailio) => { await kamailio.stop(); return undefined; }, (e) => e);
    assert.match(error?.message ?? 'it started', reason);
    assert.deepEqual(secrets.in(error.message), []);
  }
});
