/**
 * Many agents by WSS, most of them idle, and calls among them: node tests/load/load.mjs
 *
 * Prints `name value` lines, and fails when an aim is missed. From the environment: AGENTS (5000), RATE (100 calls a second), CONCURRENT
 * (1000 calls at a time), T (60 seconds), MANAGER (of shared and private memory; Kamailio's own: qm; fm), FEW and MANY (100 and 20000: agents between which the cost of a call is compared, by WS).
 * In the delay there is what the generator itself takes for it, on the same processors.
 */
import fs from 'node:fs';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { certificateFiles } from '../common/certificate.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { addAgents, cpuOf, firstAgent, median, startGenerator, tell, usage } from './support.mjs';

const number = (name, otherwise) => Number(process.env[name] ?? otherwise);
const [agents, rate, concurrent, seconds] = [number('AGENTS', 5000), number('RATE', 100), number('CONCURRENT', 1000), number('T', 60)];
// a connection is an open file of Kamailio's main TCP process, and of the generator
const files = Number(/^Max open files +\d+ +(\d+)/m.exec(fs.readFileSync('/proc/self/limits', 'latin1'))?.[1]);
const [few, many] = [number('FEW', 100), Math.min(number('MANY', 20_000), files - 300)];
const aims = { delay: 10_000, success: 0.9999, cost: 1.1, growth: 1.02 };
// a call is in tm for so long after its INVITE was answered: what it holds then is no leak
const tmKeeps = 35_000;
// an agent's record holds what came of his last 16 requests, two for each call
const callsUntilFull = 9;
// an agent and his connection are two entries of the arena's index, which grows with its size
const perArenaMegabyte = 512;

const missed = [];
const aim = (met, what) => { if (!met) missed.push(what); };
const offer = new URL('../common/sdp/chromium-offer.sdp', import.meta.url).pathname;
const connectionMax = (text, connections) => text.replace(/_max_connections=\d+/g, `_max_connections=${connections}`);

/** The example with room for so many, as the operators' guide has it: one TCP process where there is TLS. */
async function start({ connections, shm, workers = 4, defines = {} }) {
  const cfg = `${fs.mkdtempSync('/tmp/rtc-json-load-')}/kamailio.cfg`;
  onExit(() => fs.rmSync(cfg.replace('/kamailio.cfg', ''), { recursive: true, force: true }));
  fs.writeFileSync(cfg, connectionMax(fs.readFileSync(new URL('../../kamailio.cfg.example', import.meta.url), 'utf8'), connections + 100));
  const peer = `127.0.0.1:${await freePort()}`;
  const kamailio = await startKamailio({ cfg, workers, shm, nextHop: `sip:${peer}`, users: [], debug: 1, defines, params: { call_history: 100, call_rate: 0, arena_size: Math.ceil(connections / perArenaMegabyte) + 64 } });
  addAgents(kamailio, connections);
  return { kamailio, common: { kind: 'rtc', first: firstAgent, offer, peer } };
}

/** The middle of the first and of the last third of what was sampled. */
const ends = (samples, key) => [samples.slice(0, Math.ceil(samples.length / 3)), samples.slice(-Math.ceil(samples.length / 3))].map((part) => median(part.map((s) => s[key])));

async function idleAndCalls() {
  const { certFile } = certificateFiles();
  const { kamailio, common } = await start({ connections: agents, shm: Math.ceil(agents * 0.17 + rate * 3 + 300) });
  try {
    const before = await usage(kamailio);
    const started = performance.now();
    const generator = await startGenerator({ ...common, agents, url: kamailio.wssUrl, certificate: certFile });
    tell('agents', agents);
    tell('sign_in_per_second', agents / ((performance.now() - started) / 1000));
    const idle = await usage(kamailio);
    tell('rss_kb_per_idle_agent', (idle.rss - before.rss) / agents);
    tell('shm_kb_per_idle_agent', (idle.shm - before.shm) / agents);
    tell('arena_kb_per_idle_agent', (idle.arena - before.arena) / agents);

    // long enough that in most of the run `concurrent` calls are there
    const talk = Math.floor((concurrent / rate) * 1000 * 0.98);
    const settled = Math.max(callsUntilFull * talk, tmKeeps);
    const samples = [];
    let running = true;
    const from = performance.now();
    const sampling = (async () => {
      while (running) {
        await sleep(Math.min(2000, seconds * 50));
        // all calls are there and tm is full: from then on nothing may grow
        if (running && performance.now() - from > Math.min(settled, seconds * 500) && performance.now() - from < seconds * 1000) samples.push(await usage(kamailio));
      }
    })();
    const cpu = cpuOf(kamailio.pids);
    const result = await generator.run({ rate, concurrent, talk, seconds });
    const spent = cpuOf(kamailio.pids) - cpu;
    running = false;
    await sampling;
    tell('calls', result.calls);
    tell('calls_per_second', result.calls / seconds);
    tell('most_calls_at_once', result.most_at_once);
    tell('cpu_us_per_call', spent / result.good);
    const success = result.good / result.calls;
    tell('success', success.toFixed(6));
    for (const [why, count] of Object.entries(result.failed)) console.log(`failed ${count}: ${why}`);
    for (const [name, us] of Object.entries(result.added_us ?? {})) tell(`added_delay_ms_${name}`, us / 1000);
    aim(result.calls >= rate * seconds * 0.99, `${result.calls} calls in ${seconds} s`);
    aim(success >= aims.success, `success ${success}`);
    aim(result.added_us?.p99 <= aims.delay, `added delay p99 ${result.added_us?.p99} us`);
    aim(result.connections_lost === 0, `${result.connections_lost} connections were lost`);
    for (const key of ['rss', 'shm', 'arena']) {
      const [first, last] = ends(samples, key);
      tell(`${key}_kb_first`, first);
      tell(`${key}_kb_last`, last);
      // shorter runs end before everything is there that will be
      if (seconds * 1000 >= 2 * settled) aim(last <= first * aims.growth, `${key} grows: ${first} to ${last} kB`);
    }
    for (const line of kamailio.warnings().slice(0, 10)) console.log(line);
    const left = await until(async () => (await usage(kamailio)).calls === 0, { ms: 10_000, every: 500, what: 'all calls are over' }).catch(() => false);
    aim(left, 'calls are left over');
    await generator.stop();
  } finally {
    // up to exit_timeout, when SIGTERM caught a process in the middle of shared memory
    const ending = performance.now();
    await kamailio.stop(60_000);
    tell('seconds_to_end', (performance.now() - ending) / 1000);
  }
}

/** Cost of a call with few and with many agents, by WS: runs in turns, on two servers that are there all the time. */
async function costByAgents() {
  const places = [];
  try {
    for (const count of [few, many]) {
      const place = await start({ connections: count, shm: Math.ceil(count * 0.11 + 500), workers: 2, defines: { WITHOUT_TLS: true } });
      places.push(place);
      place.costs = [];
      place.generator = await startGenerator({ ...place.common, agents: count, url: place.kamailio.wsUrl });
      place.shm = (await usage(place.kamailio)).shm;
      await place.generator.run({ rate: 100, concurrent: 50, seconds: 2 });
    }
    for (let round = 0; round < 5; round += 1) {
      for (const place of round % 2 ? [...places].reverse() : places) {
        // what they cost without any call (timers, pings) is not a cost of calls
        const idleFrom = cpuOf(place.kamailio.pids);
        await sleep(4000);
        const idle = cpuOf(place.kamailio.pids) - idleFrom;
        const before = cpuOf(place.kamailio.pids);
        const result = await place.generator.run({ rate: 300, concurrent: 50, seconds: 4 });
        place.costs.push((cpuOf(place.kamailio.pids) - before - idle * (result.seconds / 4)) / result.good);
        aim(result.good === result.calls, `calls failed beside ${place === places[0] ? few : many} agents: ${JSON.stringify(result.failed)}`);
      }
    }
    const [low, high] = places.map((place) => median(place.costs));
    tell('few_agents', few);
    tell('many_agents', many);
    tell('many_agents_shm_kb', places[1].shm);
    tell('cpu_us_per_call_few_agents', low);
    tell('cpu_us_per_call_many_agents', high);
    tell('cpu_ratio_many_agents', high / low);
    aim(high / low <= aims.cost, `a call costs ${(high / low).toFixed(3)} times as much with ${many} agents`);
  } catch (error) {
    for (const place of places) for (const line of place.kamailio.warnings().slice(0, 10)) console.log(line);
    throw error;
  } finally {
    for (const place of places) {
      await place.generator?.stop();
      await place.kamailio.stop();
    }
  }
}

await idleAndCalls();
if (many > 0) await costByAgents();
for (const what of missed) console.error(`aim missed: ${what}`);
tell('aims_missed', missed.length);
process.exit(missed.length ? 1 : 0);
