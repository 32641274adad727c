/**
 * The real Kamailio with the real module, in a folder of its own, from the project's kamailio.cfg.example.
 */
import { execFile, execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { certificateFiles } from './certificate.mjs';
import { onExit, signal, sleep, until } from './cleanup.mjs';
import { freePorts, httpAnswers, releasePorts } from './ports.mjs';

const top = fileURLToPath(new URL('../../', import.meta.url));

/** A known fault of the tls module of Kamailio 5.6 with OpenSSL 3, on a busy machine (docs/operators-guide.md, section 13). */
export const tlsBug = /qm_free\(\): BUG: freeing already freed pointer \S+ called from tls: tls_init\.c: .* first free tls: tls_init\.c/;

/** For the manager of shared and private memory that MANAGER names; Kamailio's own is qm. */
const managerArgs = process.env.MANAGER ? ['-x', process.env.MANAGER, '-X', process.env.MANAGER] : [];
/** The module under test; RTC_JSON_SO names another one. */
export const modulePath = process.env.RTC_JSON_SO ?? path.join(top, 'kamailio-module/rtc_json.so');

/** Folder under which another Kamailio is installed (scripts/kamailio-root.sh); empty for the one of this machine. */
const kamailioRoot = process.env.KAMAILIO_ROOT ?? '';

/** A program that Kamailio runs under, with its arguments: valgrind (RTC_JSON_UNDER). */
const under = (process.env.RTC_JSON_UNDER ?? '').split(' ').filter(Boolean);

/** Domain and digest realm of the test agents. */
export const realm = 'rtc.local';

/** The agents of the database; the password of 5001 is pw5001. */
export const agents = Array.from({ length: 10 }, (_, i) => String(5001 + i));

/**
 * @typedef {{
 *   mode?: 'local' | 'upstream', asteriskPort?: number, nextHop?: string, workers?: number, debug?: number, shm?: number,
 *   params?: Record<string, string | number>, defines?: Record<string, string | number | true>, cfgExtra?: string,
 *   workdir?: string, users?: string[], cfg?: string, args?: string[], env?: Record<string, string>, machine?: { address: string, command: string[] },
 * }} Options
 *   mode: who knows the agents: Kamailio's own table, or a registrar behind it;
 *   asteriskPort: the registrar and next hop on 127.0.0.1, or nextHop: the same as a SIP URI;
 *   workers: processes per UDP socket, and TCP processes; debug: Kamailio's log level; shm: shared memory in MB;
 *   params: parameters of the module, over those of the config;
 *   defines: further `-A` defines, as they stand in a config (strings with their quotes);
 *   cfgExtra: text at the end of the config; workdir: kept afterwards, else a temporary folder;
 *   users: agents in the database (password pw + name); cfg: another config than the example;
 *   args: further arguments of Kamailio's command line; env: variables of its environment;
 *   machine: where it runs (tests/nodes/network.mjs), in place of 127.0.0.1
 */

/** A running Kamailio. Made by `startKamailio`. */
export class Kamailio {
  #args;
  #env;
  #child;
  #forget;
  #keep;
  #ports;
  #command;

  /** How often it was ended from here. */
  endings = 0;

  constructor({ dir, keep, ports, args, env, machine }) {
    this.workdir = dir;
    this.#keep = keep;
    this.#ports = ports;
    this.#args = args;
    this.#env = env;
    this.#command = machine?.command ?? [];
    /** Its address. */
    this.address = machine?.address ?? '127.0.0.1';
    [this.sipPort, this.wsPort, this.wssPort] = ports;
    this.sipUri = `sip:${this.address}:${this.sipPort}`;
    this.wsUrl = `ws://${this.address}:${this.wsPort}/`;
    this.wssUrl = `wss://${this.address}:${this.wssPort}/`;
    this.#forget = onExit(() => { this.#killAll(); this.#removeFiles(); });
  }

  /** Of the main process; 0 when it is not running. */
  get pid() { return this.#child?.exitCode === null && this.#child.signalCode === null ? this.#child.pid : 0; }

  /** The processes, main first. @returns {number[]} */
  get pids() {
    if (!this.#child) return [];
    const own = [];
    for (const name of fs.readdirSync('/proc').filter((n) => /^\d+$/.test(n))) {
      try {
        const stat = fs.readFileSync(`/proc/${name}/stat`, 'latin1');
        const [state, , , session] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        if (Number(session) === this.#child.pid && state !== 'Z') own.push(Number(name));
      } catch { /* ended meanwhile */ }
    }
    return own.sort((a, b) => a - b);
  }

  /** Starts it (again) with the same ports, files and arena; returns when its ports answer. */
  async start() {
    if (this.pids.length) throw new Error('Kamailio runs already');
    const log = fs.openSync(this.#logFile, 'a');
    // a session of its own, by which its processes are told from others; setpriv ends it should this process be killed outright
    this.#child = spawn('setpriv', ['--pdeathsig', 'TERM', ...this.#command, ...kamailioCommand(), ...this.#args], {
      cwd: this.workdir, stdio: ['ignore', log, log], detached: true, env: { ...process.env, ...this.#env },
    });
    fs.closeSync(log);
    let failed;
    this.#child.once('error', (error) => { failed = error; });
    try {
      await until(async () => {
        if (failed) throw failed;
        if (!this.pid) throw new Error('Kamailio ended at once');
        // Ports are bound, and the kernel accepts connections, long before the workers are there. An HTTP answer needs the
        // TCP processes, which are started last.
        return await httpAnswers(this.wsPort, this.address) && this.rpcText('core.uptime').then(() => true, () => false);
      }, { ms: under.length ? 120_000 : 20_000, what: 'Kamailio is ready' });
    } catch (error) {
      this.#killAll();
      throw new Error(`${error.message}\n${this.log().slice(-4000)}`);
    }
  }

  /**
   * An RPC command by kamcmd. Structs come as objects, several of them or plain values as an array.
   * @param {string} command
   * @param {...(string | number)} args kamcmd takes `s:123` for a string of digits
   * @returns {Promise<any>} fails with `error.code` for an RPC fault
   */
  async rpc(command, ...args) {
    const rows = parseKamcmd(await this.rpcText(command, ...args));
    return rows.length === 1 ? rows[0] : rows;
  }

  /** Like `rpc`, always as an array: [] for an empty answer. @returns {Promise<any[]>} */
  async rpcRows(command, ...args) { return parseKamcmd(await this.rpcText(command, ...args)); }

  /** The text that kamcmd prints. @returns {Promise<string>} */
  rpcText(command, ...args) {
    return new Promise((done, fail) => {
      execFile('kamcmd', ['-s', `unix:${this.#controlSocket}`, command, ...args.map(String)], { timeout: 10_000 }, (error, out, err) => {
        const fault = /^error: (\d+) - (.*)$/m.exec(out + err);
        if (fault) fail(Object.assign(new Error(`${command}: ${fault[1]} ${fault[2]}`), { code: Number(fault[1]) }));
        else if (error) fail(new Error(`${command}: ${error.message}\n${err}`));
        else done(out);
      });
    });
  }

  /** One statistics value of the module. @param {string} name @returns {Promise<number>} */
  async stat(name) {
    // by group: a name alone would be looked for in all groups, and "group:name" is none
    const text = await this.rpcText('stats.get_statistics', 'rtc_json:');
    const match = new RegExp(`^rtc_json:${name}\\s*=\\s*(\\d+)`, 'm').exec(text);
    if (!match) throw new Error(`no statistics value ${name}: ${text}`);
    return Number(match[1]);
  }

  /** All that it has logged, over restarts. */
  log() { return fs.existsSync(this.#logFile) ? fs.readFileSync(this.#logFile, 'utf8') : ''; }

  /** Log lines at WARNING and worse. @returns {string[]} */
  warnings() { return this.log().split('\n').filter((line) => /(WARNING|ERROR|CRITICAL|BUG|ALERT): /.test(line)); }

  /** Ends it in good order and checks that all its processes are gone in so many ms; the files stay until `stop`. */
  async shutdown(ms = under.length ? 120_000 : 15_000) {
    this.endings += 1;
    if (this.pid) signal(this.pid, 'SIGTERM');
    try {
      await until(() => this.pids.length === 0, { ms, what: 'Kamailio ends after SIGTERM' });
    } catch (error) {
      const left = this.pids;
      this.#killAll();
      throw new Error(`${error.message}; left: ${left.join(' ')}\n${this.log().slice(-2000)}`);
    }
  }

  /** Kills every process at once (as a crash of the machine would), and waits until they are gone. The files stay. */
  async kill9() {
    this.endings += 1;
    this.#killAll();
    // a main process that nobody has waited for yet still holds its pid: the next start would find it running
    await until(() => !this.pid && this.pids.length === 0, { what: 'Kamailio is gone' });
  }

  /** Ends it in good order, when it runs, and starts it again with the same arena and ports. */
  async restart() {
    if (this.pid) await this.shutdown();
    await this.start();
  }

  /** Ends it in good order and removes its files. Fails when a process outlives it. */
  async stop(ms) {
    try { await this.shutdown(ms); } finally {
      this.#forget();
      this.#removeFiles();
      releasePorts(this.#ports[0], this.#ports.length);
      await sleep(0);
    }
  }

  get #logFile() { return path.join(this.workdir, 'kamailio.log'); }

  get #controlSocket() { return path.join(this.workdir, 'run', 'kamailio_ctl'); }

  #killAll() {
    for (const pid of this.pids) signal(pid, 'SIGKILL');
  }

  #removeFiles() {
    if (!this.#keep) fs.rmSync(this.workdir, { recursive: true, force: true });
  }
}

/**
 * Starts Kamailio and returns when it is ready.
 * @param {Options} [options]
 * @returns {Promise<Kamailio>}
 */
export async function startKamailio({
  mode = 'local', asteriskPort, nextHop, workers = 4, debug = 2, shm = 256, params = {}, defines = {}, cfgExtra = '',
  workdir, users = agents, cfg = path.join(top, 'kamailio.cfg.example'), args = [], env = {}, machine,
} = {}) {
  const dir = workdir ?? fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-kamailio-'));
  fs.mkdirSync(path.join(dir, 'run'), { recursive: true });
  const ports = await freePorts(3).then((first) => [first, first + 1, first + 2]);
  const database = path.join(dir, 'kamailio.sqlite');
  execFileSync(path.join(top, 'scripts/agents-db.sh'), [database, realm, ...users.map((user) => `${user}:pw${user}`)]);

  const { certFile, keyFile } = certificateFiles();
  const address = machine?.address ?? '127.0.0.1';
  nextHop ??= asteriskPort && `sip:127.0.0.1:${asteriskPort}`;
  const defined = {
    ...(mode === 'local' ? { WITH_LOCAL: true, REALM: quoted(realm), DB_URL: quoted(`sqlite://${database}`) } : {}),
    ...(nextHop ? { OUTBOUND_PROXY: quoted(nextHop) } : {}),
    MY_IP: address, SIP_PORT: ports[0], WITH_PLAIN_WS: true, WS_IP: address, WS_PORT: ports[1], WSS_PORT: ports[2],
    TLS_CERT: quoted(certFile), TLS_KEY: quoted(keyFile),
    ARENA_PATH: quoted(path.join(dir, 'arena')), CTL_SOCKET: quoted(`unix:${path.join(dir, 'run/kamailio_ctl')}`),
    ...defines,
  };
  // in local mode the config has no place for another next hop than Kamailio itself
  const text = fs.readFileSync(cfg, 'utf8');
  const parameters = {
    ...(mode === 'local' && nextHop ? { outbound_proxy: nextHop } : {}),
    // its questions are transactions, and the far sides of most tests answer none: those that are about them say so
    ...(nextHop && /loadmodule "rtc_json/.test(text) ? { next_hop_interval: 0 } : {}),
    ...params,
  };
  const file = path.join(dir, 'kamailio.cfg');
  fs.writeFileSync(file, [
    text, `debug=${debug}`, 'log_stderror=yes',
    ...Object.entries(parameters).map(([name, value]) => `modparam("rtc_json", "${name}", ${typeof value === 'number' ? value : quoted(value)})`),
    cfgExtra, '',
  ].join('\n'));

  const kamailio = new Kamailio({
    dir,
    keep: Boolean(workdir),
    ports,
    env,
    machine,
    args: [
      '-f', file, '-DD', '-E', '-Y', path.join(dir, 'run'), '-P', path.join(dir, 'run/kamailio.pid'),
      '-m', String(shm), '-n', String(workers), '-N', String(workers), '-L', modulePathList(),
      ...Object.entries(defined).flatMap(([name, value]) => ['-A', value === true ? name : `${name}=${value}`]),
      ...managerArgs, ...args,
    ],
  });
  await kamailio.start();
  return kamailio;
}

/**
 * What kamcmd prints, as values: `{ … }` is an object, `name: value` a member, anything else a plain value.
 * @param {string} text
 * @returns {any[]}
 */
export function parseKamcmd(text) {
  const plain = (value) => (String(Number(value)) === value ? Number(value) : value);
  const rows = [];
  /** @type {any[]} containers that are open, innermost last */
  const open = [rows];
  const put = (name, value) => {
    const into = open.at(-1);
    if (Array.isArray(into)) into.push(value);
    else if (name in into) into[name] = [].concat(into[name], [value]); // kamcmd repeats the name for a list
    else into[name] = value;
    return value;
  };
  for (const line of text.split('\n').map((l) => l.trim()).filter(Boolean)) {
    if (line === '}' || line === ']') { if (open.length > 1) open.pop(); continue; }
    const [, name, rest] = /^([^\s:{}]+): ?(.*)$/.exec(line) ?? [undefined, undefined, line];
    if (rest === '{') open.push(put(name, {}));
    else if (rest === '[') open.push(put(name, []));
    else if (name === undefined || Array.isArray(open.at(-1))) put(undefined, plain(line));
    else put(name, plain(rest));
  }
  return rows;
}

const quoted = (text) => `"${text}"`;

/** Program and first arguments. One of another Debian release needs the loader and the libraries of that release. */
export function kamailioCommand() {
  if (!kamailioRoot) return [...under, 'kamailio'];
  const lib = list(`${kamailioRoot}/usr/lib`).map((name) => `${kamailioRoot}/usr/lib/${name}`).find((dir) => fs.existsSync(`${dir}/kamailio/modules`));
  const loader = list(lib).find((name) => /^ld-linux.*\.so\.\d+$/.test(name));
  return [`${lib}/${loader}`, '--library-path', `${lib}:${lib}/kamailio`, `${kamailioRoot}/usr/sbin/kamailio`];
}

/** Where Kamailio looks for modules: the one under test first, then its own. */
export function modulePathList() {
  const roots = ['/usr/lib', '/usr/lib64', '/usr/local/lib', '/usr/local/lib64'].map((dir) => kamailioRoot + dir);
  const places = roots.flatMap((root) => [`${root}/kamailio/modules`, ...list(root).map((name) => `${root}/${name}/kamailio/modules`)]);
  const own = places.find((place) => fs.existsSync(`${place}/tm.so`));
  if (!own) throw new Error('Kamailio is not installed: run scripts/install-deps.sh kamailio');
  return `${path.dirname(modulePath)}:${own}`;
}

const list = (dir) => { try { return fs.readdirSync(dir); } catch { return []; } };
