/**
 * A model of many nodes: how many a number of agents needs, what goes between them, and how long it takes until all are back when one
 * node is gone. `node tests/load/nodes-model.mjs`, with other figures by `name=value`: `agents=50000 calls=6 cores=4`.
 *
 * Nodes that know each other's agents form a group: each tells every other one of its group of each change. So a large number of agents is
 * several groups, which know nothing of each other. The figures of one node come from `make load` and `make bench-nodes`; the machines of
 * those had two cores that others worked on heavily at the same time (a call alone took 260 to 360 us when they were quieter), so yours will need less.
 */
import { fileURLToPath } from 'node:url';

/** What one node needs, as measured, and what is assumed of agents and machines. */
export const measured = {
  /** Microseconds of processor time: of a call where its agent is, and of a call at another node of the group. */
  callCpu: 1100, toldCpu: 185,
  /** Of an agent with a call that is taken over, and of signing in by TLS. */
  takeoverCpu: 1100, tlsCpu: 4000,
  /** Bytes that go to each other node for a call, and every second for each agent that does nothing. */
  callBytes: 6000, idleBytes: 5,
  /** kB of shared memory of a browser by WSS, kB of the arena of an agent on average. */
  browserKb: 149, recordKb: 1.5,
};
export const assumed = {
  agents: 1_000_000,
  /** Calls of an agent in an hour, and how many of them may begin in the busiest second beside the mean. */
  calls: 10, peak: 1.5,
  /** Of a machine: cores, GB of memory for Kamailio, share of the cores that may be used while all nodes are there. */
  cores: 8, memory: 64, share: 0.5,
  /** Files of Kamailio's main TCP process: one for each browser. */
  files: 100_000,
};

/**
 * Groups of `size` nodes. One node of a group may be gone: the others must hold its agents.
 * @param {number} size
 * @param {typeof measured & typeof assumed} f
 */
export function model(size, f) {
  // calls of one agent in a second, at the peak
  const rate = (f.calls / 3600) * f.peak;
  const held = size > 1 ? size / (size - 1) : 1;
  // where one is gone there is one less to tell, and more to do
  const cpuOfAgent = rate * (f.callCpu + f.toldCpu * (size - 1));
  const byCpu = (f.cores * f.share * 1e6) / cpuOfAgent;
  // an agent's record is at every node of the group
  const byMemory = (f.memory * 1e6) / (held * f.browserKb + size * f.recordKb);
  const byFiles = f.files / held;
  const perNode = Math.floor(Math.min(byCpu, byMemory, byFiles));
  const groups = Math.ceil(f.agents / (perNode * size));
  const agentsOfNode = Math.ceil(f.agents / (groups * size));
  const bytes = agentsOfNode * (rate * f.callBytes + f.idleBytes) * (size - 1);
  // the share that is left, on all that are left
  const left = size > 1 ? (size - 1) * f.cores * (1 - (agentsOfNode * cpuOfAgent) / (f.cores * 1e6)) : f.cores;
  return {
    size,
    limit: perNode === Math.floor(byFiles) ? 'files' : perNode === Math.floor(byMemory) ? 'memory' : 'processor',
    groups,
    nodes: groups * size,
    agentsOfNode,
    megabitsOut: (bytes * 8) / 1e6,
    cpu: (agentsOfNode * cpuOfAgent) / (f.cores * 1e6),
    // TLS is the work of one process of each node (docs/operators-guide.md)
    stormSeconds: Math.max((agentsOfNode * (f.takeoverCpu + f.tlsCpu)) / left, (agentsOfNode * f.tlsCpu) / Math.max(size - 1, 1)) / 1e6,
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const given = Object.fromEntries(process.argv.slice(2).map((text) => text.split('=')).map(([name, value]) => [name, Number(value)]));
  const figures = { ...measured, ...assumed, ...given };
  const unknown = Object.keys(given).filter((name) => !(name in measured) && !(name in assumed));
  if (unknown.length || Object.values(given).some((value) => !(value > 0))) {
    console.error(`usage: node tests/load/nodes-model.mjs [${Object.keys({ ...measured, ...assumed }).map((name) => `${name}=…`).join(' ')}]`);
    process.exit(2);
  }
  console.log(`${figures.agents} agents, ${figures.calls} calls an hour each; ${figures.cores} cores and ${figures.memory} GB a node\n`);
  console.log('nodes in a group | groups | nodes | agents of a node | limit | processor | Mbit/s out | seconds until all are back');
  for (const size of [1, 2, 3, 4, 6, 8, 12]) {
    const m = model(size, figures);
    console.log([m.size, m.groups, m.nodes, m.agentsOfNode, m.limit, `${Math.round(m.cpu * 100)} %`, m.megabitsOut.toFixed(1), m.size > 1 ? m.stormSeconds.toFixed(1) : '-'].join(' | '));
  }
}
