/** Asterisk 22 for one test file, by scripts/asterisk.sh. */
import { execFile, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { onExit, signal, until } from './cleanup.mjs';
import { freePort, freePorts } from './ports.mjs';

const script = fileURLToPath(new URL('../../scripts/asterisk.sh', import.meta.url));
const run = promisify(execFile);

/** Whether Asterisk is installed on this machine (scripts/asterisk.sh get). */
export const asteriskInstalled = () => fs.existsSync(
  path.join(execFileSync(script, ['path'], { encoding: 'utf8' }).trim(), 'usr/sbin/asterisk'),
);

/**
 * Starts an instance with the configuration of tests/asterisk and returns when it is up.
 * @param {{ kamailio: string, genesys?: string, port?: number, rtpPorts?: number, media?: string, workdir?: string,
 *   machine?: { address: string, command: string[] } }} options
 *   kamailio: `host:port` of Kamailio's SIP socket; genesys: `host:port` of the far end of calls to 90xx;
 *   media: the address of its sound;
 *   machine: where it runs (tests/nodes/network.mjs), in place of 127.0.0.1
 */
export async function startAsterisk({ kamailio, genesys = '127.0.0.1:9', port, rtpPorts = 100, machine, media = machine?.address ?? '127.0.0.1', workdir }) {
  port ??= await freePort();
  const rtp = await freePorts(rtpPorts);
  const dir = workdir ?? fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-asterisk-'));
  const tidy = () => {
    execFileSync(script, ['stop', dir], { stdio: 'ignore' });
    if (!workdir) fs.rmSync(dir, { recursive: true, force: true });
  };
  const forget = onExit(tidy);
  const address = machine?.address ?? '127.0.0.1';
  const [program, ...before] = [...(machine?.command ?? []), script];
  await run(program, [...before, 'start', dir, '--sip', String(port), '--address', address, '--rtp', `${rtp}-${rtp + rtpPorts - 1}`, '--kamailio', kamailio, '--genesys', genesys, '--media', media]);
  const pid = Number(fs.readFileSync(path.join(dir, 'pid'), 'utf8'));
  return {
    port,
    pid,
    uri: `sip:${address}:${port}`,
    workdir: dir,

    /** Runs a command of Asterisk's command line and gives what it prints. @param {string} command */
    async rx(command) { return (await run(script, ['rx', dir, command])).stdout; },

    /** How many channels are up now. */
    async channels() { return Number(/^(\d+) active channel/m.exec(await this.rx('core show channels count'))?.[1]); },

    /** The address that is registered for an agent, or undefined. @param {string} dn */
    async contact(dn) { return new RegExp(`Contact:\\s+${dn}/(\\S+)`).exec(await this.rx(`pjsip show aor ${dn}`))?.[1]; },

    /** Files that MixMonitor has written. */
    recordings() { return fs.readdirSync(path.join(dir, 'spool/monitor'), { recursive: true }).map(String); },

    log() { return fs.readFileSync(path.join(dir, 'log/full'), 'utf8'); },

    /** Ends it at once, as a crash would. Its folder stays. */
    async kill() {
      signal(pid, 'SIGKILL');
      await until(() => !fs.existsSync(`/proc/${pid}`), { what: 'Asterisk is gone' });
    },

    /** Ends it and removes its folder (unless that was given). */
    async stop() { forget(); tidy(); },
  };
}
