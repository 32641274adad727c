/** The real coturn, from the project's turnserver.conf.example, and a bare TURN client (RFC 8656) to ask it. */
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import dgram from 'node:dgram';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { certificateFiles } from './certificate.mjs';
import { onExit, signal, until } from './cleanup.mjs';
import { freePorts, releasePorts } from './ports.mjs';

const example = fileURLToPath(new URL('../../turnserver.conf.example', import.meta.url));

/**
 * Starts it on loopback and returns when it answers.
 * @param {{ secret: string, edit?: (conf: string) => string }} options edit: a last change of the config
 */
export async function startCoturn({ secret, edit = (conf) => conf }) {
  const ports = 64;
  const port = await freePorts(ports);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-coturn-'));
  const { certFile, keyFile } = certificateFiles();
  const values = {
    'listening-ip': '127.0.0.1', 'relay-ip': '127.0.0.1', 'listening-port': port, 'tls-listening-port': port + 1,
    'min-port': port + 2, 'max-port': port + ports - 1, 'static-auth-secret': secret, realm: 'rtc.local', cert: certFile, pkey: keyFile,
  };
  let conf = fs.readFileSync(example, 'utf8').replace('\nno-stdout-log\nsyslog\n', '\n');
  for (const [name, value] of Object.entries(values)) conf = conf.replace(new RegExp(`^${name}=.*$`, 'm'), `${name}=${value}`);
  const file = path.join(dir, 'turnserver.conf');
  fs.writeFileSync(file, edit(conf));
  let child;
  let ended;
  const start = async () => {
    const log = fs.openSync(path.join(dir, 'log'), 'a');
    child = spawn('setpriv', [
      '--pdeathsig', 'TERM', 'turnserver', '-c', file, '--log-file', 'stdout', '--pidfile', path.join(dir, 'pid'), '--userdb', path.join(dir, 'db'),
    ], { cwd: dir, stdio: ['ignore', log, log] });
    fs.closeSync(log);
    ended = new Promise((done) => { child.once('exit', done); child.once('error', done); });
    await until(async () => {
      if (child.exitCode !== null || child.pid === undefined) throw new Error('coturn ended at once');
      const turn = await openTurn(port);
      try { return await turn.binding(300).then(() => true, () => false); } finally { turn.close(); }
    }, { ms: 10_000, what: 'coturn is ready' });
  };
  const tidy = () => { signal(child.pid, 'SIGKILL'); fs.rmSync(dir, { recursive: true, force: true }); };
  const forget = onExit(tidy);
  const coturn = {
    port,
    log: () => fs.readFileSync(path.join(dir, 'log'), 'utf8'),
    /** Starts it again after `kill`. */
    start,
    /** Ends it at once. */
    async kill() {
      signal(child.pid, 'SIGKILL');
      await ended;
    },
    async stop() {
      signal(child.pid, 'SIGTERM');
      await Promise.race([ended, new Promise((done) => { setTimeout(done, 3000).unref(); })]);
      forget();
      tidy();
      releasePorts(port, ports);
    },
  };
  try {
    await start();
  } catch (error) {
    const text = coturn.log();
    await coturn.stop();
    throw new Error(`${error.message}\n${text.slice(-3000)}`);
  }
  return coturn;
}

const MAGIC = 0x2112a442;
const METHODS = { binding: 1, allocate: 3, refresh: 4, createPermission: 8 };
const ATTRIBUTES = { username: 6, integrity: 8, error: 9, lifetime: 0xd, peer: 0x12, realm: 0x14, nonce: 0x15, relayed: 0x16, transport: 0x19 };

/** A TURN client on a UDP socket of its own. @param {number} port of the server, on 127.0.0.1 */
export async function openTurn(port) {
  const socket = dgram.createSocket('udp4');
  await new Promise((done) => { socket.bind(0, '127.0.0.1', done); });
  let challenge = {};

  const attribute = (type, value) => {
    const head = Buffer.alloc(4);
    head.writeUInt16BE(ATTRIBUTES[type], 0);
    head.writeUInt16BE(value.length, 2);
    return Buffer.concat([head, value, Buffer.alloc((4 - (value.length % 4)) % 4)]);
  };
  const exchange = (method, attributes, key, ms = 2000) => new Promise((done, fail) => {
    const id = crypto.randomBytes(12);
    let body = Buffer.concat(attributes);
    const head = (extra) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt16BE(METHODS[method], 0);
      bytes.writeUInt16BE(body.length + extra, 2);
      bytes.writeUInt32BE(MAGIC, 4);
      return Buffer.concat([bytes, id]);
    };
    if (key) {
      const mac = crypto.createHmac('sha1', key).update(Buffer.concat([head(24), body])).digest();
      body = Buffer.concat([body, attribute('integrity', mac)]);
    }
    const packet = Buffer.concat([head(0), body]);
    const timer = setTimeout(() => { socket.off('message', take); fail(new Error(`${method}: no answer`)); }, ms);
    const take = (data) => {
      if (data.length < 20 || !data.subarray(8, 20).equals(id)) return;
      clearTimeout(timer);
      socket.off('message', take);
      const found = {};
      for (let at = 20; at + 4 <= data.length;) {
        const [type, length] = [data.readUInt16BE(at), data.readUInt16BE(at + 2)];
        const name = Object.keys(ATTRIBUTES).find((known) => ATTRIBUTES[known] === type);
        if (name) found[name] = data.subarray(at + 4, at + 4 + length);
        at += 4 + length + ((4 - (length % 4)) % 4);
      }
      const error = found.error && found.error[2] * 100 + found.error[3];
      done({ ...found, code: error ?? 200 });
    };
    socket.on('message', take);
    socket.send(packet, port, '127.0.0.1');
  });
  const authenticated = async (method, attributes, { username, credential }) => {
    for (let attempt = 0; ; attempt += 1) {
      const proof = challenge.nonce ? [
        attribute('username', Buffer.from(username)), attribute('realm', challenge.realm), attribute('nonce', challenge.nonce),
      ] : [];
      const key = challenge.nonce && crypto.createHash('md5').update(`${username}:${challenge.realm}:${credential}`).digest();
      const answer = await exchange(method, [...attributes, ...proof], key);
      const asked = [401, 438].includes(answer.code) && answer.nonce;
      if (!asked || attempt > 0) return answer;
      challenge = { realm: answer.realm, nonce: answer.nonce };
    }
  };
  const number = (value) => { const bytes = Buffer.alloc(4); bytes.writeUInt32BE(value); return bytes; };

  return {
    binding: (ms) => exchange('binding', [], undefined, ms),
    /** @param {{ username: string, credential: string }} server an entry of iceServers. @returns `code` 200, or the error */
    allocate: (server) => authenticated('allocate', [attribute('transport', Buffer.from([17, 0, 0, 0]))], server),
    refresh: (server, seconds) => authenticated('refresh', [attribute('lifetime', number(seconds))], server),
    /** May packets go to that address? @param {string} address IPv4 */
    permission(server, address) {
      const bytes = Buffer.from([0, 1, 0x21 ^ (9 >> 8), 0x12 ^ 9, ...address.split('.').map((part, i) => Number(part) ^ (MAGIC >>> (24 - 8 * i)) & 255)]);
      return authenticated('createPermission', [attribute('peer', bytes)], server);
    },
    close: () => socket.close(),
  };
}
