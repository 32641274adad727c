/** PostgreSQL and MySQL (MariaDB) for all that is kept in a database: who may register, who the agents are, the records of calls. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { ask } from '../common/http.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { startMariadb } from '../common/mariadb.mjs';
import { startPostgres } from '../common/postgres.mjs';
import { fakeAnswer } from '../common/sdp.mjs';
import { Bench, callOut, callsBecome, endCall, hopByNumber, tm } from '../sip/support.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-databases-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const keyFile = path.join(dir, 'keys.json');
const jwk = newSecret('hs');
fs.writeFileSync(keyFile, JSON.stringify({ keys: [jwk] }), { mode: 0o600 });
const token = sign(claims('desk', { more: { scope: 'agents:read:all agents:write:all' } }), crypto.createSecretKey(Buffer.from(jwk.k, 'base64url')), { kid: 'hs' });
const schema = fileURLToPath(new URL('../../kamailio-module/rtc_json-create.sql', import.meta.url));

/** Each with its switch of the example, the folder of Kamailio's own tables, what orders rows as they were written, and what the log may say of its absence. */
const kinds = [
  { name: 'PostgreSQL', open: startPostgres, define: 'WITH_POSTGRES', folder: 'postgres', order: 'ctid', gone: /postgres|db_|terminating connection due to immediate shutdown command/ },
  { name: 'MySQL', open: startMariadb, define: 'WITH_MYSQL', folder: 'mysql', order: 'started', gone: /mysql|db_/ },
];

for (const { name, open, define, folder, order, gone } of kinds) describe(`everything in ${name}`, () => {
  /** @type {Awaited<ReturnType<typeof startPostgres | typeof startMariadb>>} */
  let server;
  /** @type {import('../common/kamailio.mjs').Kamailio} */
  let kamailio;
  /** @type {Bench} */
  let bench;
  const api = (method, target, options = {}) => ask(kamailio.wsPort, method, target, { token, ...options });
  const recorded = () => server.sql(`SELECT call_id FROM rtc_json_calls ORDER BY ${order};`).split('\n').filter(Boolean);

  before(async () => {
    server = await open();
    const kamailioSchema = (table) => fs.readFileSync(`/usr/share/kamailio/${folder}/${table}-create.sql`, 'utf8');
    const ha1 = crypto.createHash('md5').update(`5001:${realm}:pw5001`).digest('hex');
    server.sql(`${kamailioSchema('standard')}\n${kamailioSchema('auth_db')}\n${fs.readFileSync(schema, 'utf8')}
      INSERT INTO subscriber (username, domain, ha1) VALUES ('5001', '${realm}', '${ha1}');
      INSERT INTO rtc_json_directory VALUES ('5001', 'Ann Müller', 'agent-17', 'sales,polish');`);
    kamailio = await startKamailio({
      cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, fr_inv_timer: 5000, wt_timer: 200 }), users: [],
      defines: { [define]: true, DB_URL: `"${server.url}"` },
      params: { jwt_keys: keyFile, directory_url: server.url, records_url: server.url },
    });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); await server?.close(); });
  afterEach(() => bench.finish());

  test('an agent registers with his password, and the directory says who he is', async () => {
    await bench.agent('5001');
    const shown = { dn: '5001', displayName: 'Ann Müller', status: 'available', genesysAgent: 'agent-17', skills: ['sales', 'polish'] };
    assert.deepEqual((await api('GET', '/api/dn/5001')).json, shown);
    await assert.rejects(bench.agent('5002'), 'who is not in the table does not register');
    const answer = await api('PATCH', '/api/dn/5001', { body: { skills: ["O'Neill", 'chess'] } });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(server.sql("SELECT skills FROM rtc_json_directory WHERE dn = '5001';"), "O'Neill,chess");
  });

  test('calls that end while the server is away are recorded afterwards, each once', async () => {
    bench.expectLog(/records of calls cannot be written/, gone);
    const a = await bench.agent('5001');
    const far = await bench.peer();
    const made = [];
    const call = async () => { const one = await callOut(a, far); await endCall(a, one); made.push(one.callId); };
    await call();
    await until(() => recorded().length === 1, { ms: 8000, what: 'the first row' });
    await server.stop();
    for (let i = 0; i < 4; i += 1) await call();
    await until(() => /records of calls cannot be written at the moment; \d+ wait/.test(kamailio.log()), { ms: 8000, what: 'the operator is told' });
    await sleep(1000);
    assert.equal(await kamailio.stat('call_records') - await kamailio.stat('call_records_written'), 4);
    await server.start();
    await call();
    await until(() => recorded().length >= made.length, { ms: 15_000, what: 'all rows' });
    await until(async () => await kamailio.stat('call_records') === await kamailio.stat('call_records_written'), { what: 'nothing waits' });
    assert.deepEqual(recorded(), made, 'in their order, each once');
    assert.equal(await kamailio.stat('call_records'), made.length);
  });

  test('a call with a transfer: the columns hold all of it, texts with any letters too', async () => {
    const a = await bench.agent('5001');
    const far = await bench.peer();
    // the connections of the other processes were lost with the server
    bench.expectLog(gone);
    const leg = far.leg('5001', { local: `"Jürgen" <sip:j%C3%BCrgen%27s@127.0.0.1:${far.port}>` });
    leg.invite({});
    const { callId } = await a.waitFor('incomingCall');
    await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    leg.ack(await leg.answer());
    await callsBecome(kamailio, (rows) => rows.find((row) => row.callId === callId)?.state === 'established');
    a.send('transfer', { callId, to: '1004' });
    far.reply(await leg.incoming('REFER'), 202, { headers: ['Refer-Sub: false'] });
    far.reply(await leg.incoming('BYE'), 200);
    await a.waitFor('callEnded');
    await until(() => recorded().includes(callId), { ms: 8000, what: 'the row' });
    const row = (column) => server.sql(`SELECT ${column} FROM rtc_json_calls WHERE call_id = '${callId}';`);
    assert.deepEqual(['caller', 'callee', 'reason', 'transferred_to'].map(row), ["jürgen's", '5001', 'transferred', '1004']);
    const [transfer] = JSON.parse(row('transfers'));
    assert.deepEqual([transfer.kind, transfer.to, transfer.result, transfer.sipCallId], ['blind', '1004', 'completed', leg.callId]);
  });
});
