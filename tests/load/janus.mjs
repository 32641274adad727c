/** Janus with its SIP plugin and its WebSocket, on loopback, from a configuration of its own. */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit, signal, until } from '../common/cleanup.mjs';
import { freePort, httpAnswers, releasePorts } from '../common/ports.mjs';

const place = () => {
  const found = fs.readdirSync('/usr/lib').map((name) => `/usr/lib/${name}/janus`).find((dir) => fs.existsSync(`${dir}/plugins/libjanus_sip.so`));
  if (!found) throw new Error('Janus is not installed: run scripts/install-deps.sh bench');
  return found;
};

const only = (dir, wanted) => fs.readdirSync(dir).filter((name) => name.endsWith('.so') && !wanted.includes(name)).join(',');

/** @returns {Promise<{ url: string, pids: number[], stop: () => Promise<void> }>} */
export async function startJanus() {
  const lib = place();
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-janus-'));
  const port = await freePort();
  const file = (name, text) => fs.writeFileSync(path.join(dir, name), text);
  file('janus.jcfg', `
general: { configs_folder = "${dir}" plugins_folder = "${lib}/plugins" transports_folder = "${lib}/transports" events_folder = "${lib}/events"
  loggers_folder = "${lib}/loggers" debug_level = 1 session_timeout = 120 }
nat: { ice_enforce_list = "127.0.0.1" ice_ignore_list = "vmnet" }
media: { rtp_port_range = "20000-25000" }
plugins: { disable = "${only(`${lib}/plugins`, ['libjanus_sip.so'])}" }
transports: { disable = "${only(`${lib}/transports`, ['libjanus_websockets.so'])}" }
loggers: { disable = "${fs.existsSync(`${lib}/loggers`) ? only(`${lib}/loggers`, []) : ''}" }
events: { broadcast = false }
`);
  file('janus.plugin.sip.jcfg', `
general: { local_ip = "127.0.0.1" keepalive_interval = 120 behind_nat = false register_ttl = 3600 rtp_port_range = "40000-60000" }
`);
  file('janus.transport.websockets.jcfg', `
general: { json = "compact" ws = true ws_ip = "127.0.0.1" ws_port = ${port} wss = false }
admin: { admin_ws = false }
`);
  const log = fs.openSync(path.join(dir, 'janus.log'), 'a');
  const child = spawn('janus', ['-F', dir, '-o'], { cwd: dir, stdio: ['ignore', log, log] });
  fs.closeSync(log);
  const gone = new Promise((done) => { child.once('close', done); child.once('error', done); });
  const end = () => { signal(child.pid, 'SIGKILL'); fs.rmSync(dir, { recursive: true, force: true }); };
  const forget = onExit(end);
  try {
    await until(() => httpAnswers(port), { ms: 20_000, every: 100, what: 'Janus is ready' });
  } catch (error) {
    const text = fs.readFileSync(path.join(dir, 'janus.log'), 'utf8').slice(-3000);
    end();
    throw new Error(`${error.message}\n${text}`);
  }
  return {
    url: `ws://127.0.0.1:${port}/`,
    pids: [child.pid],
    async stop() {
      end();
      await gone;
      forget();
      releasePorts(port);
    },
  };
}
