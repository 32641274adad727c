/** HTTP digest (RFC 2617, RFC 7616) as SIP uses it, to check what the server under test answers. */
import { createHash, randomBytes } from 'node:crypto';

const hash = (algorithm, text) => createHash(/^sha-256/i.test(algorithm) ? 'sha256' : 'md5').update(text).digest('hex');

/**
 * The fields of a challenge or of an answer to one.
 * @param {string} header value of WWW-Authenticate, Authorization, …
 * @returns {Record<string, string>}
 */
export function digestFields(header) {
  const fields = {};
  for (const [, name, quoted, plain] of header.matchAll(/([\w-]+)=(?:"([^"]*)"|([^,\s]+))/g)) fields[name.toLowerCase()] = quoted ?? plain;
  return fields;
}

/** HA1, 32 (MD5) or 64 (SHA-256) hex digits. */
export const ha1 = (user, realm, password, algorithm = 'MD5') => hash(algorithm, `${user}:${realm}:${password}`);

/**
 * The `response` that a right answer carries.
 * @param {{ method: string, uri: string, ha1: string, nonce: string, algorithm?: string, qop?: string, nc?: string, cnonce?: string }} input
 */
export function digestResponse({ method, uri, ha1: secret, nonce, algorithm = 'MD5', qop, nc, cnonce }) {
  const ha2 = hash(algorithm, `${method}:${uri}`);
  return hash(algorithm, qop ? `${secret}:${nonce}:${nc}:${cnonce}:${qop}:${ha2}` : `${secret}:${nonce}:${ha2}`);
}

/**
 * Whether an Authorization (or Proxy-Authorization) header is the right answer for this password.
 * @param {string} header
 * @param {{ method: string, password: string }} expected
 */
export function checkDigest(header, { method, password }) {
  const f = digestFields(header);
  return f.response === digestResponse({
    ...f, method, ha1: ha1(f.username, f.realm, password, f.algorithm), algorithm: f.algorithm,
  });
}

/**
 * What a browser makes of a `challenge`: the `digest` of its answer.
 * @param {{ realm: string, nonce: string, algorithm: string, qop: string, method: string, uri: string }} challenge
 * @param {string} user
 * @param {string} password
 */
export function answerTo({ realm, nonce, algorithm, qop, method, uri }, user, password) {
  const protection = qop ? { qop, nc: '00000001', cnonce: randomBytes(8).toString('hex') } : {};
  const response = digestResponse({ method, uri, nonce, algorithm, ha1: ha1(user, realm, password, algorithm), ...protection });
  return { realm, nonce, uri, response, algorithm, ...protection };
}
