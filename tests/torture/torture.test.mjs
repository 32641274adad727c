/**
 * The torture messages of RFC 4475, to and from a real Kamailio with the module: as they are, to one of our agents, and as replies to
 * INVITEs of ours. None may harm anybody; what became of each is printed as a table (and written to run/torture.md).
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { openPeer } from '../sip/peer.mjs';
import { Bench, callOut, endCall, hopByNumber, idle, tm, to } from '../sip/support.mjs';
import { freePort } from '../common/ports.mjs';

const top = fileURLToPath(new URL('../..', import.meta.url));
const dir = path.join(process.env.RTC_JSON_CORPORA ?? path.join(top, '../shared/corpora'), 'sip-rfc4475');
const names = fs.existsSync(dir) ? fs.readdirSync(dir).filter((name) => name.endsWith('.dat')).sort() : [];
const skip = names.length === 0 && `the torture messages are not here (${dir})`;
/** A case is over when nothing has happened for so long. */
const SILENCE = 500;

/** What became of each message: name to { way: outcome }. */
const table = new Map(names.map((name) => [name, {}]));
const note = (name, way, outcome) => { table.get(name)[way] = outcome; };

let kamailio;
let client;
let honest;
let pids;
let shm;

before(async () => {
  if (skip) return;
  kamailio = await startKamailio({
    mode: 'local', cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, fr_inv_timer: 4000, wt_timer: 200 }), params: { max_calls_per_agent: 8 },
  });
  pids = kamailio.pids;
  client = await connect(kamailio.wsUrl);
  await client.register('5001');
  honest = await connect(kamailio.wsUrl);
  await honest.register('5009');
  const bench = new Bench(kamailio);
  // what one call leaves in tables that never shrink is no leak
  const peer = await bench.peer();
  await endCall(client, { ...(await callOut(client, peer)), peer });
  await idle(kamailio);
  shm = Number((await kamailio.rpc('core.shmmem')).used);
  await peer.close();
});

after(() => kamailio?.stop());

/** Start line, header lines with what is folded below them, body; bytes as latin1. */
function parts(data) {
  const text = data.toString('latin1');
  const at = text.indexOf('\r\n\r\n');
  const [head, body] = at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 4)];
  const lines = head.split(/\r\n(?![ \t])/);
  return { start: lines[0], headers: lines.slice(1), body };
}

const compact = { via: 'v', from: 'f', to: 't', 'call-id': 'i', contact: 'm' };
const isOf = (line, name) => {
  const got = line.split(':')[0].trim().toLowerCase();
  return got === name || got === compact[name];
};

/** The message with other headers in place of its own, as bytes. */
function changed({ start, headers, body }, { first = start, put }) {
  const kept = headers.filter((line) => !put.some(([name]) => isOf(line, name.toLowerCase())));
  return Buffer.from([first, ...put.map(([name, value]) => `${name}: ${value}`), ...kept, '', body].join('\r\n'), 'latin1');
}

/** Waits for `done()`, and then until nothing is new for a while. */
async function settle(count, done = () => false) {
  let seen = -1;
  let since = Date.now();
  while (Date.now() - since < SILENCE && !done()) {
    if (count() !== seen) { seen = count(); since = Date.now(); }
    await sleep(20);
  }
}

async function unharmed(name) {
  assert.deepEqual(kamailio.pids, pids, `${name}: the same processes`);
  await honest.expect('ping', {}, 'pong');
}

/** Sends a message and tells what came of it: replies, and what the browser was told. */
async function asRequest(data, peer) {
  const from = client.received.length;
  peer.sendRaw(data);
  const told = () => client.received.slice(from);
  const replies = () => peer.received((m) => m.status !== undefined).map((m) => m.status);
  await settle(() => replies().length + told().length, () => replies().some((status) => status >= 300));
  const calls = told().filter((m) => m.type === 'incomingCall').map((m) => m.payload.callId);
  for (const callId of calls) await client.request('hangup', { callId, reason: 'declined' }).catch(() => {});
  await settle(() => replies().length, () => replies().some((status) => status >= 300));
  const codes = [...new Set(replies())].filter((status) => status > 100);
  return [calls.length ? 'rings' : '', codes.join(' ')].filter(Boolean).join(', ') || 'no reply';
}

test(`${names.length} messages as they are`, { skip }, async () => {
  for (const name of names) {
    const peer = await openPeer(kamailio.sipPort);
    note(name, 'asIs', await asRequest(fs.readFileSync(path.join(dir, name)), peer));
    await peer.close();
    await unharmed(name);
  }
});

test(`${names.length} messages to an agent of ours`, { skip }, async () => {
  for (const [i, name] of names.entries()) {
    const message = parts(fs.readFileSync(path.join(dir, name)));
    const peer = await openPeer(kamailio.sipPort);
    // its own URI is what some of them are about: the user is put into it
    const first = message.start.replace(/^(\S+\s+)sips?:[^@\s]*@?[^;?>\s]*/i, `$1sip:5001@127.0.0.1:${kamailio.sipPort}`);
    const own = message.headers.find((line) => isOf(line, 'via'));
    const put = own ? [['Via', `SIP/2.0/UDP 127.0.0.1:${peer.port};branch=z9hG4bK-torture-${i}-${process.pid}`]] : [];
    note(name, 'agent', await asRequest(changed(message, { first, put }), peer));
    await peer.close();
    await unharmed(name);
  }
});

/** Answers an INVITE of ours with what `make` gives, and tells what the browser got. */
async function asReply(make) {
  const peer = await openPeer(kamailio.sipPort, { port: await freePort() });
  const over = new Set();
  peer.onRequest((m, repeat) => {
    if (m.method === 'BYE') peer.reply(m, 200);
    if (m.method === 'CANCEL' && !repeat) {
      peer.reply(m, 200);
      const invite = peer.received((r) => r.method === 'INVITE' && r.branch === m.branch)[0];
      if (invite && !over.has(invite)) peer.reply(invite, 487);
    }
  });
  const from = client.received.length;
  const id = client.send('call', { to: to(peer), sdp: fakeOffer(), iceServers: [] });
  const invite = await peer.request('INVITE');
  peer.sendRaw(make(invite));
  const told = () => client.received.slice(from).filter((m) => m.id === id || m.payload.callId);
  const ended = () => told().some((m) => m.type === 'callEnded');
  await settle(() => told().length, ended);
  const what = told().filter((m) => !(m.type === 'callProgress' && m.payload.state === 'trying'))
    .map((m) => (m.type === 'callProgress' ? m.payload.state : m.type === 'error' ? `error ${m.payload.code}` : m.type));
  const reason = told().find((m) => m.type === 'callEnded')?.payload.reason;
  if (!ended()) {
    const { callId } = told()[0].payload;
    await client.request('hangup', { callId, reason: 'user_hangup' }, { ms: 8000 });
    await until(() => ended(), { ms: 8000, what: 'callEnded' });
  }
  await peer.close();
  return `${[...new Set(what)].filter((w) => w !== 'callEnded').join(', ') || 'passed over'}${reason ? ` (${reason})` : ''}`;
}

const ofTransaction = (invite, peerPort, all) => [
  ...invite.headers('Via').map((value) => ['Via', value]),
  ['CSeq', invite.header('CSeq')],
  ...(all ? [
    ['From', invite.header('From')], ['To', `${invite.header('To')};tag=torture`], ['Call-ID', invite.callId],
    ['Contact', `<sip:far@127.0.0.1:${peerPort}>`],
  ] : []),
];

for (const [way, all, what] of [['reply', true, 'all of them of our transaction'], ['stranger', false, 'Via and CSeq of our transaction, the rest its own']]) {
  test(`${names.length} messages as replies to INVITEs of ours, ${what}`, { skip }, async () => {
    for (const name of names) {
      const message = parts(fs.readFileSync(path.join(dir, name)));
      // a request becomes a 200; a reply stays what it is
      const first = /^SIP\//i.test(message.start) ? message.start : 'SIP/2.0 200 OK';
      note(name, way, await asReply((invite) => changed(message, { first, put: ofTransaction(invite, Number(/:(\d+)/.exec(invite.uri.split('@').pop())?.[1] ?? 9), all) })));
      await unharmed(name);
    }
  });
}

test('nothing is left over, and calls go on', { skip }, async (t) => {
  await idle(kamailio, { ms: 60_000 });
  assert.equal(await kamailio.stat('step_failures'), 0);
  const bad = kamailio.log().split('\n').filter((line) => /(CRITICAL|BUG|ALERT): /.test(line));
  assert.deepEqual(bad, []);
  const used = Number((await kamailio.rpc('core.shmmem')).used);
  t.diagnostic(`shm ${shm} to ${used} (${used - shm})`);
  assert.ok(used - shm < 200_000, `shm has grown by ${used - shm}`);
  const bench = new Bench(kamailio);
  const peer = await bench.peer();
  await endCall(client, { ...(await callOut(client, peer)), peer });
  await idle(kamailio);
  await peer.close();
  const cell = (text) => String(text ?? '').replaceAll('|', '\\|');
  const rows = [...table].map(([name, got]) => `| ${[name.replace('.dat', ''), got.asIs, got.agent, got.reply, got.stranger].map(cell).join(' | ')} |`);
  const text = ['| message | as it is | to an agent | as our reply | as a stranger\'s reply |', '|---|---|---|---|---|', ...rows].join('\n');
  console.log(text);
  fs.mkdirSync(path.join(top, 'run'), { recursive: true });
  fs.writeFileSync(path.join(top, 'run/torture.md'), `${text}\n`);
  for (const [name, got] of table) {
    assert.equal(Object.keys(got).length, 4, `${name} was tried in every way`);
    // no failure is told with the status of a success
    for (const way of ['reply', 'stranger']) assert.doesNotMatch(got[way], /error [12]\d\d/, name);
  }
});
