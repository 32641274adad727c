/**
 * rtc_json, the same Kamailio as SIP-over-WebSocket proxy (without and with a challenge of each call), and Janus with its SIP plugin, at the same work: calls of the same number of
 * browsers by WS (without TLS) to the same SIPp, in turns. node tests/load/peers.mjs
 *
 * From the environment: AGENTS (100 of each), CONCURRENT (40 calls at a time), ROUNDS (5), T (4 seconds of each run), SHM (2048 MB for each
 * Kamailio), MANAGER (of shared and private memory; Kamailio's own: qm; fm, tlsf), DIGEST
 * (1: a proxy that challenges each call, too).
 * The last lines are `name value`.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit, sleep } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { startSipp } from '../common/sipp.mjs';
import { startJanus } from './janus.mjs';
import { addAgents, cpuOf, firstAgent, median, memoryOf, startGenerator, tell, usage } from './support.mjs';

const number = (name, otherwise) => Number(process.env[name] ?? otherwise);
const [agents, concurrent, rounds, seconds] = [number('AGENTS', 100), number('CONCURRENT', 40), number('ROUNDS', 5), number('T', 4)];
const shm = number('SHM', 2048);

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-peers-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const file = (name, text) => { fs.writeFileSync(path.join(dir, name), text); return path.join(dir, name); };
// what our client and JsSIP offered in Chromium (record.mjs)
const recorded = (name) => new URL(`recorded/${name}-offer.sdp`, import.meta.url).pathname;
// Janus has media of its own, which must find no address but that of this machine
const local = file('janus.sdp', fs.readFileSync(recorded('jssip'), 'latin1').replaceAll('192.0.2.10', '127.0.0.1'));

const far = { scenario: 'uas-at-once', calls: 10_000_000, timeout: 3600, trace: false };
const sipp = await startSipp(far);
// Janus has the sound in its hands, so it wants plain RTP toward the far side
const plain = await startSipp({ ...far, keys: { profile: 'RTP/AVP' } });

async function sipWs(defines = {}) {
  const workdir = fs.mkdtempSync(path.join(dir, 'sip-ws-'));
  const database = path.join(workdir, 'kamailio.sqlite');
  const kamailio = await startKamailio({
    workers: 2, shm, workdir, mode: 'upstream', nextHop: sipp.uri, users: [], debug: 1, defines: { DB_URL: `"sqlite://${database}"`, ...defines },
    cfg: new URL('sip-ws.cfg', import.meta.url).pathname,
  });
  addAgents(kamailio, agents);
  return { server: kamailio, options: { kind: 'sip', url: kamailio.wsUrl, offer: recorded('jssip') } };
}

const servers = {
  rtc_json: async () => {
    const kamailio = await startKamailio({ workers: 2, shm, nextHop: sipp.uri, users: [], debug: 1, defines: { WITHOUT_TLS: true }, params: { call_rate: 0 } });
    addAgents(kamailio, agents);
    return { server: kamailio, options: { kind: 'rtc', url: kamailio.wsUrl, offer: recorded('client') } };
  },
  sip_ws: () => sipWs(),
  // each call challenged, and the password looked up
  ...(process.env.DIGEST ? { sip_ws_digest: () => sipWs({ WITH_DIGEST: true }) } : {}),
  janus: async () => {
    const janus = await startJanus();
    return { server: janus, options: { kind: 'janus', url: janus.url, offer: local, to: `9{n}@127.0.0.1:${plain.port}` } };
  },
};

/** kB: all that its processes hold; of Kamailio also what is used of its shared memory, where what was used before is used again. */
async function held(server) {
  const { shm: shared = NaN, arena = NaN } = server.rpc ? await usage(server) : {};
  return { memory: memoryOf(server.pids), shm: shared, arena };
}
const alive = (server) => server.pids.every((pid) => fs.existsSync(`/proc/${pid}`));
const each = (after, before) => Object.fromEntries(Object.keys(after).map((key) => [key, (after[key] - before[key]) / agents]));

const places = {};
let failed = 0;
try {
  for (const [name, start] of Object.entries(servers)) {
    const { server, options } = await start();
    const place = { name, server, busy: [], calm: [] };
    places[name] = place;
    const before = await held(server);
    place.generator = await startGenerator({ ...options, agents, first: firstAgent });
    await sleep(1000);
    console.log(`${name}: ${agents} agents`);
    place.idle = each(await held(server), before);
    await place.generator.run({ concurrent, seconds: 1 });
  }
  // a call that is up: what all of them hold, over what was held without
  for (const place of Object.values(places)) {
    await sleep(2000);
    const before = await held(place.server);
    const running = place.generator.run({ concurrent: agents, rate: agents, talk: 5000, seconds: 1 });
    await sleep(4000);
    place.call = each(await held(place.server), before);
    await running;
  }
  for (let round = 0; round < rounds; round += 1) {
    const order = Object.values(places);
    if (round % 2) order.reverse();
    for (const place of order) {
      if (place.gone) continue;
      const before = cpuOf(place.server.pids);
      const busy = await place.generator.run({ concurrent, seconds });
      // Debian's Janus crashes now and then: what it did before counts
      if (place.name === 'janus' && place.busy.length > 0 && !alive(place.server)) {
        place.gone = true;
        console.log(`janus has ended by itself in round ${round + 1}`);
        continue;
      }
      console.log(`${place.name}: ${Math.round((cpuOf(place.server.pids) - before) / busy.good)} us a call, ${Math.round(busy.rate)} calls/s ${JSON.stringify(busy.failed)}`);
      place.busy.push({ ...busy, cpu: (cpuOf(place.server.pids) - before) / busy.good });
      await sleep(1500);
      place.calm.push(await place.generator.run({ rate: 50, concurrent, seconds }));
    }
  }
} finally {
  for (const place of Object.values(places)) {
    await place.generator?.stop();
    await place.server.stop();
  }
  await sipp.stop();
  await plain.stop();
}

const kb = (values, per) => Object.fromEntries(Object.entries(values).filter(([, value]) => !Number.isNaN(value)).map(([key, value]) => [`${key}_kb_per_${per}`, value]));
/** @type {Record<string, Record<string, number>>} */
const results = {};
for (const [name, place] of Object.entries(places)) {
  const of = (key) => median(place.busy.map((run) => run[key]));
  // (a run without a good call has no times)
  const calm = place.calm.filter((run) => run.setup_us);
  failed += [...place.busy, ...place.calm].reduce((sum, run) => sum + run.calls - run.good, 0);
  for (const run of [...place.busy, ...place.calm]) if (run.calls !== run.good) console.log(`${name} failed: ${JSON.stringify(run.failed)}`);
  results[name] = {
    cpu_us_per_call: of('cpu'),
    calls_per_second: of('rate'),
    frames_out: of('frames_out'),
    frames_in: of('frames_in'),
    bytes_out: of('bytes_out'),
    bytes_in: of('bytes_in'),
    bytes: of('bytes_out') + of('bytes_in'),
    ...kb(place.idle, 'idle_agent'),
    ...kb(place.call, 'call'),
    setup_ms_p50: median(calm.map((run) => run.setup_us.p50)) / 1000,
    setup_ms_p99: median(calm.map((run) => run.setup_us.p99)) / 1000,
  };
  console.log(`${name}: ${JSON.stringify(Object.fromEntries(Object.entries(results[name]).map(([key, value]) => [key, Number(value.toFixed(2))])))}`);
  console.log(`${name} cpu_us_per_call of each run: ${place.busy.map((run) => Math.round(run.cpu)).join(' ')}`);
}
for (const [name, values] of Object.entries(results)) for (const [key, value] of Object.entries(values)) tell(`${name}_${key}`, value);
const ratio = (key, other) => results.rtc_json[key] / results[other][key];
tell('calls_failed', failed);
for (const other of Object.keys(results).slice(1)) {
  tell(`cpu_ratio_${other}`, ratio('cpu_us_per_call', other));
  tell(`bytes_ratio_${other}`, ratio('bytes', other));
  tell(`rate_ratio_${other}`, ratio('calls_per_second', other));
  tell(`setup_p50_ratio_${other}`, ratio('setup_ms_p50', other));
}
process.exit(failed ? 1 : 0);
