/** Registering with a token in place of a password, and that nothing of a token is ever shown. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { openPeer } from './peer.mjs';
import { Bench, editedConfig, Secrets, tm } from './support.mjs';

const issuer = 'https://id.example';
const audience = 'rtc_json';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;
const secrets = new Secrets();

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-keys-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));

const script = fileURLToPath(new URL('../../scripts/token.mjs', import.meta.url));

/** A secret, and pairs of keys as OpenSSL makes them. */
const hs = newSecret('hs');
const secretKey = (jwk) => crypto.createSecretKey(Buffer.from(jwk.k, 'base64url'));
const pairs = {
  rs: crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  es: crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ed: crypto.generateKeyPairSync('ed25519'),
};
const publicJwk = (kid) => ({ ...pairs[kid].publicKey.export({ format: 'jwk' }), kid });
const allKeys = () => ({ keys: [hs, publicJwk('rs'), publicJwk('es'), publicJwk('ed')] });

const write = (file, keys) => fs.writeFileSync(file, typeof keys === 'string' ? keys : JSON.stringify(keys));

/** A token that is right but for what is said here; noted as a secret, and each of its parts. */
function token(dn, { ttl = 60, more = {}, key = secretKey(hs), header = {} } = {}) {
  const made = sign({ ...claims(dn, { ttl }), iss: issuer, aud: audience, ...more }, key, { kid: 'hs', ...header });
  secrets.add('a token', made);
  const [, payload, signature] = made.split('.');
  secrets.add('claims of a token', payload);
  if (signature) secrets.add('the signature of a token', signature);
  return made;
}

const register = (client, payload) => client.request('register', payload);

const rowOf = async (dn) => (await kamailio.rpcRows('rtc_json.agents')).find((row) => String(row.dn) === dn);

/** Refused with that code, and no agent came of it. */
async function refused(client, payload, code, reason) {
  const [records, failed] = [await kamailio.stat('arena_records'), await kamailio.stat('register_failed')];
  const got = await register(client, payload);
  assert.deepEqual([got.type, got.payload.code], ['registrationFailed', code], JSON.stringify(got));
  if (reason) assert.match(got.payload.reason, reason);
  assert.deepEqual(secrets.in(got.payload.reason), []);
  // (those of connections that were closed before may go meanwhile)
  assert.ok(await kamailio.stat('arena_records') <= records, 'a record came of it');
  assert.equal(await kamailio.stat('register_failed'), failed + 1);
}

describe('local', () => {
  const file = path.join(dir, 'keys.json');
  before(async () => {
    write(file, allKeys());
    const cfg = editedConfig((text) => text.replace('event_route[rtc-json:message] {', `event_route[rtc-json:message] {
	if ($rtcj(type) == "register") {
		xlog("L_NOTICE", "SECRET:<$rtcj(payload.token)><$rtcj(token)><$rtcj(payload)>\\n");
		if ($rtcj(payload.displayName) == "barred") { rtc_json_reject("403", "barred"); exit; }
	}`));
    kamailio = await startKamailio({
      cfg, debug: 2, params: { jwt_keys: file, jwt_issuer: issuer, jwt_audience: audience, jwt_leeway: 0, log_messages: 1 },
    });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('a token is enough: its subject is the number', async () => {
    const a = await bench.client();
    const p = await a.expect('register', { token: token('5001'), displayName: 'Ann' }, 'registered');
    assert.equal(p.dn, '5001');
    const row = await rowOf('5001');
    assert.deepEqual([row.displayName, row.sessions, row.attached], ['Ann', 1, 1]);
    await a.expect('unregister', {}, 'unregistered');
    // the number may be said, too; one that the table of passwords does not know is as good
    assert.equal((await a.expect('register', { dn: '4711', token: token('4711') }, 'registered')).dn, '4711');
    await a.expect('unregister', {}, 'unregistered');
  });

  test('every kind of key', async () => {
    for (const kid of ['rs', 'es', 'ed']) {
      for (const header of [{ kid }, { kid: undefined }]) {
        const a = await bench.client();
        await a.expect('register', { token: token('5001', { key: pairs[kid].privateKey, header }) }, 'registered');
        await a.expect('unregister', {}, 'unregistered');
      }
    }
  });

  test('agents with tokens and with passwords call each other', async () => {
    const a = await bench.client();
    await a.expect('register', { token: token('5001') }, 'registered');
    const b = await bench.agent('5002');
    assert.equal((await rowOf('5001')).attached, 1);
    assert.equal((await a.request('ping')).type, 'pong');
    assert.equal((await b.request('ping')).type, 'pong');
  });

  test('what is not right is refused, and no agent comes of it', async () => {
    const a = await bench.client();
    const other = secretKey(newSecret('x'));
    const now = Math.floor(Date.now() / 1000);
    for (const [wrong, reason] of [
      [{ key: other }, /signature/],
      [{ ttl: -1 }, /expired/],
      [{ more: { nbf: now + 60 } }, /not valid yet/],
      [{ more: { exp: String(now + 60) } }, /exp must be a number/],
      [{ more: { nbf: String(now - 60) } }, /nbf must be a number/],
      [{ more: { exp: undefined } }, /exp must be a number/],
      [{ more: { nbf: undefined } }, /nbf must be a number/],
      [{ more: { sub: undefined } }, /sub must be/],
      [{ more: { iss: 'https://evil.example' } }, /issuer/],
      [{ more: { iss: undefined } }, /iss must be/],
      [{ more: { aud: ['other'] } }, /audience/],
      [{ more: { aud: undefined } }, /aud must be/],
      [{ header: { alg: 'none' } }, /known form/],
      [{ header: { alg: 'NONE' } }, /known form/],
      [{ header: { kid: 'unknown' } }, /no key/],
      [{ header: { kid: 'rs' } }, /algorithm/],
      [{ header: { alg: 'RS256', kid: 'rs' } }, /signature/],
      [{ header: { crit: ['exp'] } }, /extension/],
      [{ key: crypto.createSecretKey(pairs.rs.publicKey.export({ type: 'spki', format: 'pem' })), header: { kid: 'rs' } }, /algorithm/],
      [{ key: crypto.createSecretKey(pairs.rs.publicKey.export({ type: 'spki', format: 'pem' })), header: { kid: undefined } }, /signature/],
    ]) {
      await refused(a, { token: token('5001', wrong) }, 401, reason);
      await refused(a, { dn: '5001', token: token('5001', wrong) }, 401, reason);
    }
    const good = token('5001');
    const [head, body, signature] = good.split('.');
    for (const bad of [good.slice(0, -1), good.slice(0, good.length / 2), `${head}.${body}.`, `${head}.${body}`, `.${body}.${signature}`, 'x', '..']) {
      await refused(a, { token: bad }, 401);
    }
    // the connection is good for another try
    await a.expect('register', { token: good }, 'registered');
  });

  test('a subject that is no number', async () => {
    const a = await bench.client();
    for (const sub of ['an agent', '5001\r\nEvil: 1', '<sip:5001@x>', 'x'.repeat(65), 'ä', '5001@rtc.local']) {
      secrets.add('a subject', sub);
      await refused(a, { token: token(sub) }, 401, /number/);
      await refused(a, { dn: '5001', token: token(sub) }, 401, /number/);
    }
  });

  test('a token for another number', async () => {
    const a = await bench.client();
    const got = await register(a, { dn: '5002', token: token('5001') });
    assert.deepEqual([got.type, got.payload.code], ['registrationFailed', 403]);
    // a list of numbers is for other things than to register
    const listed = await register(a, { dn: '5002', token: token('5001', { more: { dn: ['5002'] } }) });
    assert.deepEqual([listed.type, listed.payload.code], ['registrationFailed', 403]);
    assert.deepEqual([await rowOf('5001'), await rowOf('5002')], [undefined, undefined]);
    // nor does a password make a bad token good
    await refused(a, { dn: '5002', password: 'pw5002', token: token('5002', { ttl: -1 }) }, 401, /expired/);
    assert.equal((await register(a, { dn: '5002', password: 'pw5002', token: token('5001') })).payload.code, 403);
  });

  test('a token that is no string, or too long, is refused by its form', async () => {
    const a = await bench.client();
    const long = token('5001', { more: { pad: 'x'.repeat(6200) } });
    for (const bad of [1, {}, [], true, '', 'a b', 'ä.ö.ü', long]) {
      const got = await register(a, { dn: '5001', token: bad });
      assert.deepEqual([got.type, got.payload.code], ['error', 400], String(bad).slice(0, 20));
    }
    const wide = token('5001', { more: { pad: 'x'.repeat(5000) } });
    assert.ok(wide.length > 6500 && wide.length <= 8192);
    await a.expect('register', { token: wide }, 'registered');
  });

  test('a connection is registered for one number', async () => {
    const a = await bench.client();
    await a.expect('register', { token: token('5001') }, 'registered');
    const other = await register(a, { token: token('5002') });
    assert.deepEqual([other.type, other.payload.code], ['error', 409]);
    // a bad one changes nothing
    await refused(a, { token: token('5001', { ttl: -1 }) }, 401);
    assert.equal((await rowOf('5001')).attached, 1);
    assert.equal((await a.expect('register', { token: token('5001') }, 'registered')).dn, '5001');
    assert.equal((await rowOf('5001')).sessions, 1);
  });

  test('the script may refuse it first', async () => {
    const a = await bench.client();
    await refused(a, { token: token('5001'), displayName: 'barred' }, 403, /^barred$/);
    await refused(a, { token: token('5001', { ttl: -1 }), displayName: 'barred' }, 403, /^barred$/);
  });

  test('a session outlives its token', async () => {
    const a = await bench.client();
    const short = token('5001', { ttl: 2 });
    const { session } = await a.expect('register', { token: short }, 'registered');
    secrets.add('a session token', session);
    await sleep(2100);
    assert.equal((await a.request('ping')).type, 'pong');
    a.terminate();
    await a.whenClosed();
    const b = await bench.client();
    const back = await b.expect('register', { dn: '5001', token: short, resume: session }, 'registered');
    assert.equal(back.session, session);
    const c = await bench.client();
    await refused(c, { dn: '5001', token: short }, 401, /expired/);
    // nothing to resume: the token decides
    const lost = secrets.add('a false token', 'f4lse-t0ken-f4lse-t0ken');
    const got = await register(c, { dn: '5001', token: short, resume: lost });
    assert.deepEqual([got.type, got.payload.code, got.payload.reason], ['registrationFailed', 401, 'the token has expired']);
    const nobody = await register(c, { dn: '5003', token: short, resume: lost });
    assert.deepEqual([nobody.type, nobody.payload.code, nobody.payload.reason], ['registrationFailed', 401, 'the token has expired']);
    assert.equal(await rowOf('5003'), undefined);
    await c.expect('register', { dn: '5003', token: token('5003'), resume: lost }, 'registered');
  });

  test('the key file changes while it runs', async () => {
    const next = newSecret('next');
    const renewed = token('5001', { key: secretKey(next), header: { kid: 'next' } });
    const a = await bench.client();
    await refused(a, { token: renewed }, 401, /no key/);
    write(file, { keys: [hs, next] });
    await sleep(1100);
    await a.expect('register', { token: renewed }, 'registered');
    await a.expect('unregister', {}, 'unregistered');
    await refused(a, { token: token('5001', { key: pairs.rs.privateKey, header: { kid: 'rs' } }) }, 401, /no key/);
    assert.match(kamailio.log(), /jwt_keys: 2 keys in /);
    // what cannot be used changes nothing, and is told once by each process that has tokens to check
    bench.expectLog(/jwt_keys: .* cannot be used: .*; what it held before stays/);
    // (Kamailio may give an idle connection to another process)
    const tellers = (reason) => kamailio.warnings().filter((line) => line.includes('jwt_keys') && reason.test(line)).map((line) => line.trim().split('(')[0]);
    for (const [keys, reason] of [
      [`{"keys":[${JSON.stringify(next)}`, /not a jwks/],
      [{ keys: [{ ...next, k: 'AAAA' }] }, /key 1: k is shorter than 32 bytes/],
      [pairs.es.privateKey.export({ type: 'pkcs8', format: 'pem' }), /a private key/],
      [undefined, /No such file/],
    ]) {
      if (keys === undefined) fs.rmSync(file);
      else write(file, keys);
      for (let i = 0; i < 3; i += 1) {
        await sleep(1050);
        await a.expect('register', { token: renewed }, 'registered');
        await a.expect('unregister', {}, 'unregistered');
      }
      const told = tellers(reason);
      assert.ok(told.length > 0 && told.length === new Set(told).size, `${reason}: processes ${told}`);
    }
    // renamed into place, as it should be done; another process finds it by itself
    write(`${file}.new`, allKeys());
    fs.renameSync(`${file}.new`, file);
    await sleep(1100);
    for (let i = 0; i < 4; i += 1) {
      const b = await bench.client();
      await refused(b, { token: renewed }, 401, /no key/);
      await b.expect('register', { token: token('5001') }, 'registered');
      await b.expect('unregister', {}, 'unregistered');
    }
  });

  test('a single key in PEM', async () => {
    write(file, pairs.es.publicKey.export({ type: 'spki', format: 'pem' }));
    await sleep(1100);
    const a = await bench.client();
    await a.expect('register', { token: token('5001', { key: pairs.es.privateKey }) }, 'registered');
    await a.expect('unregister', {}, 'unregistered');
    await refused(a, { token: token('5001') }, 401, /algorithm/);
    write(file, allKeys());
    await sleep(1100);
    await a.expect('register', { token: token('5001') }, 'registered');
  });

  test('many at a time', async () => {
    const names = Object.keys(pairs);
    const clients = await Promise.all(Array.from({ length: 24 }, () => bench.client()));
    const got = await Promise.all(clients.map((client, i) => {
      const kid = names[i % names.length];
      const good = i % 2 === 0;
      return register(client, { token: token(`60${i}`, { ttl: good ? 60 : -1, key: pairs[kid].privateKey, header: { kid } }) });
    }));
    assert.deepEqual(got.map((m) => m.type), got.map((_, i) => (i % 2 === 0 ? 'registered' : 'registrationFailed')));
  });

  test('nothing of a token is shown, nor of a key', async () => {
    const a = await bench.client();
    await a.expect('register', { token: token('5001') }, 'registered');
    secrets.add('the secret', hs.k);
    assert.match(kamailio.log(), /SECRET:<<null>><<null>><<null>>/);
    await secrets.notShown(kamailio, ['5001', '5002', '4711']);
  });
});

describe('at a registrar', () => {
  const file = path.join(dir, 'upstream.json');
  let port;
  before(async () => {
    port = await freePort();
    write(file, allKeys());
    kamailio = await startKamailio({ mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }), params: { jwt_keys: file } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('a good token becomes a REGISTER without credentials, a bad one none', async () => {
    const registrar = await openPeer(kamailio.sipPort, { port });
    const seen = [];
    registrar.onRequest((m, repeat) => {
      if (!repeat) seen.push(m);
      registrar.reply(m, 200, { headers: [`Contact: <${m.contact}>;expires=${m.header('Expires')}`] });
    });
    const a = await bench.client();
    await refused(a, { token: token('5001', { ttl: -600 }) }, 401, /expired/);
    assert.deepEqual(seen, []);
    const p = await a.expect('register', { token: token('5001') }, 'registered');
    assert.equal(p.dn, '5001');
    assert.deepEqual(seen.map((m) => [m.method, m.header('Authorization')]), [['REGISTER', undefined]]);
    assert.ok(!seen.some((m) => secrets.in(String(m.raw ?? '')).length));
    await a.expect('unregister', {}, 'unregistered');
    await until(() => seen.length === 2, { what: 'the binding is removed' });
    registrar.close();
  });
});

describe('without jwt_keys', () => {
  before(async () => {
    kamailio = await startKamailio();
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('tokens are not taken', async () => {
    const a = await bench.client();
    for (const payload of [{ token: token('5001') }, { dn: '5001', token: token('5001') }, { dn: '5001', password: 'pw5001', token: 'x' }]) {
      await refused(a, payload, 501, /^tokens are not configured$/);
    }
    await a.register('5001');
  });
});

describe('the command that makes tokens', () => {
  const file = path.join(dir, 'made.json');
  const run = (...args) => execFileSync(process.execPath, [script, ...args], { encoding: 'utf8', stdio: 'pipe' }).trim();
  before(async () => {
    run('--new-keys', file);
    kamailio = await startKamailio({ params: { jwt_keys: file, jwt_audience: audience } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('its key file and its tokens are taken', async () => {
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    assert.throws(() => run('--new-keys', file), /EEXIST/, 'it overwrites nothing');
    const a = await bench.client();
    await a.expect('register', { token: run('--keys', file, '--audience', audience, '5001') }, 'registered');
    await a.expect('unregister', {}, 'unregistered');
    await refused(a, { token: run('--keys', file, '5001') }, 401, /aud/);
    // the default leeway is 30 s
    await a.expect('register', { token: run('--keys', file, '--audience', audience, '--ttl=-10', '5001') }, 'registered');
    await a.expect('unregister', {}, 'unregistered');
    await refused(a, { token: run('--keys', file, '--audience', audience, '--ttl=-60', '5001') }, 401, /expired/);
  });

  test('so are those of a private key', async () => {
    const pem = path.join(dir, 'private.pem');
    for (const kid of Object.keys(pairs)) {
      write(pem, pairs[kid].privateKey.export({ type: 'pkcs8', format: 'pem' }));
      write(file, pairs[kid].publicKey.export({ type: 'spki', format: 'pem' }));
      await sleep(1100);
      const a = await bench.client();
      await a.expect('register', { token: run('--private-key', pem, '--audience', audience, '5001') }, 'registered');
      await a.expect('unregister', {}, 'unregistered');
    }
  });
});

describe('what cannot be used ends the start, and it is said what to write', () => {
  const file = (name, keys) => { write(path.join(dir, name), keys); return path.join(dir, name); };
  const pem = (key, type) => key.export({ type, format: 'pem' });
  const weak = crypto.generateKeyPairSync('rsa', { modulusLength: 1024 });
  for (const [what, params, ...words] of [
    ['no file', { jwt_keys: path.join(dir, 'none.json') }, 'No such file', 'public key in PEM'],
    ['a folder', { jwt_keys: dir }, 'not a file'],
    ['not from the root', { jwt_keys: 'keys.json' }, '/etc/kamailio/jwt-keys.json'],
    ['no keys', { jwt_keys: file('text', 'hello') }, 'neither a jwks'],
    ['an empty set', { jwt_keys: file('empty', { keys: [] }) }, 'no key for signatures'],
    ['a short secret', { jwt_keys: file('short', { keys: [hs, { kty: 'oct', k: 'c2VjcmV0' }] }) }, 'key 2', '32 bytes'],
    ['a weak key', { jwt_keys: file('weak', pem(weak.publicKey, 'spki')) }, '1024 bits', '2048'],
    ['a private key', { jwt_keys: file('private', pem(pairs.rs.privateKey, 'pkcs8')) }, 'private key', 'public half'],
    ['a private key in a set', { jwt_keys: file('privates', { keys: [pairs.ed.privateKey.export({ format: 'jwk' })] }) }, 'key 1', 'private key'],
    ['too much leeway', { jwt_keys: file('good', allKeys()), jwt_leeway: 301 }, 'jwt_leeway', 'from 0 to 300 (seconds)'],
  ]) {
    test(what, async () => {
      await assert.rejects(startKamailio({ params }), (error) => {
        const line = error.message.split('\n').find((l) => /ERROR: rtc_json/.test(l) && l.includes('jwt_'));
        assert.ok(line, error.message);
        for (const word of words) assert.ok(line.includes(word), `${word}: ${line}`);
        assert.ok(!line.includes(hs.k) && !line.includes('c2VjcmV0'), line);
        return true;
      });
    });
  }
});
