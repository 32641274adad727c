/** What the tests of this folder share: configs for them, and the checks that nothing is left over. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { onExit, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { tlsBug } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { startSipp } from '../common/sipp.mjs';
import { farSdp, openPeer } from './peer.mjs';

const example = fs.readFileSync(fileURLToPath(new URL('../../kamailio.cfg.example', import.meta.url)), 'utf8');

/**
 * A config made from the project's example.
 * @param {(text: string) => string} edit
 * @returns {string} path of a file that goes with this process
 */
export function editedConfig(edit) {
  const text = edit(example);
  assert.notEqual(text, example, 'the example has not what the edit looks for');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-cfg-'));
  onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
  const file = path.join(dir, 'kamailio.cfg');
  fs.writeFileSync(file, text);
  return file;
}

/**
 * The example with next hops by number: a `call` or `message` to 7PPPPP goes to UDP port PPPPP of this machine, a `call` to 8PPPPP by TCP.
 * So every test has a far side of its own.
 */
export const hopByNumber = () => editedConfig((text) => text.replace('\trtc_json_handle();\n}', `
	if ($rtcj(type) =~ "^(call|message)$" && $rtcj(payload.to) =~ "^7[0-9]{5}$") $du = "sip:127.0.0.1:" + $(rtcj(payload.to){s.substr,1,0});
	if ($rtcj(type) == "call" && $rtcj(payload.to) =~ "^8[0-9]{5}$") $du = "sip:127.0.0.1:" + $(rtcj(payload.to){s.substr,1,0}) + ";transport=tcp";
	rtc_json_handle();
}`));

/** Module parameters as config text. @param {Record<string, string | number>} values of tm */
export const tm = (values) => Object.entries(values).map(([name, value]) => `modparam("tm", "${name}", ${value})`).join('\n');

// Lines that a healthy Kamailio writes too.
const harmless = [
  /openssl bug #1491/, // at every start with TLS
  /set maximum pthreads key/, // the same, Kamailio 6
  tlsBug,
];

/** What the websocket module says of a frame for a browser that went without a word, until it has noticed. */
const unsent = /websocket \[ws_frame\.c:\d+\]: (encode_and_send_ws_frame|ws_frame_transmit)\(\): sending /;

/** What Kamailio's own processes may say when they end one after the other, and where else they may not. */
const eof = /receive_fd\(\): EOF on/;

/** Lines at WARNING and worse, from one look to the next. */
export class Quiet {
  #seen = 0;

  #endings = 0;

  constructor(kamailio) { this.kamailio = kamailio; }

  /** @param {RegExp[]} [expected] @returns {string[]} those since the last look that are neither harmless nor expected */
  news(expected = []) {
    const all = this.kamailio.warnings();
    const news = all.slice(this.#seen);
    this.#seen = all.length;
    const lastWords = this.kamailio.endings > this.#endings ? [eof] : [];
    this.#endings = this.kamailio.endings;
    return news.filter((line) => ![...harmless, ...lastWords, ...expected].some((known) => known.test(line)));
  }
}

/** All that must never be seen: passwords right and wrong, what is made of them, tokens. */
export class Secrets {
  #all = new Map();

  #number = 0;

  /** Notes a secret and gives it back. */
  add(what, value) { this.#all.set(value, what); return value; }

  /** A wrong password that stands nowhere else. */
  wrong() { return this.add('a wrong password', `wr0ng-${process.pid}-${(this.#number += 1)}-pässwörd`); }

  /** Which of them are in this text. */
  in(text) { return [...this.#all].filter(([value]) => text.includes(value)).map(([value, what]) => `${what} ${value}`); }

  /**
   * Checks what the operator can see: the log, and every RPC command of the module.
   * @param {import('../common/kamailio.mjs').Kamailio} kamailio
   * @param {string[]} dns agents to ask for
   */
  async notShown(kamailio, dns) {
    const rpc = (await Promise.all(['rtc_json.agents', 'rtc_json.calls', 'rtc_json.stats', ...dns.map((dn) => `rtc_json.agent ${dn}`)]
      .map((line) => kamailio.rpcText(...line.split(' ')).catch((error) => error.message)))).join('\n');
    assert.ok(this.#all.size > 0 && kamailio.log().length > 100 && rpc.includes('register_failed'), 'there is something to search for');
    assert.deepEqual(this.in(kamailio.log()), [], 'in the log');
    assert.deepEqual(this.in(rpc), [], 'in an RPC answer');
  }
}

/** Waits until no call and no transaction is left. @param {import('../common/kamailio.mjs').Kamailio} kamailio */
export async function idle(kamailio, { ms = 12_000 } = {}) {
  let left;
  const end = Date.now() + ms;
  for (;;) {
    left = { calls: await kamailio.rpcRows('rtc_json.calls'), gauge: await kamailio.stat('calls'), transactions: (await kamailio.rpc('tm.stats')).current };
    if (left.calls.length === 0 && left.gauge === 0 && left.transactions === 0) return;
    if (Date.now() > end) break;
    await new Promise((done) => { setTimeout(done, 100); });
  }
  assert.fail(`left over after ${ms} ms: ${JSON.stringify(left)}`);
}

/** What is in use once no call is left: shared memory, private memory by process, the arena. @param {import('../common/kamailio.mjs').Kamailio} kamailio */
export async function memoryOf(kamailio) {
  await idle(kamailio, { ms: 40_000 });
  const shm = Number((await kamailio.rpc('core.shmmem')).used);
  const pkg = new Map((await kamailio.rpcRows('pkg.stats')).map((row) => [`${row.pid} ${row.desc ?? ''}`, Number(row.used)]));
  return { shm, pkg, arena: await kamailio.stat('arena_used'), records: await kamailio.stat('arena_records') };
}

/** What one test opens; ended with it. */
export class Bench {
  /** @type {import('../common/kamailio.mjs').Kamailio} */
  kamailio;

  #always;
  #clients = [];
  #expected = [];
  #others = [];
  #quiet;

  /**
   * @param {import('../common/kamailio.mjs').Kamailio} kamailio
   * @param {{ log?: RegExp[] }} [options] log: lines that every test here may cause
   */
  constructor(kamailio, { log = [] } = {}) {
    this.kamailio = kamailio;
    this.#quiet = new Quiet(kamailio);
    this.#always = log;
  }

  /** A connection. @returns {Promise<import('../common/client.mjs').Client>} */
  async client(url = this.kamailio.wsUrl) {
    const client = await connect(url);
    this.#clients.push(client);
    return client;
  }

  /** A registered browser. @param {string} dn */
  async agent(dn, more = {}) {
    const client = await this.client();
    client.registered = await client.register(dn, more);
    return client;
  }

  /** SIPp; callers (uac-*) call Kamailio. */
  async far(scenario, keys = {}, more = {}) {
    const sipp = await startSipp({ scenario, keys, ...(scenario.startsWith('uac') ? { remote: `127.0.0.1:${this.kamailio.sipPort}` } : {}), ...more });
    this.#others.push(() => sipp.stop());
    return sipp;
  }

  /** A bare endpoint on a port that `7PPPPP` can name. */
  async peer() {
    const peer = await openPeer(this.kamailio.sipPort, { port: await freePort() });
    this.#others.push(() => peer.close());
    return peer;
  }

  /** The log may have such lines in this test. @param {...RegExp} lines */
  expectLog(...lines) { this.#expected.push(...lines); }

  /** Checks that nothing is left of the test, whatever it was, and ends what it opened. */
  async finish() {
    let failure;
    const dropped = this.#clients.some((client) => client.dropped);
    // first as the test left it; only then the browsers go, which would end their calls
    try { await idle(this.kamailio); } catch (error) { failure = error; }
    await Promise.all(this.#clients.splice(0).map(async (client) => {
      if (client.closed) return;
      await client.request('unregister').catch(() => {});
      await client.close();
    }));
    if (failure) await idle(this.kamailio, { ms: 3000 }).catch(() => {});
    for (const stop of this.#others.splice(0)) await stop();
    const news = this.#quiet.news([...this.#always, ...(dropped ? [unsent] : []), ...this.#expected.splice(0)]);
    if (failure) throw failure;
    // with what follows them: a fault of a script has its reason on the next lines
    if (news.length) assert.fail(`the log has warnings or worse:\n${news.join('\n')}\n…\n${this.kamailio.log().slice(-3000)}`);
  }
}

/** Where a `call` must go to reach that far side. @param {{ port: number }} far */
export const to = (far) => `7${far.port}`;

/** The message with that id and type. */
export const messageOf = (client, type, id) => client.received.find((m) => m.type === type && m.id === id);

/** All `callEnded` of a call. */
export const endsOf = (client, callId) => client.received.filter((m) => m.type === 'callEnded' && m.payload.callId === callId).map((m) => m.payload);

/** Waits until the agent's calls are as wanted. */
export const callsBecome = (kamailio, accept, ms = 5000) => until(async () => {
  const rows = await kamailio.rpcRows('rtc_json.calls');
  return accept(rows) && [rows];
}, { ms, what: `rtc_json.calls: ${accept}` }).then(([rows]) => rows);

/**
 * A call of the browser to that endpoint, answered. `leg` is the far side's end of the dialog.
 * @param {{ headers?: string[], body?: string, more?: object }} [options] headers, body: of the 200; more: payload of `call`
 */
export async function callOut(client, peer, { headers = [], body = farSdp({ setup: 'active' }), more = {} } = {}) {
  const call = { to: to(peer), sdp: fakeOffer(), iceServers: [], ...more };
  const id = client.send('call', call);
  // several agents may call at once
  const invite = await peer.waitFor((m) => m.method === 'INVITE' && m.header('To').includes(`sip:${call.to}@`), 5000, `INVITE of ${call.to}`);
  peer.reply(invite, 200, { body, headers });
  await peer.waitFor((m) => m.method === 'ACK' && m.callId === invite.callId, 5000, `ACK of ${invite.callId}`);
  const { callId } = await client.waitFor('callAccepted', (p, m) => m.id === id);
  return { callId, id, invite, leg: peer.legOf(invite), peer, sent: invite.body };
}

/**
 * A call of that endpoint to the browser, answered. `sent`: what the far side has as its answer.
 * @param {{ headers?: string[], body?: string, answer?: string }} [options] headers, body: of the INVITE
 */
export async function callIn(kamailio, client, peer, dn, { headers = [], body = farSdp(), answer = fakeAnswer() } = {}) {
  const leg = peer.leg(dn);
  leg.invite({ headers, body });
  const { callId } = await client.waitFor('incomingCall');
  await client.expect('answer', { callId, sdp: answer }, 'ack');
  const ok = await leg.answer();
  assert.equal(ok.status, 200);
  leg.ack(ok);
  // another worker may be faster with the next request than this one with the ACK
  await callsBecome(kamailio, (rows) => rows.find((row) => row.callId === callId)?.state === 'established');
  return { callId, ok, leg, peer, sent: ok.body };
}

/** The browser ends the call; the far side gets BYE and answers it. */
export async function endCall(client, { callId, peer, leg }) {
  const id = client.send('hangup', { callId, reason: 'user_hangup' });
  const bye = await peer.waitFor((m) => m.method === 'BYE' && m.callId === leg.callId, 5000, 'BYE');
  assert.deepEqual([bye.fromTag, bye.toTag], [leg.remoteTag, leg.localTag]);
  peer.reply(bye, 200);
  const ended = await client.waitFor('callEnded', (p, m) => m.id === id);
  assert.deepEqual([ended.callId, ended.reason, endsOf(client, callId).length], [callId, 'normal_clearing', 1], client.transcript());
  return ended;
}

/** What counts in an SDP. */
export function partsOf(sdp) {
  const lines = sdp.split(/\r?\n/).filter(Boolean);
  const all = (start) => lines.filter((l) => l.startsWith(start)).map((l) => l.slice(start.length));
  const [user, session, version] = all('o=')[0].split(' ');
  return {
    session: `${user} ${session}`, version: Number(version), candidates: all('a=candidate:'), ufrag: all('a=ice-ufrag:')[0], setup: all('a=setup:')[0],
    direction: lines.map((l) => /^a=(sendrecv|sendonly|recvonly|inactive)$/.exec(l)?.[1]).find(Boolean),
    rest: lines.filter((l) => !/^o=|^a=(sendrecv|sendonly|recvonly|inactive)$/.test(l)),
  };
}

/** Is the later SDP the earlier one with that direction and the next version? `refused`: other offers that were refused between. */
export function assertFollows(later, earlier, direction, { refused = 0 } = {}) {
  const [a, b] = [partsOf(earlier), partsOf(later)];
  assert.deepEqual([b.session, b.version, b.direction], [a.session, a.version + 1 + refused, direction]);
  assert.deepEqual(b.rest, a.rest);
}
