/** TLS of the example configuration, as sslyze sees it: TLS 1.2 and 1.3, forward secrecy, and none of the known weaknesses. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { onExit } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { python } from '../common/python.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-sslyze-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** What sslyze found, by the name of its scan. */
let found;
before(async () => {
  const [key, certificate] = [path.join(dir, 'key.pem'), path.join(dir, 'cert.pem')];
  // RSA: only such a certificate allows a key exchange without forward secrecy
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=localhost'], { stdio: 'ignore' });
  // one TCP process, as the example has it: with more of them the tls module of Kamailio 5.6 breaks under many handshakes, see tlsBug
  kamailio = await startKamailio({ workers: 1, defines: { TLS_CERT: `"${certificate}"`, TLS_KEY: `"${key}"` } });
  const out = path.join(dir, 'found.json');
  const scans = ['sslv2', 'sslv3', 'tlsv1', 'tlsv1_1', 'tlsv1_2', 'tlsv1_3', 'elliptic_curves', 'early_data', 'compression', 'reneg', 'heartbleed', 'openssl_ccs', 'robot', 'fallback'];
  const { status, out: said } = await python('sslyze', [...scans.map((scan) => `--${scan}`), '--slow_connection', '--mozilla_config=disable', '--quiet', `--json_out=${out}`, `127.0.0.1:${kamailio.wssPort}`], { ms: 300_000 });
  assert.equal(status, 0, said);
  const [server] = JSON.parse(fs.readFileSync(out, 'utf8')).server_scan_results;
  assert.equal(server.connectivity_status, 'COMPLETED', said);
  found = Object.fromEntries(Object.entries(server.scan_result).filter(([, scan]) => scan.status !== 'NOT_SCHEDULED').map(([name, scan]) => {
    assert.equal(scan.status, 'COMPLETED', `${name}: ${JSON.stringify(scan.error_trace)}`);
    return [name, scan.result];
  }));
});
after(() => kamailio?.stop());

const suites = (version) => found[`${version}_cipher_suites`].accepted_cipher_suites.map((one) => one.cipher_suite.name).sort();

test('TLS 1.2 and 1.3 only', () => {
  for (const version of ['ssl_2_0', 'ssl_3_0', 'tls_1_0', 'tls_1_1']) {
    assert.deepEqual(suites(version), [], version);
    // the scan has asked for something
    assert.ok(found[`${version}_cipher_suites`].rejected_cipher_suites.length > 3, version);
  }
});

test('of all suites, those with forward secrecy and authenticated encryption', () => {
  assert.deepEqual(suites('tls_1_2'), ['TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256', 'TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384', 'TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256']);
  assert.deepEqual(suites('tls_1_3'), ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']);
  const refused = found.tls_1_2_cipher_suites.rejected_cipher_suites.map((one) => one.cipher_suite.name);
  for (const weak of ['TLS_RSA_WITH_AES_128_GCM_SHA256', 'TLS_RSA_WITH_AES_256_CBC_SHA', 'TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384']) assert.ok(refused.includes(weak), weak);
  for (const one of [...found.tls_1_2_cipher_suites.accepted_cipher_suites, ...found.tls_1_3_cipher_suites.accepted_cipher_suites]) {
    assert.ok(one.ephemeral_key && one.ephemeral_key.size >= 253, JSON.stringify(one));
  }
});

test('no known weakness', () => {
  assert.equal(found.heartbleed.is_vulnerable_to_heartbleed, false);
  assert.equal(found.openssl_ccs_injection.is_vulnerable_to_ccs_injection, false);
  assert.match(found.robot.robot_result, /^NOT_VULNERABLE/);
  assert.equal(found.tls_compression.supports_compression, false);
  assert.equal(found.tls_1_3_early_data.supports_early_data, false, 'what is repeated by somebody else would act twice');
  assert.equal(found.session_renegotiation.supports_secure_renegotiation, true);
  assert.equal(found.session_renegotiation.is_vulnerable_to_client_renegotiation_dos, false);
});
