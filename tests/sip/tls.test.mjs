/** TLS of the example configuration: versions and ciphers with forward secrecy only, room for as many browsers as it says. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { onExit, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
let key = '';
let certificate = '';
before(async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-tls-'));
  onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
  [key, certificate] = [path.join(dir, 'key.pem'), path.join(dir, 'cert.pem')];
  // RSA: only such a certificate allows a key exchange without forward secrecy
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=localhost'], { stdio: 'ignore' });
  kamailio = await startKamailio({ defines: { TLS_CERT: `"${certificate}"`, TLS_KEY: `"${key}"` } });
});
after(() => kamailio?.stop());

/** The cipher that a client with these options of s_client gets; undefined when it is refused. @returns {Promise<string | undefined>} */
const cipher = (port, ...options) => new Promise((done, fail) => {
  const client = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, ...options], { stdio: ['pipe', 'pipe', 'ignore'], timeout: 10_000 });
  let text = '';
  client.stdout.on('data', (data) => { text += data; });
  client.on('error', fail);
  client.on('close', () => {
    const found = /^New, .*Cipher is (\S+)$/m.exec(text)?.[1];
    done(found === '(NONE)' ? undefined : found);
  });
  client.stdin.end();
});

/** A server of OpenSSL that takes all that it can, with the same certificate: what it refuses, the client cannot do. */
async function startPermissive() {
  const port = await freePort();
  const server = spawn('openssl', ['s_server', '-accept', `127.0.0.1:${port}`, '-cert', certificate, '-key', key, '-cipher', 'ALL:@SECLEVEL=0', '-quiet'],
    { stdio: ['pipe', 'ignore', 'ignore'] });
  const end = () => { server.kill('SIGKILL'); };
  onExit(end);
  await until(() => cipher(port, '-tls1_2'), { what: 'openssl s_server answers' });
  return { port, end };
}

test('of all versions and ciphers that OpenSSL can do, those with forward secrecy and authenticated encryption are taken, and no other', async () => {
  const permissive = await startPermissive();
  try {
    const names = execFileSync('openssl', ['ciphers', '-s', '-tls1_2', 'ALL:@SECLEVEL=0'], { encoding: 'utf8' }).trim().split(':');
    const asked = [
      ...['-tls1', '-tls1_1'].map((version) => [version, '-cipher', 'ALL:@SECLEVEL=0']),
      ...names.filter((name) => !name.startsWith('TLS_')).map((name) => ['-tls1_2', '-cipher', `${name}:@SECLEVEL=0`]),
      ...['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'].map((name) => ['-tls1_3', '-ciphersuites', name]),
    ];
    const possible = [];
    const taken = [];
    for (const options of asked) {
      const name = await cipher(permissive.port, ...options);
      if (!name) continue; // wants another certificate
      possible.push(`${options[0]} ${name}`);
      const ours = await cipher(kamailio.wssPort, ...options);
      if (ours) taken.push(`${options[0]} ${ours}`);
    }
    // the refusals mean something: the same client with the same options is served elsewhere
    for (const wanted of [/^-tls1_1 /, /^-tls1 /, /^-tls1_2 AES256-GCM-SHA384$/, /^-tls1_2 AES128-SHA$/, /^-tls1_2 ECDHE-RSA-AES256-SHA384$/]) {
      assert.ok(possible.some((name) => wanted.test(name)), `${wanted} among ${possible}`);
    }
    assert.deepEqual(taken.sort(), [
      '-tls1_2 ECDHE-RSA-AES128-GCM-SHA256', '-tls1_2 ECDHE-RSA-AES256-GCM-SHA384', '-tls1_2 ECDHE-RSA-CHACHA20-POLY1305',
      '-tls1_3 TLS_AES_128_GCM_SHA256', '-tls1_3 TLS_AES_256_GCM_SHA384', '-tls1_3 TLS_CHACHA20_POLY1305_SHA256',
    ]);
  } finally { permissive.end(); }
});

test('there may be as many connections with TLS as connections at all', async () => {
  const limit = (text) => Number(/max_connections: (\d+)/.exec(text)?.[1]);
  assert.equal(limit(await kamailio.rpcText('tls.info')), limit(await kamailio.rpcText('core.tcp_info')));
});
