/** What the tests of faults share: a far side that answers everything, and the checks that all is as before. */
import assert from 'node:assert/strict';
import { sleep } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { tlsBug } from '../common/kamailio.mjs';
import { farSdp } from '../sip/peer.mjs';

/** A called side that takes every call and every new offer, and remembers which of its calls are up. */
export class Callee {
  /** @type {Map<string, { invite: import('../sip/peer.mjs').SipMessage, offers: number, acked: number, over: boolean }>} by Call-ID */
  calls = new Map();

  /** @param {import('../sip/peer.mjs').Peer} peer */
  constructor(peer) {
    this.peer = peer;
    peer.onRequest((m, repeated) => {
      const call = this.calls.get(m.callId);
      if (m.method === 'INVITE') this.#invite(m, repeated, call);
      else if (m.method === 'ACK') { if (call) call.acked = Math.max(call.acked, m.cseq); }
      else if (!call && m.toTag) peer.reply(m, 481);
      else {
        if (m.method === 'BYE') call.over = true;
        peer.reply(m, 200);
      }
    });
  }

  /** Call-IDs of what has begun and not ended on this side. */
  get live() { return [...this.calls].filter(([, call]) => !call.over).map(([id]) => id); }

  #invite(m, repeated, known) {
    if (repeated) return; // the 200 is sent again by itself
    const call = known ?? { invite: m, offers: 0, acked: 0, over: false };
    this.calls.set(m.callId, call);
    call.offers += 1;
    const body = farSdp({ setup: 'active', version: call.offers, direction: /^a=sendonly\r?$/m.test(m.body) ? 'recvonly' : 'sendrecv' });
    const started = Date.now();
    // RFC 3261, 13.3.1.4: until the ACK, for 32 seconds at most
    const answer = (wait) => {
      if (call.acked >= m.cseq || call.over || this.peer.closed) return;
      if (Date.now() - started > 32_000) { call.over = true; return; }
      this.peer.reply(m, 200, { body });
      setTimeout(answer, wait, Math.min(wait * 2, 4000)).unref();
    };
    answer(500);
  }
}

/**
 * A request that is sent again until its reply comes (RFC 3261, 17.1.2.2).
 * @param {import('../sip/peer.mjs').Leg} leg
 * @param {string} method
 */
export async function persist(leg, method, options = {}, ms = 32_000) {
  const branch = leg.send(method, options);
  const cseq = leg.cseq;
  const end = Date.now() + ms;
  for (let wait = 500; ; wait = Math.min(wait * 2, 4000)) {
    try { return await leg.reply(branch, undefined, wait, method); } catch (error) { if (Date.now() > end) throw error; }
    leg.send(method, { ...options, branch, cseq });
  }
}

/** A browser that comes back with its session token, and tries until there is a server. */
export async function resume(kamailio, dn, session, { ms = 30_000 } = {}) {
  const end = Date.now() + ms;
  for (;;) {
    let client;
    try {
      client = await connect(kamailio.wsUrl);
      client.registered = await client.expect('register', { dn, displayName: `Agent ${dn}`, resume: session }, 'registered', { ms: 10_000 });
      return client;
    } catch (error) {
      client?.terminate();
      if (Date.now() > end || /registrationFailed/.test(error.message)) throw error;
      await sleep(100 + Math.random() * 200);
    }
  }
}

/** Does it for each, so many at a time. */
export async function each(list, lanes, work) {
  const waiting = list.map((item, i) => [item, i]);
  await Promise.all(Array.from({ length: lanes }, async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await work(...next);
  }));
}

/** The value below which that share of them lies. */
export const quantile = (values, share) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))];

/** p50, p99 and the greatest, as text. */
export const spread = (values) => `p50 ${quantile(values, 0.5).toFixed(0)}, p99 ${quantile(values, 0.99).toFixed(0)}, max ${Math.max(...values).toFixed(0)} ms (${values.length})`;

/** Nothing in the log that speaks of a broken server. */
export function noAlarm(kamailio, expected = []) {
  const lines = kamailio.log().split('\n').filter((line) => /\b(CRITICAL|BUG|ALERT): |\bBUG\b/.test(line) && ![tlsBug, ...expected].some((known) => known.test(line)));
  assert.deepEqual(lines, []);
}

/**
 * Memory is where it was.
 * @param {Awaited<ReturnType<typeof import('../sip/support.mjs').memoryOf>>} from
 * @param {{ shm?: number, pkg?: number, arena?: number }} [slack] bytes that may have come to stay: the buffers of a busy server
 */
export function backAtBaseline(from, to, { shm = 400_000, pkg = 200_000, arena = 16_384 } = {}) {
  const grown = [...to.pkg].map(([name, used]) => [name, used - (from.pkg.get(name) ?? used)]).sort((x, y) => y[1] - x[1]);
  note(`shm ${from.shm} to ${to.shm} (${to.shm - from.shm}); pkg grown most: ${grown[0]}; arena ${from.arena} to ${to.arena}, records ${from.records} to ${to.records}`);
  assert.ok(to.shm - from.shm < shm, `shm has grown by ${to.shm - from.shm}`);
  assert.ok(grown[0][1] < pkg, `pkg of ${grown[0][0]} has grown by ${grown[0][1]}`);
  assert.ok(to.records <= from.records, `records of the arena: ${from.records} to ${to.records}`);
  assert.ok(to.arena - from.arena <= arena, `the arena has grown by ${to.arena - from.arena}`);
}

/** Random numbers below 1 that are the same for the same seed (mulberry32). @param {number} seed */
export function randomOf(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A figure, for whoever runs the tests. */
export const note = (text) => console.log(`# ${text}`);
