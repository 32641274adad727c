/**
 * A machine of its own for a browser: a network namespace, whose network interfaces can be taken away and replaced by others with
 * another address. Needs the namespace of tests/run.
 */
import os from 'node:os';
import { execFileSync, spawn } from 'node:child_process';
import net from 'node:net';
import { onExit, sleep } from '../common/cleanup.mjs';
import { here, openNamespace } from '../common/namespace.mjs';

/** Where a browser in a room reaches the servers: the address that tests/run puts on their loopback interface. */
export const serversAddress = '198.18.0.1';

/** All networks of all rooms are in there. */
const networks = '198.18.16.0/20';

let count = 0;

/** Made by `openRoom`. */
export class Room {
  /** @type {import('../common/namespace.mjs').Namespace} */
  #space;
  /** Numbers of the networks that are there, in the order in which they came. @type {number[]} */
  #plugged = [];
  #forward;
  #forget = onExit(() => this.#clear());

  async open() {
    // packets to an address that nobody has any more are lost, as on the way through a real network; no router says that they are
    here(`ip link show swallow || { ip link add swallow type veth peer name swallowed; ip link set swallow arp off up; ip link set swallowed up; ip route add ${networks} dev swallow; }`);
    this.#space = await openNamespace();
    this.plugIn();
  }

  /** One more network. The way to the servers leads through the one that came first. */
  plugIn() {
    const number = (count += 1);
    const [outside, inside, subnet] = [`out${number}`, `in${number}`, `198.18.${16 + number}`];
    here(`ip link add ${outside} type veth peer name ${inside} netns ${this.#space.pid}; ip addr add ${subnet}.1/24 dev ${outside}; ip link set ${outside} up`);
    this.#space.run(`ip addr add ${subnet}.2/24 dev ${inside}; ip link set ${inside} up; ip route add default via ${subnet}.1 dev ${inside} metric ${number}`);
    // (both of them carry what comes from their own address)
    this.#space.run(`ip route add default via ${subnet}.1 dev ${inside} table ${number}; ip rule add from ${subnet}.2 table ${number}`);
    this.#plugged.push(number);
  }

  /** The network that came first is gone, with its interface and address. */
  pullOut() { here(`ip link del out${this.#plugged.shift()}`); }

  /** Another network in place of the one that was there, with a pause between them. @param {number} pause ms */
  async move(pause) {
    this.pullOut();
    await sleep(pause);
    this.plugIn();
  }

  /** A program that runs another one in here. @param {string} program */
  inside(program) { return this.#space.inside(program); }

  /** A port on 127.0.0.1 of the servers' side leads to the same port on 127.0.0.1 in here. @param {number} port */
  async forward(port) {
    this.#forward = net.createServer((near) => {
      const through = `const far = require('net').connect(${port}, '127.0.0.1').on('error', () => process.exit(1)); process.stdin.pipe(far).pipe(process.stdout)`;
      const [command, ...args] = this.#space.command;
      const child = spawn(command, [...args, process.execPath, '-e', through], { stdio: ['pipe', 'pipe', 'ignore'] });
      near.pipe(child.stdin).on('error', () => {});
      child.stdout.pipe(near).on('error', () => {});
      near.on('close', () => child.kill());
      child.on('exit', () => near.destroy());
    });
    await new Promise((done, fail) => { this.#forward.once('error', fail).listen(port, '127.0.0.1', done); });
    this.#forward.unref();
  }

  #clear() {
    this.#forward?.close();
    for (const number of this.#plugged) try { here(`ip link del out${number}`); } catch { /* gone with the namespace */ }
  }

  close() {
    this.#forget();
    this.#clear();
    this.#space?.close();
  }
}

/** @returns {Promise<Room>} with one network */
export async function openRoom() {
  const room = new Room();
  await room.open();
  return room;
}

/**
 * A network in the servers' namespace, as a machine has one already: in one with nothing but `lo`, where no name is made by mDNS and
 * Chromium has no candidate, a pair of linked interfaces is made, which ends with the namespace. (Chromium, too, takes the address
 * from which it would reach 8.8.8.8.)
 */
export function addNetwork() {
  if (Object.keys(os.networkInterfaces()).some((name) => name !== 'lo')) return;
  for (const command of [
    'link add test0 type veth peer name test1', 'addr add 198.18.0.2/32 dev test0', 'link set test0 up', 'link set test1 up',
    'route replace 8.8.8.8/32 dev test0', 'route add default dev test0',
  ]) execFileSync('ip', command.split(' '));
}
