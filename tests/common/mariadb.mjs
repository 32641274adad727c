/** A MariaDB server of the test's own: its data in a temporary folder, on a port of loopback. */
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit, until } from './cleanup.mjs';
import { freePorts, releasePorts } from './ports.mjs';

const password = 'rtcjson-pw';

/** Starts it and returns when it answers. */
export async function startMariadb() {
  const port = await freePorts(1);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-mariadb-'));
  const data = path.join(dir, 'data');
  const log = path.join(dir, 'log');
  const user = os.userInfo().username;
  // no file of this machine's configuration is read. What is committed goes to the system, not to the disk: it outlives the server, and
  // the disk is not what is tried
  const options = [`--datadir=${data}`, `--user=${user}`, '--skip-log-bin', '--innodb-flush-log-at-trx-commit=2', '--innodb-log-file-size=8M'];
  let server;
  const stop = async () => {
    const running = server;
    server = undefined;
    if (!running || running.exitCode !== null || running.signalCode !== null) return;
    const gone = new Promise((done) => { running.once('exit', done); });
    running.kill('SIGKILL');
    await gone;
  };
  /** As the owner of the data, by the socket. @param {string} text @returns {string} rows without their titles */
  const sql = (text, more = ['rtc']) => execFileSync('mariadb', ['--no-defaults', `--socket=${dir}/socket`, `--user=${user}`, '--default-character-set=utf8mb4', '--batch', '--raw', '--skip-column-names', ...more], {
    input: text, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'],
  }).trim();
  const start = async () => {
    const out = fs.openSync(log, 'a');
    server = spawn('mariadbd', ['--no-defaults', ...options, `--socket=${dir}/socket`, `--port=${port}`, '--bind-address=127.0.0.1', `--pid-file=${dir}/pid`], {
      cwd: dir, stdio: ['ignore', out, out],
    });
    fs.closeSync(out);
    let failed;
    server.once('error', (error) => { failed = error; });
    await until(() => {
      if (failed) throw new Error(`MariaDB is not installed: run scripts/install-deps.sh api (${failed.message})`);
      if (server.exitCode !== null) throw new Error(`MariaDB ended: ${fs.readFileSync(log, 'utf8').slice(-2000)}`);
      try { return sql('SELECT 1;', []) === '1'; } catch { return false; }
    }, { ms: 60_000, what: 'MariaDB answers' });
  };
  const tidy = () => { server?.kill('SIGKILL'); fs.rmSync(dir, { recursive: true, force: true }); };
  const forget = onExit(tidy);
  try {
    execFileSync('mariadb-install-db', ['--no-defaults', ...options, '--auth-root-authentication-method=socket', `--auth-root-socket-user=${user}`, '--skip-test-db'], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
    await start();
    sql(`CREATE DATABASE rtc CHARACTER SET utf8mb4; CREATE USER 'kamailio'@'127.0.0.1' IDENTIFIED BY '${password}'; GRANT ALL ON rtc.* TO 'kamailio'@'127.0.0.1';`, []);
  } catch (error) {
    forget();
    await stop();
    tidy();
    throw error;
  }
  return {
    url: `mysql://kamailio:${password}@127.0.0.1:${port}/rtc`,
    sql,
    stop,
    start,
    async close() { forget(); await stop(); tidy(); releasePorts(port, 1); },
  };
}
