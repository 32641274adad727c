/** What Prometheus gets from xhttp_prom, read by Prometheus' own parser. */
import assert from 'node:assert/strict';
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
