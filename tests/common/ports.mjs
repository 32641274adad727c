/** Free ports on loopback. */
import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';

// Below the range from which the kernel takes ports for outgoing connections (32768 and up by default), so that a port
// found free here is not taken by somebody's connection a moment later.
const [first, last] = (process.env.RTC_JSON_TEST_PORTS ?? '25400-29999').split('-').map(Number);
const taken = new Set();

const bindTcp = (port) => new Promise((done) => {
  const server = net.createServer();
  server.once('error', () => done(false));
  server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => done(true)));
});

const bindUdp = (port) => new Promise((done) => {
  const socket = dgram.createSocket('udp4');
  socket.once('error', () => { socket.close(); done(false); });
  socket.bind({ port, address: '127.0.0.1', exclusive: true }, () => socket.close(() => done(true)));
});

/**
 * `count` ports in a row, free for UDP and TCP alike, each given out once per process.
 * @param {number} [count]
 * @returns {Promise<number>} the first of them; even, as RTP wants it
 */
export async function freePorts(count = 1) {
  const span = last - first + 1 - count;
  // begins somewhere else in every process: two harnesses side by side rarely try the same port
  const offset = Math.floor(Math.random() * span);
  for (let i = 0; i < span; i += 1) {
    const port = first + ((offset + i) % span);
    if (port % 2) continue;
    const range = Array.from({ length: count }, (_, k) => port + k);
    if (range.some((p) => taken.has(p))) continue;
    const free = (await Promise.all(range.map(async (p) => await bindTcp(p) && await bindUdp(p)))).every(Boolean);
    if (!free) continue;
    for (const p of range) taken.add(p);
    return port;
  }
  throw new Error(`no ${count} free ports in a row between ${first} and ${last}`);
}

/**
 * Gives ports back, when what listened there has ended.
 * @param {number} first
 * @param {number} [count]
 */
export function releasePorts(first, count = 1) {
  for (let i = 0; i < count; i += 1) taken.delete(first + i);
}

/** One free port, for UDP and TCP alike. */
export const freePort = () => freePorts(1);

/**
 * Whether somebody has bound this UDP port (IPv4); asks the kernel, sends nothing.
 * @param {number} port
 * @param {string} [proc] where the kernel tells it, for another machine than this one
 */
export function udpBound(port, proc = '/proc/net') {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  return fs.readFileSync(`${proc}/udp`, 'latin1').split('\n').some((line) => line.trim().split(/\s+/)[1]?.endsWith(`:${hex}`));
}

/**
 * Whether an HTTP request to this port gets any answer.
 * @param {number} port
 * @param {string} [host]
 * @returns {Promise<boolean>}
 */
export function httpAnswers(port, host = '127.0.0.1') {
  return new Promise((done) => {
    const socket = net.connect({ port, host }, () => socket.write('GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n'));
    const end = (answered) => { socket.destroy(); done(answered); };
    socket.once('data', () => end(true));
    socket.once('error', () => end(false));
    socket.once('close', () => end(false));
    socket.setTimeout(2000, () => end(false));
  });
}
