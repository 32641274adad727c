/** Records of calls in a table: one for each, whatever ended it, and none lost while the database is away. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { ask } from '../common/http.mjs';
import { agents, startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp } from '../sip/peer.mjs';
import { Bench, callIn, callOut, endCall, hopByNumber, tm, to } from '../sip/support.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-records-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const database = path.join(dir, 'records.sqlite');
const schema = fileURLToPath(new URL('../../kamailio-module/rtc_json-create.sql', import.meta.url));
const sql = (text) => execFileSync('sqlite3', ['-bail', '-json', database], { input: `.timeout 2000\n${text}`, encoding: 'utf8' }).trim();
const key = newSecret('hs');
const keyFile = path.join(dir, 'keys.json');
fs.writeFileSync(keyFile, JSON.stringify({ keys: [key] }), { mode: 0o600 });
/** @returns {any[]} in the order in which they were written */
const rows = () => JSON.parse(sql('SELECT * FROM rtc_json_calls ORDER BY rowid;') || '[]');

describe('records in SQLite', () => {
  /** @type {import('../common/kamailio.mjs').Kamailio} */
  let kamailio;
  /** @type {Bench} */
  let bench;
  const written = (callIds) => until(() => { const got = rows().map((row) => row.call_id); return callIds.every((id) => got.includes(id)); }, { ms: 8000, what: `${callIds.length} rows` });
  const rowOf = (callId) => { const found = rows().filter((row) => row.call_id === callId); assert.equal(found.length, 1, callId); return found[0]; };

  before(async () => {
    // (with a write-ahead log whoever reads the rows does not keep Kamailio from writing them)
    sql(`PRAGMA journal_mode = WAL;\n${fs.readFileSync(schema, 'utf8')}`);
    // few are kept for the API: what waits for the table is kept nevertheless
    kamailio = await startKamailio({
      cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, fr_inv_timer: 5000, wt_timer: 200 }),
      params: { records_url: `sqlite://${database}`, call_history: 2, ring_timeout: 5, resume_grace: 2, jwt_keys: keyFile },
    });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('a row for each way in which a call ends', async () => {
    const a = await bench.agent('5001');
    const far = await bench.peer();
    const wanted = new Map();

    const answered = await callOut(a, far);
    await sleep(1100);
    await endCall(a, answered);
    wanted.set(answered.callId, { direction: 'out', caller: '5001', callee: to(far), reason: 'normal_clearing', answered: 1, duration: 1 });

    const taken = await callIn(kamailio, a, far, '5001');
    const bye = taken.leg.send('BYE');
    assert.equal((await taken.leg.reply(bye)).status, 200);
    await a.waitFor('callEnded', (p) => p.callId === taken.callId);
    wanted.set(taken.callId, { direction: 'in', callee: '5001', reason: 'normal_clearing', answered: 1, duration: 0 });

    for (const [status, reason] of [[486, 'user_busy'], [404, 'unallocated_number'], [603, 'call_rejected'], [503, 'service_unavailable'], [480, 'no_answer'], [488, 'not_acceptable'], [504, 'timeout'], [500, 'internal_error']]) {
      const id = a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
      const { callId } = await a.waitFor('callProgress', (p, m) => m.id === id);
      far.reply(await far.request('INVITE'), status);
      await a.waitFor('callEnded', (p) => p.callId === callId);
      wanted.set(callId, { direction: 'out', reason, code: status, answered: 0, duration: 0, answer_after: 0 });
    }

    const id = a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    const { callId } = await a.waitFor('callProgress', (p, m) => m.id === id);
    const invite = await far.request('INVITE');
    await sleep(20);
    far.reply(invite, 180);
    await a.waitFor('callProgress', (p) => p.state === 'ringing' && p.callId === callId);
    a.send('hangup', { callId, reason: 'user_hangup' });
    far.reply(await far.request('CANCEL'), 200);
    far.reply(invite, 487);
    await a.waitFor('callEnded', (p) => p.callId === callId);
    wanted.set(callId, { direction: 'out', reason: 'cancelled', answered: 0 });

    const leg = far.leg('5001');
    leg.invite({});
    const ringing = await a.waitFor('incomingCall');
    await a.expect('hangup', { callId: ringing.callId, reason: 'declined' }, 'callEnded');
    leg.ack(await leg.answer());
    wanted.set(ringing.callId, { direction: 'in', callee: '5001', answered: 0, code: 603 });

    await written([...wanted.keys()]);
    for (const [call, fields] of wanted) {
      const row = rowOf(call);
      assert.deepEqual(Object.fromEntries(Object.keys(fields).map((name) => [name, row[name]])), fields, JSON.stringify(row));
      assert.equal(row.dn, '5001');
      assert.ok(row.sip_call_id.length > 8 && Math.abs(Date.parse(row.started) - Date.now()) < 60_000, JSON.stringify(row));
    }
    assert.ok(rowOf(callId).ring_after >= 15);
    assert.equal(rowOf(answered.callId).sip_call_id, answered.leg.callId);
    assert.equal(rows().length, wanted.size);
    assert.equal(await kamailio.stat('call_records_written'), await kamailio.stat('call_records'));
  });

  /** A call of the browser that rings at the far side: { callId, invite }. */
  const ringOut = async (a, far) => {
    const id = a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    const invite = await far.request('INVITE');
    far.reply(invite, 180);
    const { callId } = await a.waitFor('callProgress', (p, m) => m.id === id);
    await a.waitFor('callProgress', (p) => p.state === 'ringing' && p.callId === callId);
    return { callId, invite };
  };
  /** A call of the far side that rings in the browser: { callId, leg }. */
  const ringIn = async (a, far, dn) => {
    const leg = far.leg(dn);
    leg.invite({});
    return { leg, callId: (await a.waitFor('incomingCall')).callId };
  };
  const refused = async (leg, status) => {
    const final = await leg.answer();
    leg.ack(final);
    assert.equal(final.status, status);
  };
  const byed = async (far) => far.reply(await far.request('BYE', 10_000), 200);
  const cancelled = async (leg, headers) => {
    leg.send('CANCEL', { cseq: leg.inviteCseq, branch: leg.inviteBranch, headers });
    await refused(leg, 487);
  };

  /** REFER of the far side; the browser makes its offer. The INVITE that goes out. */
  const referred = async ({ a, far }, { callId, leg }, number) => {
    assert.equal((await leg.request('REFER', { headers: [`Refer-To: <sip:${number}@127.0.0.1>`] })).status, 202);
    far.reply(await leg.incoming('NOTIFY'), 200);
    await a.waitFor('callUpdated', (p) => p.callId === callId && p.answerNeeded);
    await a.expect('answer', { callId, sdp: fakeOffer() }, 'ack');
    return far.waitFor((m) => m.method === 'INVITE' && m.uri.startsWith(`sip:${number}@`), 5000, `INVITE of ${number}`);
  };

  // each: what is in the row, and how it comes to that; gives the callId. A second callId is that of another call with a row of its own
  const ways = {
    'the browser transfers it, at the third try': [{ direction: 'out', reason: 'transferred', answered: 1, transferred_to: '1006',
      transfers: [['blind', '1004', 'failed', 603], ['blind', '1005', 'failed', 486], ['blind', '1006', 'completed', null]] }, async ({ a, far }) => {
      const { callId, leg } = await callOut(a, far);
      let id = a.send('transfer', { callId, to: '1004' });
      far.reply(await leg.incoming('REFER'), 603);
      await a.waitFor('error', (p, m) => m.id === id);
      id = a.send('transfer', { callId, to: '1005' });
      far.reply(await leg.incoming('REFER'), 202);
      await a.waitFor('ack', (p, m) => m.id === id);
      await leg.notify('486 Busy Here', { over: true });
      await a.waitFor('transferProgress', (p) => p.state === 'failed');
      a.send('transfer', { callId, to: '1006' });
      far.reply(await leg.incoming('REFER'), 202);
      await leg.notify('200 OK', { over: true });
      await byed(far);
      return callId;
    }],
    'the browser hangs up before it knows what came of its transfer': [{ reason: 'normal_clearing', transferred_to: '', transfers: [['blind', '1004', 'unknown', null]] }, async ({ a, far }) => {
      const { callId, leg } = await callOut(a, far);
      const id = a.send('transfer', { callId, to: '1004' });
      far.reply(await leg.incoming('REFER'), 202);
      await a.waitFor('ack', (p, m) => m.id === id);
      await endCall(a, { callId, peer: far, leg });
      return callId;
    }],
    'the browser joins it with another call': [{ direction: 'out', reason: 'transferred', answered: 1, transferred_to: 'far', transfers: [['attended', 'far', 'completed', null]] }, async ({ a, far, dn }) => {
      const one = await callOut(a, far);
      const other = await bench.peer();
      const two = await callIn(kamailio, a, other, dn);
      a.send('transfer', { callId: one.callId, withCallId: two.callId });
      far.reply(await one.leg.incoming('REFER'), 202);
      await one.leg.notify('200 OK', { over: true });
      await Promise.all([byed(far), byed(other)]);
      return [one.callId, two.callId, { direction: 'in', caller: 'far', callee: dn, reason: 'transferred', transferred_to: to(far), transfers: [['attended', to(far), 'completed', null]] }];
    }],
    'the far side sends it elsewhere': [{ direction: 'out', reason: 'normal_clearing', answered: 1, transferred_to: '1005', transfers: [['refer', '1004', 'failed', 486], ['refer', '1005', 'completed', null]] }, async ({ a, far }) => {
      const call = await callOut(a, far);
      far.reply(await referred({ a, far }, call, '1004'), 486);
      far.reply(await call.leg.incoming('NOTIFY'), 200);
      await a.waitFor('callUpdated', (p) => p.answerNeeded === false);
      const invite = await referred({ a, far }, call, '1005');
      far.reply(invite, 200, { tag: 'new', body: farSdp({ setup: 'active' }) });
      far.reply(await call.leg.incoming('NOTIFY'), 200);
      await a.waitFor('callUpdated', (p) => p.remote);
      await byed(far);
      await endCall(a, { callId: call.callId, peer: far, leg: far.legOf(invite, 'new') });
      return call.callId;
    }],
    'the far side sends it elsewhere and goes, and nobody is there': [{ direction: 'out', reason: 'normal_clearing', transferred_to: '', transfers: [['refer', '1004', 'failed', 486]] }, async ({ a, far }) => {
      const call = await callOut(a, far);
      const invite = await referred({ a, far }, call, '1004');
      assert.equal((await call.leg.bye()).status, 200);
      far.reply(invite, 486);
      await a.waitFor('callEnded');
      return call.callId;
    }],
    'another takes the place of the far side': [{ direction: 'out', reason: 'normal_clearing', answered: 1, transferred_to: '1009', transfers: [['replaces', '1009', 'completed', null]] }, async ({ a, far, dn }) => {
      const { callId, leg } = await callOut(a, far);
      const taker = far.leg(dn, { local: `<sip:1009@127.0.0.1:${far.port}>` });
      taker.invite({ headers: ['Require: replaces', `Replaces: ${leg.callId};to-tag=${leg.remoteTag};from-tag=${leg.localTag}`] });
      await a.waitFor('callUpdated', (p) => p.answerNeeded);
      await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      taker.ack(await taker.answer());
      await byed(far);
      await endCall(a, { callId, peer: far, leg: taker });
      return callId;
    }],
    'a conference': [{ direction: 'out', reason: 'normal_clearing', transferred_to: 'room', transfers: [['conference', 'room', 'completed', null]] }, async ({ a, far }) => {
      const one = await callOut(a, far);
      const other = await bench.peer();
      const two = await callOut(a, other);
      await a.expect('conference', { callIds: [one.callId, two.callId], room: 'room' }, 'ack');
      await a.waitFor('callUpdated', (p) => p.answerNeeded);
      await a.expect('answer', { callId: one.callId, sdp: fakeOffer() }, 'ack');
      const invite = await far.waitFor((m) => m.method === 'INVITE' && m.uri.startsWith('sip:room@'), 5000, 'INVITE of the room');
      far.reply(invite, 200, { tag: 'room', body: farSdp({ setup: 'active' }) });
      for (const { peer, leg } of [one, two]) {
        peer.reply(await leg.incoming('REFER'), 202, { headers: ['Refer-Sub: false'] });
        await byed(peer);
      }
      await a.waitFor('conferenceUpdated', (p) => p.state === 'active');
      await endCall(a, { callId: one.callId, peer: far, leg: far.legOf(invite, 'room') });
      return [one.callId, two.callId, { reason: 'transferred', transferred_to: 'room', transfers: [['conference', 'room', 'completed', null]] }];
    }],
    'ended by the operator': [{ direction: 'out', reason: 'normal_clearing', answered: 1 }, async ({ a, far }) => {
      const { callId } = await callOut(a, far);
      await kamailio.rpc('rtc_json.hangup', `s:${callId}`);
      await byed(far);
      return callId;
    }],
    'the far side knows nothing of it any more': [{ direction: 'out', reason: 'network_error', code: 481, answered: 1 }, async ({ a, far }) => {
      const { callId, leg } = await callOut(a, far);
      a.send('dtmf', { callId, digit: '1' });
      far.reply(await leg.incoming('INFO'), 481);
      await a.waitFor('callEnded');
      return callId;
    }],
    'the far side does not answer a change': [{ direction: 'out', reason: 'network_error', code: 408, answered: 1 }, async ({ a, far }) => {
      const { callId, leg } = await callOut(a, far);
      a.send('hold', { callId, hold: true });
      await leg.incoming('INVITE');
      await a.waitFor('callEnded', undefined, 8000);
      await byed(far);
      return callId;
    }],
    'the far side answers a change with nonsense': [{ direction: 'out', reason: 'media_error', code: 488, answered: 1 }, async ({ a, far }) => {
      const { callId, leg } = await callOut(a, far);
      a.send('hold', { callId, hold: true });
      far.reply(await leg.incoming('INVITE'), 200, { body: 'v=0\r\nno description\r\n' });
      await byed(far);
      return callId;
    }],
    'the far side never acknowledges the answer': [{ direction: 'in', reason: 'timeout', code: 408, answered: 1 }, async ({ a, far, dn }) => {
      const { callId, leg } = await ringIn(a, far, dn);
      await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      assert.equal((await leg.answer()).status, 200);
      await a.waitFor('callEnded', undefined, 40_000);
      await byed(far);
      return callId;
    }],
    'the caller gives up': [{ direction: 'in', reason: 'cancelled', code: 487, answered: 0 }, async ({ a, far, dn }) => {
      const { callId, leg } = await ringIn(a, far, dn);
      await cancelled(leg, []);
      return callId;
    }],
    'another device answers': [{ direction: 'in', reason: 'answered_elsewhere', code: 487, answered: 0 }, async ({ a, far, dn }) => {
      const { callId, leg } = await ringIn(a, far, dn);
      await cancelled(leg, ['Reason: SIP;cause=200;text="Call completed elsewhere"']);
      return callId;
    }],
    'another browser of the agent answers: one call, one row': [{ direction: 'in', reason: 'normal_clearing', answered: 1 }, async ({ a, far, dn }) => {
      const second = await bench.agent(dn);
      const { callId, leg } = await ringIn(a, far, dn);
      await second.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
      leg.ack(await leg.answer());
      assert.equal((await a.waitFor('callEnded')).reason, 'answered_elsewhere');
      assert.equal((await leg.request('BYE')).status, 200);
      return callId;
    }],
    'the browser is busy': [{ direction: 'in', reason: 'user_busy', code: 486, answered: 0 }, async ({ a, far, dn }) => {
      const { callId, leg } = await ringIn(a, far, dn);
      await a.expect('hangup', { callId, reason: 'busy' }, 'callEnded');
      await refused(leg, 486);
      return callId;
    }],
    'nobody answers': [{ direction: 'in', reason: 'no_answer', code: 480, answered: 0 }, async ({ a, far, dn }) => {
      const { callId, leg } = await ringIn(a, far, dn);
      await a.waitFor('callEnded', undefined, 8000);
      await refused(leg, 480);
      return callId;
    }],
    'the far side does not say a word': [{ direction: 'out', reason: 'network_error', code: 408, answered: 0 }, async ({ a, far }) => {
      const id = a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
      const { callId } = await a.waitFor('callProgress', (p, m) => m.id === id);
      await a.waitFor('callEnded', undefined, 8000);
      return callId;
    }],
    'the answer of the far side is of no use': [{ direction: 'out', reason: 'not_acceptable', code: 488 }, async ({ a, far }) => {
      const { callId, invite } = await ringOut(a, far);
      far.reply(invite, 200, { body: 'v=0\r\nno description\r\n' });
      await byed(far);
      return callId;
    }],
    'the browser logs off': [{ direction: 'out', reason: 'normal_clearing', answered: 1 }, async ({ a, far }) => {
      const { callId } = await callOut(a, far);
      a.send('unregister', {});
      await byed(far);
      return callId;
    }],
    'ended by REST': [{ direction: 'out', reason: 'normal_clearing', answered: 1 }, async ({ a, far, dn }) => {
      const { callId } = await callOut(a, far);
      const token = sign({ ...claims(dn, { ttl: 60 }), scope: 'calls:write:all' }, crypto.createSecretKey(Buffer.from(key.k, 'base64url')), { kid: 'hs' });
      assert.equal((await ask(kamailio.wsPort, 'DELETE', `/api/calls/${callId}`, { token })).status, 204);
      await byed(far);
      return callId;
    }],
    'the browser is gone for good while they speak': [{ direction: 'out', reason: 'session_expired', answered: 1 }, async ({ a, far }) => {
      const { callId } = await callOut(a, far);
      a.terminate();
      await byed(far);
      return callId;
    }],
    'the browser is gone for good while the far side rings': [{ direction: 'out', reason: 'session_expired', answered: 0 }, async ({ a, far }) => {
      const { callId, invite } = await ringOut(a, far);
      a.terminate();
      far.reply(await far.request('CANCEL', 8000), 200);
      far.reply(invite, 487);
      return callId;
    }],
    'the browser is gone for good while it rings': [{ direction: 'in', reason: 'session_expired', answered: 0 }, async ({ a, far, dn }) => {
      const { callId, leg } = await ringIn(a, far, dn);
      a.terminate();
      await refused(leg, 480);
      return callId;
    }],
  };

  /** Does the row of the call say this? */
  const assertRow = (what, callId, fields) => {
    const row = rowOf(callId);
    const all = { transferred_to: '', transfers: [], ...fields };
    const found = { ...row, transfers: JSON.parse(row.transfers || '[]').map((t) => [t.kind, t.to, t.result, t.code]) };
    assert.deepEqual(Object.fromEntries(Object.keys(all).map((name) => [name, found[name]])), all, `${what}: ${JSON.stringify(row)}`);
  };

  test('a row for each end that is not of the two sides alone', async () => {
    const before = rows().length;
    const made = [];
    const left = Object.entries(ways);
    // as many at once as there are agents: some of them wait
    while (left.length) {
      made.push(...await Promise.all(left.splice(0, agents.length).map(async ([what, [fields, run]], i) => {
        const dn = agents[i];
        try {
          const [callId, ...second] = [await run({ dn, a: await bench.agent(dn), far: await bench.peer() })].flat();
          const rest = second.length ? [{ what: `${what}: the other call`, callId: second[0], fields: second[1], dn }] : [];
          return [{ what, fields, dn, callId }, ...rest];
        } catch (error) { throw new Error(`${what}: ${error.message}`, { cause: error }); }
      })).then((all) => all.flat()));
      // the next ones are alone with their numbers
      await bench.finish();
    }
    await written(made.map(({ callId }) => callId));
    for (const { what, fields, callId, dn } of made) assertRow(what, callId, { dn, ...fields });
    assert.equal(rows().length, before + made.length);
  });

  test('while the server empties itself: no row for what does not begin, one for what goes on, also when it ends the server', async () => {
    bench.expectLog(/receive_fd\(\): EOF on/);
    const before = rows().length;
    const a = await bench.agent('5001');
    const far = await bench.peer();
    const call = await callOut(a, far);
    await kamailio.rpc('rtc_json.drain', 'stop');
    await a.waitFor('notice');
    assert.equal((await a.request('call', { to: to(far), sdp: fakeOffer() })).payload.code, 503);
    const leg = far.leg('5001');
    leg.invite({});
    await refused(leg, 503);
    await endCall(a, call);
    await a.expect('unregister', {}, 'unregistered');
    await until(() => !kamailio.pid && kamailio.pids.length === 0, { ms: 15_000, what: 'Kamailio ends by itself' });
    await kamailio.restart();
    await written([call.callId]);
    assertRow('in an emptying server', call.callId, { direction: 'out', reason: 'normal_clearing', answered: 1 });
    assert.equal(rows().length, before + 1);
  });

  test('a restart: what rang ends with it, what was answered goes on', async () => {
    bench.expectLog(/contains old pid/);
    const [a, b, c] = [await bench.agent('5001'), await bench.agent('5002'), await bench.agent('5003')];
    const [rings, spoken, caller] = [await bench.peer(), await bench.peer(), await bench.peer()];
    const out = await ringOut(a, rings);
    const answered = await callOut(b, spoken);
    const incoming = await ringIn(c, caller, '5003');
    await kamailio.restart();
    await written([out.callId, incoming.callId]);
    for (const [callId, direction] of [[out.callId, 'out'], [incoming.callId, 'in']]) {
      assertRow(`unanswered ${direction}`, callId, { direction, reason: 'service_unavailable', code: 503, answered: 0, duration: 0 });
    }
    assert.ok(!rows().some((row) => row.call_id === answered.callId), 'it is not over');
    await answered.leg.request('BYE');
    await written([answered.callId]);
    assertRow('answered', answered.callId, { direction: 'out', dn: '5002', reason: 'normal_clearing', answered: 1 });
  });

  test('no reason that the protocol knows was left out above', () => {
    const file = fileURLToPath(new URL('../../docs/schema/rtc-json.schema.json', import.meta.url));
    const { oneOf } = JSON.parse(fs.readFileSync(file, 'utf8')).$defs['server.callEnded'].properties.payload.properties.reason;
    const reasons = oneOf.map((one) => one.const);
    assert.ok(reasons.length > 10, String(reasons));
    const found = new Set(rows().map((row) => row.reason));
    assert.deepEqual(reasons.filter((reason) => !found.has(reason)), []);
  });

  test('one that the table does not take holds up no others: it is in the log', async () => {
    bench.expectLog(/records of calls cannot be written|the table does not take|sqlite|db_/);
    const a = await bench.agent('5001');
    const far = await bench.peer();
    const other = await bench.peer();
    sql(`CREATE TRIGGER refuse BEFORE INSERT ON rtc_json_calls WHEN NEW.callee = '${to(far)}' BEGIN SELECT RAISE(ABORT, 'not that one'); END;`);
    const refusedOne = await callOut(a, far);
    await endCall(a, refusedOne);
    const next = await callOut(a, other);
    await endCall(a, next);
    await written([next.callId]);
    const found = await until(() => /the table does not take the record of a call, and it goes on without it: (\{.*\})/.exec(kamailio.log()), { ms: 15_000, what: 'the line' });
    assert.equal(JSON.parse(found[1]).callId, refusedOne.callId);
    assert.equal(rows().filter((row) => row.call_id === refusedOne.callId).length, 0);
    // a table that takes none is waited for
    sql(`DROP TRIGGER refuse; CREATE TRIGGER refuse BEFORE INSERT ON rtc_json_calls BEGIN SELECT RAISE(ABORT, 'none'); END;`);
    const made = [];
    for (let i = 0; i < 3; i += 1) { const one = await callOut(a, other); await endCall(a, one); made.push(one.callId); }
    await sleep(7000);
    sql('DROP TRIGGER refuse;');
    await written(made);
    assert.deepEqual(rows().map((row) => row.call_id).slice(-3), made);
    assert.equal(kamailio.log().match(/the table does not take/g).length, 1);
  });

  test('none is lost while the database is away, not even by a restart or a crash', async () => {
    // (the last of them is what a crash leaves behind)
    bench.expectLog(/records of calls cannot be written|sqlite|db_|contains old pid/);
    sql('ALTER TABLE rtc_json_calls RENAME TO away;');
    const far = await bench.peer();
    const made = [];
    const call = async (client) => { const one = await callOut(client, far); await endCall(client, one); made.push(one.callId); };
    let a = await bench.agent('5001');
    for (let i = 0; i < 4; i += 1) await call(a);
    await until(() => /records of calls cannot be written at the moment; \d+ wait/.test(kamailio.log()), { ms: 5000, what: 'the operator is told' });
    a.terminate();
    await kamailio.restart();
    a = await bench.agent('5002');
    for (let i = 0; i < 4; i += 1) await call(a);
    a.terminate();
    await kamailio.kill9();
    await kamailio.start();
    a = await bench.agent('5003');
    for (let i = 0; i < 4; i += 1) await call(a);
    assert.equal(await kamailio.stat('call_records') - await kamailio.stat('call_records_written'), 12);
    sql('ALTER TABLE away RENAME TO rtc_json_calls;');
    await written(made);
    assert.deepEqual(rows().map((row) => row.call_id).slice(-12), made, 'in their order, each once');
    await until(async () => await kamailio.stat('call_records') === await kamailio.stat('call_records_written'), { what: 'nothing waits' });
  });
});

test('a database module that is not there ends the start', async () => {
  const error = await startKamailio({ params: { records_url: 'oracle://x' } }).then(async (k) => { await k.stop(); return undefined; }, (e) => e);
  assert.match(error?.message ?? 'it started', /no database module for records_url/);
});
