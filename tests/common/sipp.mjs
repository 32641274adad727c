/**
 * SIPp as the far side of calls: runs the scenarios of tests/sipp in the background and reads what came of them.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { onExit, signal, until } from './cleanup.mjs';
import { freePorts, releasePorts, udpBound } from './ports.mjs';

export const scenarioDir = fileURLToPath(new URL('../sipp/', import.meta.url));

// what stands as @name@ in a scenario, unless the test says otherwise (option `keys`)
const defaults = {
  ring: 0, talk: 1000, code: 603, cause: 21, caller: 'sipp', target: 'sip:nobody@127.0.0.1:9', realm: 'rtc.local', algorithm: 'MD5', expires: 300, profile: 'UDP/TLS/RTP/SAVPF',
};

/**
 * A scenario with its parts in place: `@in-call@`, `@sdp SETUP VERSION DIRECTION@` for a WebRTC body, and the keys.
 * @param {string} name file in tests/sipp without `.xml`
 * @param {Record<string, string | number>} keys
 */
function scenarioText(name, keys) {
  const part = (file) => fs.readFileSync(path.join(scenarioDir, 'parts', file), 'utf8');
  return fs.readFileSync(path.join(scenarioDir, `${name}.xml`), 'utf8')
    .replaceAll(/\t@in-call@\n/g, () => part('in-call.xml'))
    .replaceAll(/@sdp (\S+) (\d+) (\w+)@\n/g, (_, setup, version, direction) => part('webrtc.sdp')
      .replace('@SETUP@', setup).replace('@VERSION@', version).replace('@DIRECTION@', direction))
    .replaceAll(/@([a-z]+)@/g, (_, key) => {
      if (!(key in keys)) throw new Error(`${name}: no key ${key}`);
      return String(keys[key]);
    });
}

/**
 * @typedef {{
 *   scenario: string, remote?: string, port?: number, calls?: number, rate?: number, concurrent?: number,
 *   service?: string, keys?: Record<string, string | number>, timeout?: number, rtpEcho?: boolean, trace?: boolean, more?: string[],
 *   machine?: { address: string, command: string[], proc: string },
 * }} Options
 *   scenario: name in tests/sipp; remote: `host:port`, for callers (uac-*); calls: how many make a run;
 *   rate: calls per second; service: the number called; keys: see the head of the scenario;
 *   timeout: seconds until SIPp gives up; trace: keep the messages (on unless switched off for load); more: further arguments;
 *   machine: where it runs (tests/nodes/network.mjs), in place of 127.0.0.1
 * @typedef {{ code: number, successful: number, failed: number, retransmissions: number, screen: string }} Result
 *   code: 0 when every call went as the scenario wants, 1 when one did not, 97 when it was stopped
 */

/** A running SIPp. Made by `startSipp`. */
export class Sipp {
  /** @type {Promise<Result>} */
  done;

  #child;
  #dir;
  #forget;

  #ports;

  constructor(child, dir, port, ports, done, address) {
    this.#child = child;
    this.#dir = dir;
    this.#ports = ports;
    this.port = port;
    /** `sip:` URI of this SIPp */
    this.uri = `sip:${address}:${port}`;
    this.#forget = onExit(() => { signal(child.pid, 'SIGKILL'); fs.rmSync(dir, { recursive: true, force: true }); });
    this.done = done;
  }

  /**
   * The SIP messages so far, in order. SIPp writes them as they come.
   * @returns {{ dir: 'in' | 'out', text: string, start: string, method?: string, status?: number }[]}
   */
  messages() {
    const file = path.join(this.#dir, 'messages');
    if (!fs.existsSync(file)) return [];
    const found = [];
    for (const block of fs.readFileSync(file, 'latin1').split(/^-{10,} \d.*$/m).slice(1)) {
      const match = /^\s*UDP message (sent|received) (?:\(\d+ bytes\)|\[\d+\] bytes ?):\s*\n\n?([\s\S]*)$/.exec(block);
      if (!match) continue;
      const text = match[2].trimStart();
      const start = text.split(/\r?\n/, 1)[0];
      const status = /^SIP\/2\.0 (\d{3})/.exec(start);
      found.push({
        dir: match[1] === 'sent' ? 'out' : 'in', text, start,
        ...(status ? { status: Number(status[1]) } : { method: start.split(' ')[0] }),
      });
    }
    return found;
  }

  /** Value of a header in the first message for which `accept` holds. @param {string} name */
  header(name, accept = () => true) {
    const message = this.messages().find(accept);
    return message && new RegExp(`^${name}[ \t]*:[ \t]*(.*?)\r?$`, 'im').exec(message.text)?.[1];
  }

  /** What SIPp noted about calls that did not go as they should. */
  errors() {
    try { return fs.readFileSync(path.join(this.#dir, 'errors'), 'utf8'); } catch { return ''; }
  }

  /** Waits for the end of all calls and throws unless each went as the scenario wants. @returns {Promise<Result>} */
  async ok() {
    const result = await this.done;
    if (result.code !== 0 || result.failed > 0) {
      throw new Error(`SIPp ended with ${result.code}, ${result.failed} failed\n${this.errors()}\n${this.messages().map((m) => `${m.dir} ${m.start}`).join('\n')}`);
    }
    return result;
  }

  /** Ends it, calls or not, and removes its files. */
  async stop() {
    signal(this.#child.pid, 'SIGKILL');
    await this.done;
    fs.rmSync(this.#dir, { recursive: true, force: true });
    for (const [first, count] of this.#ports) releasePorts(first, count);
    this.#ports = [];
    this.#forget();
  }
}

/**
 * Starts SIPp; for a called side (uas-*, registrar*), returns when its port is bound.
 * @param {Options} options
 * @returns {Promise<Sipp>}
 */
export async function startSipp({
  scenario, remote, port, calls = 1, rate = 10, concurrent, service = '5001', keys = {}, timeout = 60, rtpEcho = false, trace = true, more = [], machine,
}) {
  /** @type {[number, number][]} */
  const ports = [];
  const take = async (count) => { const first = await freePorts(count); ports.push([first, count]); return first; };
  port ??= await take(1);
  const address = machine?.address ?? '127.0.0.1';
  const [media, control] = [await take(4), await take(1)];
  const text = scenarioText(scenario, { ...defaults, ...keys });
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-sipp-'));
  fs.writeFileSync(path.join(dir, 'scenario.xml'), text);
  const args = [
    ...(remote ? [remote] : []),
    '-sf', path.join(dir, 'scenario.xml'), '-i', address, '-p', port, '-mi', address, '-mp', media,
    '-m', calls, '-r', rate, '-s', service, '-nostdin', '-timeout', timeout, '-timeout_error', '-cp', control,
    // a message that the scenario does not await must fail the call, but may not make SIPp send anything by itself
    '-default_behaviors', 'none', '-skip_rlimit',
    '-trace_stat', '-stf', path.join(dir, 'stat.csv'), '-fd', '1',
    '-trace_err', '-error_file', path.join(dir, 'errors'),
    ...(trace ? ['-trace_msg', '-message_file', path.join(dir, 'messages')] : []),
    ...(concurrent ? ['-l', concurrent] : []),
    ...(rtpEcho ? ['-rtp_echo'] : []),
    ...more,
  ].map(String);
  const [program, ...before] = [...(machine?.command ?? []), 'sipp'];
  const child = spawn(program, [...before, ...args], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
  let screen = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { screen = (screen + data).slice(-20_000); });
  const done = new Promise((end, fail) => {
    child.once('error', fail);
    child.once('close', (code) => end({ code: code ?? 97, ...statistics(path.join(dir, 'stat.csv')), screen }));
  });
  const sipp = new Sipp(child, dir, port, ports, done, address);
  const ended = await Promise.race([
    until(() => udpBound(port, machine?.proc), { what: 'SIPp binds its port' }).then(() => undefined, (error) => error),
    done,
  ]);
  if (ended instanceof Error || (ended && ended.code > 1)) {
    await sipp.stop();
    throw new Error(`SIPp with ${scenario} did not start\n${screen}`);
  }
  return sipp;
}

/** The last line of SIPp's statistics file. */
function statistics(file) {
  let lines = [];
  try { lines = fs.readFileSync(file, 'latin1').trim().split('\n'); } catch { /* ended before the first line */ }
  const names = lines[0]?.split(';') ?? [];
  const values = lines.length > 1 ? lines.at(-1).split(';') : [];
  const number = (name) => Number(values[names.indexOf(name)] ?? 0);
  return { successful: number('SuccessfulCall(C)'), failed: number('FailedCall(C)'), retransmissions: number('Retransmissions(C)') };
}
