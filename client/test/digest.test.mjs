import assert from 'node:assert/strict';
import { createHash, webcrypto } from 'node:crypto';
import { test } from 'node:test';
import { digest, md5 } from '../dist/digest.js';

// (not among the globals of Node 18)
globalThis.crypto ??= webcrypto;
const hash = (algorithm) => (text) => createHash(algorithm).update(text).digest('hex');

test('MD5 at every length around its blocks, and of more than ASCII', () => {
  for (let length = 0; length < 200; length++) {
    const text = 'x'.repeat(length);
    assert.equal(md5(text), hash('md5')(text), `${length}`);
  }
  for (const text of ['The quick brown fox', 'Grüße, Алиса, 愛'.repeat(20), '\u0000'.repeat(64)]) assert.equal(md5(text), hash('md5')(text));
});

test('the example of RFC 7616, section 3.9.1, by its rules', async () => {
  const challenge = { realm: 'http-auth@example.org', nonce: '7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v', qop: 'auth', method: 'GET', uri: '/dir/index.html' };
  for (const [algorithm, name] of [['MD5', 'md5'], ['SHA-256', 'sha256']]) {
    const h = hash(name);
    const answer = await digest('Mufasa', 'Circle of Life')({ ...challenge, algorithm });
    const { cnonce, nc, response, ...rest } = answer;
    assert.deepEqual(rest, { realm: challenge.realm, nonce: challenge.nonce, uri: challenge.uri, algorithm, qop: 'auth' });
    assert.match(cnonce, /^[0-9a-f]{32}$/);
    assert.equal(nc, '00000001');
    const ha1 = h(`Mufasa:${challenge.realm}:Circle of Life`);
    assert.equal(response, h(`${ha1}:${challenge.nonce}:${nc}:${cnonce}:auth:${h('GET:/dir/index.html')}`));
  }
});

test('the values of RFC 2617, section 3.5, with its client nonce', async (t) => {
  const cnonce = Buffer.from('0a4f113b', 'hex');
  t.mock.method(crypto, 'getRandomValues', () => cnonce);
  const answer = await digest('Mufasa', 'Circle Of Life')({
    realm: 'testrealm@host.com', nonce: 'dcd98b7102dd2f0e8b11d0f600bfb0c093', algorithm: 'MD5', qop: 'auth', method: 'GET', uri: '/dir/index.html',
  });
  assert.equal(answer.response, '6629fae49393a05397450978507c4ef1');
});

test('without qop: neither qop, cnonce nor nc', async () => {
  const answer = await digest('5001', 'pw')({ realm: 'r', nonce: 'n', algorithm: 'MD5', qop: '', method: 'REGISTER', uri: 'sip:r' });
  const h = hash('md5');
  assert.deepEqual(answer, { realm: 'r', nonce: 'n', uri: 'sip:r', algorithm: 'MD5', response: h(`${h('5001:r:pw')}:n:${h('REGISTER:sip:r')}`) });
});

test('every answer has a count and a client nonce of its own', async () => {
  const hook = digest('5001', 'pw');
  const challenge = { realm: 'r', nonce: 'n', algorithm: 'SHA-256', qop: 'auth', method: 'INVITE', uri: 'sip:r' };
  const [first, second] = [await hook(challenge), await hook(challenge)];
  assert.deepEqual([first.nc, second.nc], ['00000001', '00000002']);
  assert.notEqual(first.cnonce, second.cnonce);
  assert.notEqual(first.response, second.response);
});
