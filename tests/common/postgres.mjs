/** A PostgreSQL server of the test's own: a cluster in a temporary folder, on a port of loopback. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit } from './cleanup.mjs';
import { freePorts, releasePorts } from './ports.mjs';

const versions = '/usr/lib/postgresql';
/** Debian keeps the programs of the server, of each release, beside the PATH. */
function programs() {
  const found = fs.existsSync(versions) ? fs.readdirSync(versions).filter((name) => fs.existsSync(`${versions}/${name}/bin/pg_ctl`)) : [];
  const newest = found.sort((a, b) => Number(a) - Number(b)).at(-1);
  if (!newest) throw new Error('PostgreSQL is not installed: run scripts/install-deps.sh api');
  return `${versions}/${newest}/bin`;
}

/** Starts it and returns when it answers. */
export async function startPostgres() {
  const bin = programs();
  const port = await freePorts(1);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-postgres-'));
  // the server refuses to run as root
  const root = process.getuid?.() === 0;
  const id = (flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  let drop = root ? ['setpriv', `--reuid=${id('-u')}`, `--regid=${id('-g')}`, '--clear-groups'] : ['env'];
  try {
    if (root) fs.chownSync(dir, id('-u'), id('-g'));
  } catch (error) {
    if (error.code !== 'EINVAL') throw error;
    // root only within the namespace of somebody who is not, where there is no other user: the same one by another number
    drop = ['unshare', '--user', `--map-user=${id('-u')}`, `--map-group=${id('-g')}`];
  }
  const data = path.join(dir, 'data');
  const run = (name, args, more = {}) => execFileSync(drop[0], [...drop.slice(1), `${bin}/${name}`, ...args], { cwd: dir, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'], ...more });
  const options = `-p ${port} -h 127.0.0.1 -k ${dir} -c fsync=off -c max_connections=60`;
  let running = false;
  const stop = () => {
    if (running) run('pg_ctl', ['-D', data, '-w', '-m', 'immediate', 'stop']);
    running = false;
  };
  // its output goes to a file: a server that holds the pipe would keep pg_ctl's caller waiting
  const start = () => {
    running = true;
    run('pg_ctl', ['-D', data, '-w', '-t', '60', '-l', path.join(dir, 'log'), '-o', options, 'start'], { stdio: 'ignore' });
  };
  const tidy = () => {
    try { stop(); } finally { fs.rmSync(dir, { recursive: true, force: true }); }
  };
  const forget = onExit(tidy);
  try {
    fs.writeFileSync(path.join(dir, 'password'), 'rtcjson-pw\n', { mode: 0o644 });
    run('initdb', ['-D', data, '-U', 'kamailio', '-A', 'scram-sha-256', `--pwfile=${path.join(dir, 'password')}`, '-E', 'UTF8', '--no-sync']);
    start();
  } catch (error) {
    forget();
    try { tidy(); } catch { /* the first error says more */ }
    throw error;
  }
  return {
    url: `postgres://kamailio:rtcjson-pw@127.0.0.1:${port}/postgres`,
    /** @param {string} text @returns {string} rows without their titles */
    sql: (text) => run('psql', ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', '-p', String(port), '-U', 'kamailio', 'postgres'], {
      input: text, env: { ...process.env, PGPASSWORD: 'rtcjson-pw', PGCLIENTENCODING: 'UTF8', PGOPTIONS: '-c client_min_messages=warning' },
    }).trim(),
    stop,
    start,
    close() { forget(); tidy(); releasePorts(port, 1); },
  };
}
