/** The database, or the TURN server, is away: who is there goes on, who comes is told why not, and nothing is lost. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onExit, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { openTurn, startCoturn } from '../common/coturn.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { startPostgres } from '../common/postgres.mjs';
import { Bench, callOut, endCall, hopByNumber, memoryOf, tm } from '../sip/support.mjs';
import { backAtBaseline, noAlarm, note, resume, spread } from './support.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-away-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const schema = fileURLToPath(new URL('../../kamailio-module/rtc_json-create.sql', import.meta.url));
const kamailioSchema = (name) => fs.readFileSync(`/usr/share/kamailio/postgres/${name}-create.sql`, 'utf8');

describe('the database of users and records', () => {
  const CALLS = 50;
  let postgres;
  let kamailio;
  let bench;
  const recorded = () => postgres.sql('SELECT call_id FROM rtc_json_calls ORDER BY ctid;').split('\n').filter(Boolean);

  before(async () => {
    postgres = await startPostgres();
    const users = ['5001', '5002', '5003'].map((dn) => `('${dn}', '${realm}', '${crypto.createHash('md5').update(`${dn}:${realm}:pw${dn}`).digest('hex')}')`);
    postgres.sql(`${kamailioSchema('standard')}\n${kamailioSchema('auth_db')}\n${fs.readFileSync(schema, 'utf8')}
      INSERT INTO subscriber (username, domain, ha1) VALUES ${users.join(', ')};
      INSERT INTO rtc_json_directory VALUES ('5001', 'Ann Müller', 'agent-17', 'sales,polish');`);
    const cfg = path.join(dir, 'kamailio.cfg');
    fs.writeFileSync(cfg, fs.readFileSync(hopByNumber(), 'utf8').replaceAll('db_sqlite.so', 'db_postgres.so'));
    kamailio = await startKamailio({
      cfg, cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }), users: [], defines: { DB_URL: `"${postgres.url}"` },
      params: { directory_url: postgres.url, records_url: postgres.url, call_rate: 0 },
    });
    bench = new Bench(kamailio, { log: [/records of calls cannot be written|subscriber table|postgres|db_|terminating connection due to immediate shutdown command/] });
  });
  after(async () => { await kamailio?.stop(); postgres?.close(); });

  test('away, and back', { timeout: 180_000 }, async () => {
    const a = await bench.agent('5001');
    const b = await bench.agent('5002');
    const far = await bench.peer();
    const made = [];
    const call = async () => { const one = await callOut(a, far); await endCall(a, one); made.push(one.callId); };
    const through = await callOut(b, far);
    await call();
    await until(() => recorded().length === 1, { ms: 10_000, what: 'the first row' });

    postgres.stop();
    // whoever is there calls and takes calls, and comes back after a lost connection
    for (let i = 0; i < CALLS; i += 1) await call();
    b.terminate();
    const again = await resume(kamailio, '5002', b.registered.session);
    assert.deepEqual(again.registered.calls.map((one) => one.callId), [through.callId]);
    await endCall(again, through);
    made.push(through.callId);
    // whoever comes is told that it is not his password
    const stranger = await bench.client();
    const answer = await stranger.request('register', { dn: '5003', password: 'pw5003' }, { ms: 20_000 });
    assert.deepEqual([answer.type, answer.payload.code], ['registrationFailed', 503], JSON.stringify(answer));
    await until(() => /records of calls cannot be written at the moment; \d+ wait/.test(kamailio.log()), { ms: 15_000, what: 'the operator is told' });
    assert.equal(await kamailio.stat('call_records') - await kamailio.stat('call_records_written'), CALLS + 1);

    postgres.start();
    const since = performance.now();
    await until(async () => (await stranger.request('register', { dn: '5003', password: 'pw5003' }, { ms: 20_000 })).type === 'registered', { ms: 30_000, every: 200, what: 'he can register' });
    note(`somebody new could register ${((performance.now() - since) / 1000).toFixed(1)} s after the database was back`);
    await until(() => recorded().length >= made.length, { ms: 60_000, every: 100, what: 'all rows' });
    note(`${CALLS + 1} records had waited; all were written ${((performance.now() - since) / 1000).toFixed(1)} s after it was back`);
    await call();
    await until(() => recorded().length >= made.length, { ms: 15_000, what: 'the last row' });
    assert.deepEqual(recorded(), made, 'in their order, each once');
    await until(async () => await kamailio.stat('call_records') === await kamailio.stat('call_records_written'), { ms: 10_000, what: 'nothing waits' });
    await again.expect('unregister', {}, 'unregistered');
    await again.close();
    await bench.finish();
    noAlarm(kamailio);
  });
});

describe('the TURN server', () => {
  const secret = crypto.randomBytes(24).toString('hex');
  let coturn;
  let kamailio;
  let bench;
  const turnOf = (registered) => registered.iceServers.find((server) => server.username);
  /** How a browser fares with these credentials; undefined when nobody answers. */
  const allocated = async (server) => {
    const turn = await openTurn(coturn.port);
    try { return (await turn.allocate(server)).code; } catch { return undefined; } finally { turn.close(); }
  };

  /** Memory once nobody is there. */
  const settled = async () => {
    await until(async () => await kamailio.stat('arena_records') === 0 && (await kamailio.rpc('core.tcp_info')).opened_connections <= 1, { ms: 30_000, every: 200, what: 'nobody is connected' });
    return memoryOf(kamailio);
  };

  before(async () => {
    coturn = await startCoturn({ secret });
    kamailio = await startKamailio({
      cfg: hopByNumber(), cfgExtra: tm({ wt_timer: 200 }), params: { turn_secret: secret, turn_uris: `turn:127.0.0.1:${coturn.port}?transport=udp`, call_history: 0 },
    });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); await coturn?.stop(); });

  test('away, and back', { timeout: 120_000 }, async () => {
    const from = await settled();
    const far = await bench.peer();
    const times = { there: [], away: [] };
    const round = async (list) => {
      for (const dn of ['5001', '5002', '5003', '5004', '5005']) {
        const began = performance.now();
        const client = await connect(kamailio.wsUrl);
        client.registered = await client.register(dn);
        const call = await callOut(client, far);
        list.push(performance.now() - began);
        assert.ok(turnOf(client.registered).credential);
        await endCall(client, call);
        await client.expect('unregister', {}, 'unregistered');
        await client.close();
      }
    };
    const a = await bench.agent('5009');
    assert.equal(await allocated(turnOf(a.registered)), 200);
    await round(times.there);
    await coturn.kill();
    assert.equal(await allocated(turnOf(a.registered)), undefined, 'it is away, or this tests nothing');
    await round(times.away);
    note(`to register and call took ${spread(times.there)} with it, ${spread(times.away)} without it`);
    // whoever registered while it was away has credentials that are good when it is back, and so have those of before
    const b = await bench.agent('5010');
    await coturn.start();
    for (const client of [a, b]) assert.equal(await allocated(turnOf(client.registered)), 200);
    await bench.finish();
    backAtBaseline(from, await settled());
    noAlarm(kamailio);
  });
});
