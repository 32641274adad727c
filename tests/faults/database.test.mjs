/** The database is away for more than a minute while calls come and go: nobody notices, and no record of a call is lost. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { startPostgres } from '../common/postgres.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { Bench, hopByNumber, tm, to } from '../sip/support.mjs';
import { Callee, noAlarm, note, spread } from './support.mjs';

const AWAY = 65_000;
const dns = Array.from({ length: 10 }, (_, i) => String(5401 + i));
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-away-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));

/** @type {Awaited<ReturnType<typeof startPostgres>>} */
let database;
/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;

before(async () => {
  database = await startPostgres();
  database.sql(fs.readFileSync(fileURLToPath(new URL('../../kamailio-module/rtc_json-create.sql', import.meta.url)), 'utf8'));
  // users stay in SQLite: it is the records' database that goes away
  const cfg = path.join(dir, 'kamailio.cfg');
  fs.writeFileSync(cfg, fs.readFileSync(hopByNumber(), 'utf8').replace('loadmodule "rtc_json.so"', 'loadmodule "db_postgres.so"\nloadmodule "rtc_json.so"'));
  kamailio = await startKamailio({
    cfg, users: dns, shm: 512, cfgExtra: tm({ wt_timer: 200 }),
    // few are kept for the API: what waits for the table is kept all the same
    params: { records_url: database.url, call_history: 5 },
  });
});
after(async () => { await kamailio?.stop(); database?.close(); });

test(`the database of records is away for ${AWAY / 1000} s: calls go on, all their records are written afterwards, each once`, async () => {
  const bench = new Bench(kamailio, { log: [/./] });
  const far = new Callee(await bench.peer());
  const clients = await Promise.all(dns.map((dn) => bench.agent(dn)));
  const made = [];
  const times = [];
  let running = true;
  let failed;
  const busy = Promise.all(clients.map(async (client) => {
    while (running) {
      const began = performance.now();
      const { callId } = await client.expect('call', { to: to(far.peer), sdp: fakeOffer() }, 'callAccepted', { ms: 10_000 });
      times.push(performance.now() - began);
      await client.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded', { ms: 10_000 });
      made.push(callId);
      await sleep(500);
    }
  })).catch((error) => { failed = error; });
  const recorded = () => database.sql('SELECT call_id FROM rtc_json_calls ORDER BY ctid;').split('\n').filter(Boolean);
  const stats = async () => [await kamailio.stat('call_records'), await kamailio.stat('call_records_written')];
  await until(() => failed || recorded().length > 5, { ms: 20_000, what: 'the first rows' });

  database.stop();
  const from = await stats();
  const end = Date.now() + AWAY;
  while (Date.now() < end && !failed) await sleep(1000);
  if (failed) throw failed;
  const [ended, written] = await stats();
  assert.ok(ended - from[0] > 100, `${ended - from[0]} calls ended meanwhile`);
  // (the one that was being written when the server went may be counted or not)
  assert.ok(written <= from[1] + 1, 'none of them was written');
  const log = kamailio.log();
  const told = log.match(/records of calls cannot be written at the moment; \d+ wait/g) ?? [];
  assert.ok(told.length >= 1 && told.length <= 3, `told ${told.length} times, not with every record`);

  database.start();
  running = false;
  await busy;
  if (failed) throw failed;
  const back = performance.now();
  await until(() => recorded().length >= made.length, { ms: 60_000, every: 200, what: 'all rows' });
  note(`${ended - from[0]} calls ended while the database was away; all ${made.length} rows were there ${((performance.now() - back) / 1000).toFixed(1)} s after it was back; set-up of a call meanwhile ${spread(times)}`);
  const rows = recorded();
  assert.deepEqual([...rows].sort(), [...made].sort(), 'each once');
  await until(async () => { const [all, done] = await stats(); return all === done && all === made.length; }, { what: 'nothing waits' });
  await until(() => far.live.length === 0, { ms: 20_000, what: 'no call is left on the far side' });
  await bench.finish();
  // what waited is not kept for ever
  await until(async () => await kamailio.stat('arena_records') <= 5 + dns.length, { ms: 20_000, what: 'the arena is small again' });
  noAlarm(kamailio);
});
