/**
 * The network of the tests of nodes. Each node, Asterisk and SIPp is a machine of its own (a network namespace) on the bridge of a switch,
 * which is one more namespace; browsers and the bare far side are where the test is, and that hangs on the switch, too. What nodes say to each
 * other goes through a cable of its own between each two of them, so that any of these can be pulled out, or let pass in one direction alone,
 * while browsers and far sides reach both. No machine reaches another by loopback, and one whose cables are pulled out is silent: nobody is
 * told that it is gone.
 *
 * Where namespaces are not allowed, all of it is on 127.0.0.1, and nothing can be pulled out.
 */
import fs from 'node:fs';
import { here, openNamespace } from '../common/namespace.mjs';

/** All machines are in there; the tests' own is number 1. */
const net = '198.18.8';

const mac = (a, b) => `02:00:00:00:${[a, b].map((n) => n.toString(16).padStart(2, '0')).join(':')}`;

class Machine {
  /** The other machines that it has a cable to: the port of the switch at its own end. @type {Map<Machine, string>} */
  ports = new Map();

  constructor(number, space, theSwitch) {
    this.number = number;
    this.space = space;
    this.theSwitch = theSwitch;
    this.address = `${net}.${number}`;
  }

  /** What to write before a command that is to run there. */
  get command() { return this.space.command; }

  /** Its UDP sockets, as Linux shows them. */
  get proc() { return `/proc/${this.space.pid}/net`; }

  /** Datagrams and bytes that it has sent to other machines it has cables to. */
  get sent() {
    return fs.readFileSync(`${this.proc}/dev`, 'latin1').split('\n').filter((line) => /^\s*to\d+:/.test(line))
      .map((line) => line.split(':')[1].trim().split(/\s+/).map(Number))
      .reduce(([packets, bytes], row) => [packets + row[9], bytes + row[8]], [0, 0]);
  }

  /** All cables are pulled out. */
  pullOut() { this.#all('down'); }

  /** And are in again. */
  plugIn() { this.#all('up'); }

  #all(state) {
    this.theSwitch.run([`p${this.number}`, ...this.ports.values()].map((port) => `ip link set ${port} ${state}`).join('; '));
  }
}

class Network {
  /** Where the tests, their browsers and far sides are. */
  address = `${net}.1`;
  #machines = [];

  constructor(theSwitch) { this.theSwitch = theSwitch; }

  open() {
    this.theSwitch.run('ip link add lan type bridge; ip link set lan up');
    here(`ip link add nodes type veth peer name p1 netns ${this.theSwitch.pid}; ip addr add ${this.address}/24 dev nodes; ip link set nodes up`);
    this.theSwitch.run('ip link set p1 master lan up');
  }

  /** One more machine. @param {Machine[]} [others] machines that it has cables to */
  async machine(others = []) {
    const machine = new Machine(11 + this.#machines.length, await openNamespace(), this.theSwitch);
    this.#machines.push(machine);
    const { number, space, address } = machine;
    this.theSwitch.run(`ip link add p${number} type veth peer name eth0 netns ${space.pid}; ip link set p${number} master lan up`);
    space.run(`ip addr add ${address}/24 dev eth0; ip link set eth0 up`);
    for (const other of others) this.#connect(machine, other);
    return machine;
  }

  /** A cable between two machines: through a hub, which gives what comes at one end to the other. */
  #connect(one, other) {
    const hub = `h${one.number}x${other.number}`;
    this.theSwitch.run(`ip link add ${hub} type bridge; ip link set ${hub} up`);
    for (const [a, b] of [[one, other], [other, one]]) {
      const port = `c${a.number}x${b.number}`;
      this.theSwitch.run(`ip link add ${port} type veth peer name to${b.number} netns ${a.space.pid}; ip link set ${port} master ${hub} up; bridge link set dev ${port} learning off`);
      a.ports.set(b, port);
    }
    for (const [a, b] of [[one, other], [other, one]]) {
      // who is at the other end is known without asking, for it may be that no answer comes
      a.space.run(`ip link set to${b.number} address ${mac(a.number, b.number)} up; ip route add ${b.address}/32 dev to${b.number} src ${a.address}`
        + `; ip neigh replace ${b.address} lladdr ${mac(b.number, a.number)} dev to${b.number} nud permanent`);
    }
  }

  #each(these, those, line) {
    const lines = these.flatMap((one) => those.flatMap((other) => line(one.machine, other.machine)));
    this.theSwitch.run(lines.join('; '));
  }

  /** The cables between these nodes and those are pulled out. */
  cut(these, those) { this.#each(these, those, (a, b) => [`ip link set ${a.ports.get(b)} down`, `ip link set ${b.ports.get(a)} down`]); }

  heal(these, those) { this.#each(these, those, (a, b) => [`ip link set ${a.ports.get(b)} up`, `ip link set ${b.ports.get(a)} up`]); }

  /** Nothing passes from one of these nodes to one of those; the other way it does. */
  cutOneWay(from, to) { this.#each(from, to, (a, b) => [`bridge link set dev ${b.ports.get(a)} flood off`]); }

  healOneWay(from, to) { this.#each(from, to, (a, b) => [`bridge link set dev ${b.ports.get(a)} flood on`]); }
}

/** All on one address. */
const loopback = { address: '127.0.0.1', machine: async () => undefined };

/** @returns {Promise<Network>} */
export async function openNetwork() {
  if (!process.env.RTC_JSON_NAMESPACE) {
    console.log('no network namespaces here: the nodes are on loopback addresses of one machine');
    return loopback;
  }
  const network = new Network(await openNamespace());
  network.open();
  return network;
}
