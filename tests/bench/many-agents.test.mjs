/**
 * What it costs that nodes know each other's agents where these are many and do nothing: processor time a second, a node that joins and is told
 * all of them, memory. Prints `name value` lines. AGENTS (4000 at each of two nodes; the third one joins).
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { sleep, until } from '../common/cleanup.mjs';
import { addAgents, cpuOf, firstAgent, startGenerator, tell } from '../load/support.mjs';
import { allKnown, network, openFarSide, others, startNodes, uncut } from '../nodes/support.mjs';

const agents = Number(process.env.AGENTS ?? 4000);
const offer = new URL('../common/sdp/chromium-offer.sdp', import.meta.url).pathname;
const generators = [];
let nodes = [];
let far;

before(async () => {
  far = await openFarSide();
  nodes = await startNodes(3, far.uri, {
    users: [], debug: 1, cfgExtra: 'tcp_max_connections=100000\ntls_max_connections=100000', shm: 200 + Math.ceil(agents / 8),
    more: { arena_size: 64 + Math.ceil((agents * 2 * 5) / 1000), max_sockets_address: 0, call_rate: 0 },
  });
  for (const [i, node] of nodes.slice(0, 2).entries()) {
    addAgents(node, agents * 2);
    generators.push(await startGenerator({ kind: 'rtc', first: firstAgent + i * agents, offer, agents, url: node.wsUrl, peer: `${network.address}:${24_000 + i}` }));
  }
});
after(async () => {
  for (const generator of generators) await generator.stop();
  await far?.close();
  for (const node of nodes) if (node.pid) await node.stop();
});

const known = async (node) => (await others(node)).reduce((sum, row) => sum + row.records, 0);
/** Microseconds of each process so far, by pid. */
const spent = (node) => new Map(node.pids.map((pid) => [pid, cpuOf([pid])]));
const sum = (values) => [...values].reduce((all, value) => all + value, 0);

test('idle agents, and a node that joins', { skip: uncut }, async () => {
  const [a, b, c] = nodes;
  const wanted = new Map([[a, agents], [b, agents], [c, agents * 2]]);
  for (const node of nodes) await until(async () => await known(node) === wanted.get(node), { ms: 120_000, every: 300, what: 'all are known' });
  tell('arena_kb_of_known_agent', (await c.rpc('rtc_json.stats')).arena_used / 1024 / (agents * 2));
  await sleep(3000);
  const idle = 20;
  const from = nodes.map(spent);
  const wire = nodes.map(({ machine }) => machine.sent[1]);
  await sleep(idle * 1000);
  for (const [i, node] of nodes.entries()) {
    const each = [...spent(node)].map(([pid, us]) => us - (from[i].get(pid) ?? us));
    tell(`idle_cpu_us_a_second_node_${i}`, sum(each) / idle);
    tell(`idle_cpu_us_a_second_busiest_process_${i}`, Math.max(...each) / idle);
    tell(`idle_bytes_a_second_node_${i}`, (node.machine.sent[1] - wire[i]) / idle);
  }
  await c.shutdown();
  fs.rmSync(path.join(c.workdir, 'arena'), { force: true });
  await sleep(6000);
  const before = [a, b].map(spent);
  const joined = performance.now();
  await c.start();
  await until(async () => await known(c) === agents * 2, { ms: 180_000, every: 300, what: 'the new node knows all' });
  tell('join_seconds', (performance.now() - joined) / 1000);
  tell('join_cpu_ms_at_the_new_node', sum([...spent(c).values()]) / 1000);
  for (const [i, node] of [a, b].entries()) tell(`join_cpu_ms_node_${i}`, (sum(spent(node).values()) - sum(before[i].values())) / 1000);
  await allKnown(nodes);
  assert.equal(await known(a), agents);
});
