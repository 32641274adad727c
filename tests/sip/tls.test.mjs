/** TLS of the example configuration: versions and ciphers with forward secrecy only, room for as many browsers as it says. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { onExit } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
before(async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-tls-'));
  onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
  const [key, certificate] = [path.join(dir, 'key.pem'), path.join(dir, 'cert.pem')];
  // RSA: only such a certificate allows a key exchange without forward secrecy
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=localhost'], { stdio: 'ignore' });
  kamailio = await startKamailio({ defines: { TLS_CERT: `"${certificate}"`, TLS_KEY: `"${key}"` } });
});
after(() => kamailio?.stop());

/** The cipher that a client with these options of s_client gets; undefined when it is refused. @returns {Promise<string | undefined>} */
const cipher = (...options) => new Promise((done, fail) => {
  const client = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${kamailio.wssPort}`, ...options], { stdio: ['pipe', 'pipe', 'ignore'], timeout: 10_000 });
  let text = '';
  client.stdout.on('data', (data) => { text += data; });
  client.on('error', fail);
  client.on('close', () => {
    const found = /^New, .*Cipher is (\S+)$/m.exec(text)?.[1];
    done(found === '(NONE)' ? undefined : found);
  });
  client.stdin.end();
});

test('TLS 1.3 and 1.2 are taken, with ephemeral keys', async () => {
  assert.match(await cipher('-tls1_3'), /^TLS_/);
  assert.match(await cipher('-tls1_2'), /^ECDHE-RSA-/);
});

test('no key exchange without forward secrecy, no CBC, nothing older than TLS 1.2', async () => {
  for (const options of [['-tls1_2', '-cipher', 'AES256-GCM-SHA384'], ['-tls1_2', '-cipher', 'ECDHE-RSA-AES256-SHA384'], ['-tls1_1', '-cipher', 'DEFAULT@SECLEVEL=0']]) {
    assert.equal(await cipher(...options), undefined, options.join(' '));
  }
});

test('there may be as many connections with TLS as connections at all', async () => {
  const limit = (text) => Number(/max_connections: (\d+)/.exec(text)?.[1]);
  assert.equal(limit(await kamailio.rpcText('tls.info')), limit(await kamailio.rpcText('core.tcp_info')));
});
