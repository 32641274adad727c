/**
 * Network namespaces beside the one of the tests: machines of their own, as far as the network goes. Needs the namespace of tests/run, or
 * root.
 */
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit, signal, until } from './cleanup.mjs';

const quiet = { stdio: ['ignore', 'ignore', 'pipe'] };

/** Runs a line in a shell, in the network namespace of the tests. @param {string} line */
export const here = (line) => execFileSync('sh', ['-ec', line], quiet);

/** Made by `openNamespace`. */
export class Namespace {
  #holder;
  #dir;
  #forget = onExit(() => this.#clear());

  async open() {
    // a process that does nothing but keep it; it ends with this one
    this.#holder = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', '--net', 'sleep', 'infinity'], { stdio: 'ignore' });
    this.#holder.unref();
    const own = fs.readlinkSync('/proc/self/ns/net');
    await until(() => fs.readFileSync(`/proc/${this.pid}/comm`, 'utf8') === 'sleep\n' && fs.readlinkSync(`/proc/${this.pid}/ns/net`) !== own,
      { what: 'there is a namespace' });
    this.run('sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1; ip link set lo up');
  }

  get pid() { return this.#holder.pid; }

  /** What to write before a command that is to run in there. */
  get command() { return ['nsenter', '-t', String(this.pid), '-n', '--']; }

  /** Runs a line in a shell in there. @param {string} line */
  run(line) { return execFileSync(this.command[0], [...this.command.slice(1), 'sh', '-ec', line], quiet); }

  /** A program that runs another one in there. @param {string} program */
  inside(program) {
    this.#dir ??= fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-namespace-'));
    const file = path.join(this.#dir, path.basename(program));
    fs.writeFileSync(file, `#!/bin/sh\nexec ${this.command.join(' ')} ${program} "$@"\n`, { mode: 0o755 });
    return file;
  }

  #clear() {
    if (this.#holder) signal(this.pid, 'SIGKILL');
    if (this.#dir) fs.rmSync(this.#dir, { recursive: true, force: true });
  }

  close() {
    this.#forget();
    this.#clear();
  }
}

/** @returns {Promise<Namespace>} */
export async function openNamespace() {
  const namespace = new Namespace();
  await namespace.open();
  return namespace;
}
