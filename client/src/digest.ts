import type { Challenge, DigestAnswer } from './rtc-json.js';

/**
 * Answers challenges (RFC 7616, section 3.4.1) by a password that never leaves the page: the option `digest` of a phone.
 *
 * SHA-256 by the browser's Web Crypto (which needs a secure page), MD5 by itself.
 *
 * @param username the DN
 */
export function digest(username: string, password: string): (challenge: Challenge) => Promise<DigestAnswer> {
  let count = 0;
  return async ({ realm, nonce, algorithm, qop, method, uri }) => {
    const hash = /^SHA-256/i.test(algorithm) ? sha256 : md5;
    const cnonce = hex(crypto.getRandomValues(new Uint8Array(16)));
    const nc = (++count).toString(16).padStart(8, '0');
    let ha1 = await hash(`${username}:${realm}:${password}`);
    if (/-sess$/i.test(algorithm)) ha1 = await hash(`${ha1}:${nonce}:${cnonce}`);
    const ha2 = await hash(`${method}:${uri}`);
    const fields = { realm, nonce, uri, algorithm };
    // (as it was before RFC 2617)
    if (!qop) return { ...fields, response: await hash(`${ha1}:${nonce}:${ha2}`) };
    const response = await hash(`${ha1}:${nonce}:${nc}:${cnonce}:auth:${ha2}`);
    return { ...fields, qop: 'auth', cnonce, nc, response };
  };
}

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

async function sha256(text: string): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))));
}

/** RFC 1321. */
export function md5(text: string): string {
  const bytes = new TextEncoder().encode(text);
  // the text, a bit, zeros, and the length in bits, in blocks of sixteen words
  const words = new Uint32Array((((bytes.length + 8) >> 6) + 1) * 16);
  bytes.forEach((byte, i) => (words[i >> 2]! |= byte << ((i % 4) * 8)));
  words[bytes.length >> 2]! |= 0x80 << ((bytes.length % 4) * 8);
  words[words.length - 2] = bytes.length * 8;

  const state = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);
  for (let block = 0; block < words.length; block += 16) {
    let [a, b, c, d] = state as unknown as [number, number, number, number];
    for (let i = 0; i < 64; i++) {
      const round = i >> 4;
      const mix = [(b & c) | (~b & d), (b & d) | (c & ~d), b ^ c ^ d, c ^ (b | ~d)][round]!;
      const word = words[block + ([i, 5 * i + 1, 3 * i + 5, 7 * i][round]! % 16)]!;
      const sum = a + mix + word + Math.floor(Math.abs(Math.sin(i + 1)) * 2 ** 32);
      const shift = SHIFTS[round]![i % 4]!;
      [a, d, c, b] = [d, c, b, (b + ((sum << shift) | ((sum | 0) >>> (32 - shift)))) | 0];
    }
    state[0]! += a;
    state[1]! += b;
    state[2]! += c;
    state[3]! += d;
  }
  return hex(new Uint8Array(state.buffer));
}

const SHIFTS = [
  [7, 12, 17, 22],
  [5, 9, 14, 20],
  [4, 11, 16, 23],
  [6, 10, 15, 21],
];
