/**
 * How fast the API answers on one worker, beside xhttp with a fixed string: node tests/load/rest.mjs
 *
 * Both are asked by the same connections, kept alive, one request at a time each, in turns; what is printed last is the ratio.
 */
import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { editedConfig } from '../sip/support.mjs';

const connections = 8;
const seconds = 3;
const rounds = 3;

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-bench-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const keyFile = path.join(dir, 'keys.json');
const jwk = newSecret('hs');
fs.writeFileSync(keyFile, JSON.stringify({ keys: [jwk] }), { mode: 0o600 });
const token = sign(claims('5001'), crypto.createSecretKey(Buffer.from(jwk.k, 'base64url')), { kid: 'hs' });

const cfg = editedConfig((text) => text.replace('event_route[xhttp:request] {\n', `event_route[xhttp:request] {
	if ($hu == "/fixed") { xhttp_reply("200", "OK", "application/json", "{}"); exit; }
`));
const kamailio = await startKamailio({ cfg, workers: 1, params: { jwt_keys: keyFile } });
const browser = await connect(kamailio.wsUrl);
await browser.register('5001');

/** One connection that asks again as soon as it has its answer. Times in ms go to `times`. */
function asker(target, until, times) {
  const request = `GET ${target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`;
  return new Promise((done, fail) => {
    let from;
    let text = '';
    const socket = net.connect({ port: kamailio.wsPort, host: '127.0.0.1', noDelay: true });
    const ask = () => { from = performance.now(); socket.write(request); };
    socket.on('connect', ask);
    socket.on('error', fail);
    socket.on('data', (part) => {
      text += part.toString('latin1');
      const head = text.indexOf('\r\n\r\n');
      const length = /^content-length: *(\d+)/im.exec(text)?.[1];
      if (head < 0 || text.length < head + 4 + Number(length)) return;
      if (!text.startsWith('HTTP/1.1 200 ')) { fail(new Error(text)); return; }
      text = '';
      times.push(performance.now() - from);
      if (performance.now() < until) ask(); else { socket.destroy(); done(); }
    });
  });
}

/** Processor time of Kamailio so far, in microseconds: the client may well be slower than the server, and this is the server's alone. */
const spent = () => kamailio.pids.reduce((sum, pid) => {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  const [user, system] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 13).map(Number);
  return sum + (user + system) * 10_000; // the kernel counts hundredths of a second
}, 0);

async function measure(target) {
  const times = [];
  const before = spent();
  const from = performance.now();
  await Promise.all(Array.from({ length: connections }, () => asker(target, from + seconds * 1000, times)));
  const took = (performance.now() - from) / 1000;
  const cpu = (spent() - before) / times.length;
  times.sort((a, b) => a - b);
  return { cpu, rate: times.length / took, p50: times[times.length >> 1], p99: times[Math.floor(times.length * 0.99)] };
}

const middle = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const results = { '/fixed': [], '/api/dn/5001': [] };
for (let i = 0; i < rounds; i += 1) {
  for (const target of Object.keys(results)) results[target].push(await measure(target));
}
for (const [target, all] of Object.entries(results)) {
  console.log(`${target.padEnd(14)} ${middle(all.map((r) => r.rate)).toFixed(0).padStart(7)} requests/s, ${middle(all.map((r) => r.cpu)).toFixed(0)} µs of processor time each, ${middle(all.map((r) => r.p50)).toFixed(2)} ms at the median, ${middle(all.map((r) => r.p99)).toFixed(2)} ms at the 99th percentile`);
}
const ratio = (name) => middle(results['/api/dn/5001'].map((r) => r[name])) / middle(results['/fixed'].map((r) => r[name]));
console.log(`API to fixed string: ${ratio('cpu').toFixed(2)} of processor time (wanted: at most 2), ${ratio('rate').toFixed(2)} of throughput, ${ratio('p50').toFixed(2)} of latency`);
await browser.close();
await kamailio.stop();
