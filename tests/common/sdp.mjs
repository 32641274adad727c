/** SDP as Chromium 156 makes it (recorded from it, before any candidate was gathered), for tests without a browser. */
import fs from 'node:fs';

const read = (name) => fs.readFileSync(new URL(`./sdp/${name}.sdp`, import.meta.url), 'latin1');
const samples = { offer: read('chromium-offer'), answer: read('chromium-answer') };

/** One host candidate on loopback, as it stands in an SDP. @param {number} [port] */
export const candidateLine = (port = 50000) => `a=candidate:1 1 udp 2113937151 127.0.0.1 ${port} typ host generation 0`;

function vary(sdp, { candidates = [], direction = 'sendrecv', version = 2 }) {
  return sdp
    .replace(/^(o=- \d+) \d+/m, `$1 ${version}`)
    .replace('a=sendrecv', `a=${direction}`)
    .replace(/^(?=a=ice-ufrag:)/m, candidates.map((line) => `${line}\r\n`).join(''));
}

/**
 * An offer: opus, red, G722, PCMU, PCMA, CN and telephone-event over DTLS-SRTP, no candidates.
 * @param {{ candidates?: string[], direction?: string, version?: number }} [options] candidates: whole lines
 */
export const fakeOffer = (options = {}) => vary(samples.offer, options);

/**
 * An answer to an offer of PCMU and telephone-event, no candidates.
 * @param {{ candidates?: string[], direction?: string, version?: number }} [options]
 */
export const fakeAnswer = (options = {}) => vary(samples.answer, options);
