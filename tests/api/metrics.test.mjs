/** What Prometheus gets from xhttp_prom, read by Prometheus' own parser. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parser as promql } from '@prometheus-io/lezer-promql';
import yaml from 'yaml';
import { after, afterEach, before, describe, test } from 'node:test';
import { ask } from '../common/http.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { pythonJson } from '../common/python.mjs';
import { Bench, callIn, callOut, endCall, hopByNumber, tm, to } from '../sip/support.mjs';
import { fakeOffer } from '../common/sdp.mjs';

/** Families as the parser of prometheus_client sees them: each with its samples. */
const parse = (text) => pythonJson(`
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
print(json.dumps([[f.name, f.type, [[s.name, s.labels, s.value] for s in f.samples]] for f in families(sys.stdin.read())]))
`, text);

const monitoring = (name) => fs.readFileSync(fileURLToPath(new URL(`../../monitoring/${name}`, import.meta.url)), 'utf8');

/** The metrics and labels that a PromQL expression names, read by Prometheus' own grammar; fails when it is none. */
function namesIn(expression) {
  const metrics = new Set();
  const labels = new Set();
  promql.parse(expression).iterate({
    enter(node) {
      const text = expression.slice(node.from, node.to);
      if (node.type.isError) throw new Error(`no PromQL at ${node.from}, "${expression.slice(node.from)}": ${expression}`);
      if (node.name === 'Identifier') metrics.add(text);
      if (node.name === 'LabelName') labels.add(text);
    },
  });
  return { metrics, labels };
}

/** The queries of the dashboard with Grafana's own variables filled in. @returns {string[]} */
const queriesOf = (dashboard) => dashboard.panels.flatMap((panel) => (panel.targets ?? []).map((target) => target.expr
  .replaceAll('$__rate_interval', '5m').replaceAll(/\$(job|instance)\b/g, '.+')));

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

/** @returns {Promise<[string, string, [string, Record<string, string>, number][]][]>} */
async function scrape() {
  const answer = await ask(kamailio.wsPort, 'GET', '/metrics');
  assert.equal(answer.status, 200, answer.text);
  assert.match(answer.headers['content-type'], /^text\/(plain|html)/);
  return parse(answer.text);
}

/** The value of a sample; undefined if it is not there. */
function valueOf(families, name, labels = {}) {
  for (const [, , samples] of families) {
    for (const [known, has, value] of samples) {
      if (known === name && Object.entries(labels).every(([key, wanted]) => has[key] === wanted)) return value;
    }
  }
  return undefined;
}

describe('metrics', () => {
  before(async () => {
    kamailio = await startKamailio({ cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }), defines: { WITH_METRICS: true } });
    bench = new Bench(kamailio);
  });
  after(async () => { await kamailio?.stop(); });
  afterEach(() => bench.finish());

  test('every statistic of the module, with its value', async () => {
    await bench.agent('5001');
    await bench.agent('5002');
    const families = await scrape();
    const stats = await kamailio.rpcRows('rtc_json.stats');
    const names = Object.keys(Object.assign({}, ...stats));
    assert.ok(names.length >= 20 && names.includes('genesys_up'), names.join());
    for (const name of names) assert.ok(valueOf(families, `kamailio_rtc_json_${name}`) !== undefined, name);
    assert.deepEqual(['agents', 'sessions', 'calls', 'registered'].map((name) => valueOf(families, `kamailio_rtc_json_${name}`)), [2, 2, 0, 2]);
  });

  test('how long calls took to ring and to be answered, and why they ended', async () => {
    const a = await bench.agent('5001');
    const far = await bench.peer();
    // one that is answered in between 200 and 500 ms, one that is busy, one that comes in
    const id = a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    const invite = await far.request('INVITE');
    await new Promise((done) => { setTimeout(done, 60); });
    far.reply(invite, 180);
    await a.waitFor('callProgress', (p) => p.state === 'ringing');
    far.reply(invite, 486);
    await a.waitFor('callEnded', (p, m) => m.id === id || p.reason === 'user_busy');
    await endCall(a, await callOut(a, far));
    await endCall(a, await callIn(kamailio, a, far, '5001'));

    const families = await scrape();
    const ring = (le) => valueOf(families, 'kamailio_call_ring_milliseconds_bucket', { direction: 'out', le });
    const count = valueOf(families, 'kamailio_call_ring_milliseconds_count', { direction: 'out' });
    assert.ok(count >= 1);
    assert.equal(ring('+Inf'), count);
    const values = ['50.000000', '100.000000', '200.000000', '500.000000'].map((le) => ring(le) ?? ring(String(Number(le))));
    assert.ok(values.every((value, i) => value !== undefined && (i === 0 || value >= values[i - 1])), `${values}`);
    assert.ok(values[0] < count, 'the one that rang after 60 ms is in no bucket of 50');
    assert.ok(valueOf(families, 'kamailio_call_ring_milliseconds_sum', { direction: 'out' }) >= 60);
    const ended = (direction, reason) => valueOf(families, 'kamailio_calls_ended', { direction, reason }) ?? valueOf(families, 'kamailio_calls_ended_total', { direction, reason });
    assert.deepEqual([ended('out', 'user_busy'), ended('out', 'normal_clearing'), ended('in', 'normal_clearing')], [1, 1, 1]);
  });

  test('what the dashboard and the alert rules ask for is there', async () => {
    // a call each, so that histograms and counters of both directions have begun
    const a = await bench.agent('5001');
    const far = await bench.peer();
    await endCall(a, await callOut(a, far));
    await endCall(a, await callIn(kamailio, a, far, '5001'));
    const samples = (await scrape()).flatMap(([, , has]) => has);
    // up, job and instance are Prometheus' own
    const exported = new Set(['up', ...samples.map(([name]) => name)]);
    const labels = new Set(['job', 'instance', ...samples.flatMap(([, has]) => Object.keys(has))]);
    assert.ok(!exported.has('kamailio_rtc_json_nonsense'));

    const dashboard = JSON.parse(monitoring('grafana-dashboard.json'));
    const rules = yaml.parse(monitoring('prometheus-rules.yml')).groups.flatMap((group) => group.rules);
    const queries = queriesOf(dashboard);
    assert.ok(queries.length >= 25 && rules.length >= 10, `${queries.length} ${rules.length}`);
    const asked = new Set();
    for (const expression of [...queries, ...rules.map((rule) => rule.expr)]) {
      const named = namesIn(expression);
      assert.ok(named.metrics.size > 0, expression);
      for (const name of named.metrics) { assert.ok(exported.has(name), `${name} in ${expression}`); asked.add(name); }
      for (const name of named.labels) assert.ok(labels.has(name), `label ${name} in ${expression}`);
    }
    for (const variable of dashboard.templating.list.filter((entry) => entry.type === 'query')) {
      const [, metric] = /^label_values\((\w+)/.exec(variable.definition);
      assert.ok(exported.has(metric), variable.definition);
    }
    // and nothing of the module is forgotten on the dashboard
    const shown = new Set(queries.flatMap((query) => [...namesIn(query).metrics]));
    for (const name of exported) if (name.startsWith('kamailio_rtc_json_')) assert.ok(shown.has(name), `${name} is on no panel`);
  });

  test('the alert rules say what is wrong and how bad it is', () => {
    assert.throws(() => namesIn('rate(a[5m) > 1'), /no PromQL/);
    const rules = yaml.parse(monitoring('prometheus-rules.yml')).groups.flatMap((group) => group.rules);
    const schema = fs.readFileSync(fileURLToPath(new URL('../../docs/schema/rtc-json.schema.json', import.meta.url)), 'utf8');
    assert.equal(new Set(rules.map((rule) => rule.alert)).size, rules.length);
    for (const rule of rules) {
      assert.match(rule.alert, /^RtcJson[A-Z][A-Za-z]+$/);
      assert.ok(['critical', 'warning'].includes(rule.labels.severity), rule.alert);
      assert.ok(rule.annotations.summary.includes('$labels.instance') && rule.annotations.description, rule.alert);
      // a reason that the protocol does not know would never match
      for (const [, list] of rule.expr.matchAll(/reason=~"([^"]*)"/g)) for (const word of list.split('|')) assert.ok(schema.includes(`"${word}"`), word);
    }
  });

  test('for one address alone', async () => {
    const own = await startKamailio({ defines: { WITH_METRICS: true, METRICS_IP: '"192.0.2.1"' } });
    try {
      assert.equal((await ask(own.wsPort, 'GET', '/metrics')).status, 403);
    } finally { await own.stop(); }
    const none = await startKamailio();
    try {
      assert.equal((await ask(none.wsPort, 'GET', '/metrics')).status, 404);
    } finally { await none.stop(); }
  });
});
