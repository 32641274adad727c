#!/usr/bin/env node
/**
 * Makes tokens (JWT) for the demo and the tests, and a key file to check them with.
 *
 *     node scripts/token.mjs --new-keys FILE               a key file with one secret (HS256)
 *     node scripts/token.mjs --keys FILE 5001              a token for DN 5001, signed with the first secret of that file
 *     node scripts/token.mjs --private-key FILE.pem 5001   the same with RSA, EC (P-256) or Ed25519
 *
 * Further options: --ttl SECONDS (3600), --issuer TEXT, --audience TEXT, --scope TEXT, --kid TEXT.
 */
import crypto from 'node:crypto';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const base64url = (data) => Buffer.from(data).toString('base64url');

const algorithms = { secret: 'HS256', rsa: 'RS256', ec: 'ES256', ed25519: 'EdDSA' };

/**
 * A token in the compact form.
 * @param {object} claims
 * @param {crypto.KeyObject} key secret or private
 * @param {object} [header] over the usual one, for tokens that are not right
 */
export function sign(claims, key, header = {}) {
  const alg = algorithms[key.asymmetricKeyType ?? key.type];
  if (!alg) throw new Error(`no algorithm here for a key of ${key.asymmetricKeyType}`);
  const text = `${base64url(JSON.stringify({ alg, typ: 'JWT', ...header }))}.${base64url(JSON.stringify(claims))}`;
  const signature = alg === 'HS256' ? crypto.createHmac('sha256', key).update(text).digest()
    : crypto.sign(alg === 'EdDSA' ? null : 'sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' });
  return `${text}.${base64url(signature)}`;
}

/** The usual claims. @param {string} dn @param {{ ttl?: number, more?: object }} [options] ttl: seconds */
export function claims(dn, { ttl = 3600, more = {} } = {}) {
  const now = Math.floor(Date.now() / 1000);
  return { sub: dn, iat: now, nbf: now, exp: now + ttl, ...more };
}

/** A new secret as JWK. @param {string} kid */
export const newSecret = (kid) => ({ kty: 'oct', kid, alg: 'HS256', use: 'sig', k: base64url(crypto.randomBytes(32)) });

function main() {
  const text = { type: 'string' };
  const { values: given, positionals } = parseArgs({
    allowPositionals: true,
    options: { 'new-keys': text, keys: text, 'private-key': text, ttl: text, issuer: text, audience: text, scope: text, kid: text },
  });
  if (given['new-keys']) {
    const keys = { keys: [newSecret(given.kid ?? 'demo')] };
    // new, and for the owner alone: who can read it can be anybody
    fs.writeFileSync(given['new-keys'], `${JSON.stringify(keys, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
    return;
  }
  const [dn] = positionals;
  if (!dn || positionals.length > 1 || Boolean(given.keys) === Boolean(given['private-key'])) {
    throw new Error('give a DN, and --keys FILE or --private-key FILE; or --new-keys FILE alone');
  }
  const ttl = Number(given.ttl ?? 3600);
  if (!Number.isInteger(ttl)) throw new Error('--ttl: a number of seconds');
  let { kid } = given;
  let key;
  if (given.keys) {
    const secret = JSON.parse(fs.readFileSync(given.keys, 'utf8')).keys.find((jwk) => jwk.kty === 'oct' && (!kid || jwk.kid === kid));
    if (!secret) throw new Error(`${given.keys}: no secret in it; a token of another kind needs --private-key`);
    kid = secret.kid;
    key = crypto.createSecretKey(Buffer.from(secret.k, 'base64url'));
  } else {
    key = crypto.createPrivateKey(fs.readFileSync(given['private-key']));
  }
  const more = { iss: given.issuer, aud: given.audience, scope: given.scope };
  console.log(sign(claims(dn, { ttl, more }), key, { kid }));
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try { main(); } catch (error) {
    console.error(`token: ${error.message}`);
    process.exitCode = 1;
  }
}
