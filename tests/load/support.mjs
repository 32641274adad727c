/** What the load tests share: the generator, agents in the database, and what a server uses. */
import { execFileSync, spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { onExit, signal } from '../common/cleanup.mjs';
import { realm } from '../common/kamailio.mjs';

const top = fileURLToPath(new URL('../../', import.meta.url));
const generator = path.join(process.env.CARGO_TARGET_DIR ?? path.join(top, 'target'), 'release/rtc-json-load');

/** Name of the first agent. */
export const firstAgent = 100_000;

/** Puts agents into the database of a Kamailio, by thousands: agents-db.sh starts two programs for each. */
export function addAgents(kamailio, count) {
  const rows = Array.from({ length: count }, (_, i) => String(firstAgent + i)).map((name) => {
    const ha1 = crypto.createHash('md5').update(`${name}:${realm}:pw${name}`).digest('hex');
    return `INSERT INTO subscriber (username, domain, ha1) VALUES ('${name}', '${realm}', '${ha1}');`;
  });
  execFileSync('sqlite3', ['-bail', path.join(kamailio.workdir, 'kamailio.sqlite')], { input: `BEGIN;\n${rows.join('\n')}\nCOMMIT;\n` });
}

/**
 * Starts the generator; returns when all its agents are signed in.
 * @param {Record<string, string | number>} options as its command line has them
 */
export async function startGenerator(options) {
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = spawn(generator, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const forget = onExit(() => signal(child.pid, 'SIGKILL'));
  const ended = new Promise((done) => { child.once('close', done); child.once('error', done); });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the load generator has ended');
    return JSON.parse(value);
  };
  await line();
  return {
    /** One run: calls per second (0: as many as it can), calls at a time, ms of each, seconds. */
    run({ rate = 0, concurrent, talk = 0, seconds }) {
      child.stdin.write(`${rate} ${concurrent} ${talk} ${seconds}\n`);
      return line();
    },
    /** Ends it, and with it its connections. */
    async stop() {
      child.stdin.end();
      await ended;
      forget();
    },
  };
}

const read = (file) => { try { return fs.readFileSync(file, 'latin1'); } catch { return ''; } };

/**
 * Processor time so far, in microseconds. Of a process with one thread the kernel tells nanoseconds; of others, whose threads come and
 * go, hundredths of a second.
 * @param {number[]} pids
 */
export const cpuOf = (pids) => pids.reduce((sum, pid) => {
  if (fs.readdirSync(`/proc/${pid}/task`).length === 1) return sum + Number(read(`/proc/${pid}/schedstat`).split(' ')[0]) / 1000;
  const stat = read(`/proc/${pid}/stat`);
  const [user, system] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 13).map(Number);
  return sum + (user + system) * 10_000;
}, 0);

/** Memory in kB: each page once, however many processes share it. @param {number[]} pids */
export const memoryOf = (pids) => pids.reduce((sum, pid) => sum + Number(/^Pss:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0), 0);

/** kB: what all processes of a Kamailio hold, what of its shared memory and of the arena is in use; calls of the module. */
export async function usage(kamailio) {
  const shm = Number(/^\s*used: (\d+)/m.exec(await kamailio.rpcText('core.shmmem'))?.[1]);
  const stats = await kamailio.rpc('rtc_json.stats').catch(() => ({}));
  return {
    rss: memoryOf(kamailio.pids), shm: shm / 1024, arena: (stats.arena_used ?? 0) / 1024, calls: stats.calls ?? 0,
  };
}

/** @param {number[]} values */
export const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** `name value`, for people and programs. */
export const tell = (name, value) => console.log(`${name} ${typeof value === 'number' ? Number(value.toFixed(3)) : value}`);
