/** Records of calls in a table: one for each, whatever ended it, and none lost while the database is away. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { Bench, callIn, callOut, endCall, hopByNumber, tm, to } from '../sip/support.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-records-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const database = path.join(dir, 'records.sqlite');
const schema = fileURLToPath(new URL('../../kamailio-module/rtc_json-create.sql', import.meta.url));
const sql = (text) => execFileSync('sqlite3', ['-bail', '-json', database], { input: `.timeout 2000\n${text}`, encoding: 'utf8' }).trim();
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
    sql(fs.readFileSync(schema, 'utf8'));
    // few are kept for the API: what waits for the table is kept nevertheless
    kamailio = await startKamailio({
      cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, fr_inv_timer: 5000, wt_timer: 200 }),
      params: { records_url: `sqlite://${database}`, call_history: 2, ring_timeout: 5 },
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

    for (const [status, reason] of [[486, 'user_busy'], [404, 'unallocated_number'], [603, 'call_rejected'], [503, 'service_unavailable']]) {
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
