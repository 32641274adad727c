/** Who the agents are, from a table of a database; ten thousand of them, by pages. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit } from '../common/cleanup.mjs';
import { ask } from '../common/http.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { Bench } from '../sip/support.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-directory-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const keyFile = path.join(dir, 'keys.json');
const jwk = newSecret('hs');
fs.writeFileSync(keyFile, JSON.stringify({ keys: [jwk] }), { mode: 0o600 });
const scope = 'agents:read:all agents:write:all register';
const token = sign(claims('desk', { more: { scope } }), crypto.createSecretKey(Buffer.from(jwk.k, 'base64url')), { kid: 'hs' });

const database = path.join(dir, 'directory.sqlite');
const schema = fileURLToPath(new URL('../../kamailio-module/rtc_json-create.sql', import.meta.url));
const sql = (text) => execFileSync('sqlite3', ['-bail', database], { input: text, encoding: 'utf8' }).trim();

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;
const api = (method, target, options = {}) => ask(kamailio.wsPort, method, target, { token, ...options });
const agent = async (dn) => (await api('GET', `/api/dn/${dn}`)).json;

describe('a directory in SQLite', () => {
  before(async () => {
    sql(`${fs.readFileSync(schema, 'utf8')}
      INSERT INTO rtc_json_directory VALUES ('5001', 'Ann Müller', 'agent-17', 'sales,polish');
      INSERT INTO rtc_json_directory (dn) VALUES ('5002');
      INSERT INTO rtc_json_directory VALUES ('not a number', 'x', 'x', 'x');`);
    kamailio = await startKamailio({ params: { jwt_keys: keyFile, directory_url: `sqlite://${database}`, arena_size: 64 } });
    bench = new Bench(kamailio, { log: [/directory: a dn that cannot be registered is passed over/] });
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('what the table says is shown, of those who are there and of those who are not', async () => {
    assert.deepEqual(await agent('5001'), { dn: '5001', displayName: 'Ann Müller', status: 'offline', genesysAgent: 'agent-17', skills: ['sales', 'polish'] });
    const a = await bench.agent('5001', { displayName: 'Somebody' });
    assert.deepEqual(await agent('5001'), { dn: '5001', displayName: 'Ann Müller', status: 'available', genesysAgent: 'agent-17', skills: ['sales', 'polish'] });
    assert.ok(a.registered);
    assert.deepEqual(await agent('5002'), { dn: '5002', displayName: null, status: 'offline', genesysAgent: null, skills: [] });
    assert.deepEqual((await api('GET', '/api/dn')).json.agents.map((one) => one.dn), ['5001', '5002']);
  });

  test('skills are written to the table, also of one who is not in it', async () => {
    await bench.agent('5003');
    for (const [dn, skills] of [['5001', ['chess']], ['5003', ['golf', "O'Neill; DROP"]], ['5002', ['x']], ['5002', []]]) {
      const answer = await api('PATCH', `/api/dn/${dn}`, { body: { skills } });
      assert.deepEqual([answer.status, answer.json.skills], [200, skills], answer.text);
      assert.equal(sql(`SELECT skills FROM rtc_json_directory WHERE dn = '${dn}';`), skills.join());
    }
    assert.equal(sql("SELECT genesys_agent FROM rtc_json_directory WHERE dn = '5001';"), 'agent-17', 'the rest stays');
    assert.equal((await kamailio.rpc('rtc_json.reload')).agents, 4);
    assert.deepEqual((await agent('5003')).skills, ['golf', "O'Neill; DROP"]);
  });

  test('a change of the table is seen after a reload; who is away stays so', async () => {
    await api('PATCH', '/api/dn/5002', { body: { status: 'away' } });
    sql("UPDATE rtc_json_directory SET display_name = 'Bob' WHERE dn = '5002'; DELETE FROM rtc_json_directory WHERE dn = '5001';");
    assert.equal((await agent('5002')).displayName, null);
    await kamailio.rpc('rtc_json.reload');
    assert.equal((await agent('5002')).displayName, 'Bob');
    assert.equal((await api('GET', '/api/dn/5001')).status, 404);
    await bench.agent('5002');
    assert.equal((await agent('5002')).status, 'away');
    await api('PATCH', '/api/dn/5002', { body: { status: 'available' } });
  });

  test('while the table is gone what was known stays, and nothing is told that was not written', async () => {
    bench.expectLog(/directory|db_sqlite|db_query|sqlite|<core>|db_do|db_/);
    sql('ALTER TABLE rtc_json_directory RENAME TO elsewhere;');
    await assert.rejects(kamailio.rpc('rtc_json.reload'), { code: 500 });
    assert.equal((await agent('5002')).displayName, 'Bob');
    const answer = await api('PATCH', '/api/dn/5002', { body: { skills: ['lost'] } });
    assert.deepEqual([answer.status, answer.headers['retry-after']], [503, '10'], answer.text);
    assert.deepEqual((await agent('5002')).skills, []);
    sql('ALTER TABLE elsewhere RENAME TO rtc_json_directory;');
    assert.equal((await api('PATCH', '/api/dn/5002', { body: { skills: ['found'] } })).status, 200);
    assert.ok((await kamailio.rpc('rtc_json.reload')).agents >= 2);
  });

  /** Milliseconds that Kamailio's processes have computed so far: what others do on the machine is not in it. */
  const computed = () => kamailio.pids.reduce((sum, pid) => sum + Number(fs.readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6, 0);

  test('ten thousand, in pages for which the server computes less than 50 ms (by the clock, others of the machine are in it)', async (t) => {
    const rows = Array.from({ length: 10_000 }, (_, i) => `('${20_000 + i}', 'Agent ${i}', 'g${i}', '${i % 10 ? 'sales' : 'sales,polish'}')`);
    sql(`BEGIN; ${rows.map((row) => `INSERT INTO rtc_json_directory VALUES ${row};`).join('\n')} COMMIT;`);
    const total = (await kamailio.rpc('rtc_json.reload')).agents;
    assert.ok(total > 10_000);
    const times = [];
    const costs = [];
    const page = async (query) => {
      const [from, before] = [performance.now(), computed()];
      const answer = await api('GET', query);
      times.push(performance.now() - from);
      costs.push(computed() - before);
      return answer;
    };
    const seen = [];
    let target = '/api/dn?limit=100&after=2';
    while (target) {
      const { json, headers } = await page(target);
      seen.push(...json.agents.map((one) => one.dn));
      target = /^<(.*)>/.exec(headers.link ?? '')?.[1];
    }
    assert.equal(seen.filter((dn) => dn >= '20000' && dn <= '29999').length, 10_000);
    assert.deepEqual(seen, [...new Set(seen)].sort());
    const spread = (all) => [all.length >> 1, all.length - 1].map((at) => [...all].sort((a, b) => a - b)[at]);
    const [[median, worst], [cost, worstCost]] = [spread(times), spread(costs)];
    const told = `a page of 100 among ${total}: ${median.toFixed(1)} ms in the middle, ${worst.toFixed(1)} ms at worst, of ${times.length}; computed ${cost.toFixed(1)} and ${worstCost.toFixed(1)} ms`;
    t.diagnostic(told);
    assert.ok(worstCost < 50, told);
    // those that look through most of them, or all
    for (const [query, count] of [['skill=polish&limit=500', 500], ['skill=polish&limit=500&after=25000', 499], ['skill=nobody-has-it', 0], ['limit=500&after=2', 500]]) {
      const { json } = await page(`/api/dn?${query}`);
      assert.equal(json.agents.length, count, query);
      t.diagnostic(`${query}: ${times.at(-1).toFixed(1)} ms, computed ${costs.at(-1).toFixed(1)}`);
      assert.ok(costs.at(-1) < 50, `${query}: ${costs.at(-1)} ms`);
    }
    sql("DELETE FROM rtc_json_directory WHERE dn >= '20000' AND dn <= '29999';");
    await kamailio.rpc('rtc_json.reload');
    assert.ok((await api('GET', '/api/dn')).json.agents.length < 10);
  });
});

test('without a directory there is nothing to reload; a wrong one ends the start', async () => {
  const own = await startKamailio();
  try { await assert.rejects(own.rpc('rtc_json.reload'), { code: 400 }); } finally { await own.stop(); }
  for (const [params, reason] of [
    [{ directory_url: `sqlite://${database}`, directory_table: 'nowhere' }, /directory cannot be read from the table nowhere/],
    [{ directory_url: 'oracle://x' }, /no database module for directory_url/],
  ]) {
    const error = await startKamailio({ params }).then(async (k) => { await k.stop(); return undefined; }, (e) => e);
    assert.match(error?.message ?? 'it started', reason);
  }
});
