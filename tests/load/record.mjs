/**
 * Records what a call carries on the WebSocket, for the other load tests: JsSIP as shipped, and our client, in Chromium, each against the
 * server that `make bench-peers` measures it with. Writes the offers and the frames of one call into tests/load/recorded.
 *
 *     node tests/load/record.mjs      (as root: the network is one of its own, with one address)
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleJssip } from '../../scripts/jssip-bundle.mjs';
import { clientDir, servePages, startBrowser } from '../common/browser.mjs';
import { onExit, until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { startSipp } from '../common/sipp.mjs';

// a machine with one network, whose address (RFC 5737) is what the browser offers
const address = '192.0.2.10';
if (!process.env.RTC_JSON_RECORDING) {
  const setup = `ip link set lo up && ip link add net0 type veth peer name net1 && ip addr add ${address}/24 dev net0 && ip link set net0 up && ip link set net1 up && ip route add default dev net0 && exec "$@"`;
  const { status } = spawnSync('unshare', ['--net', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', setup, 'sh', process.execPath, fileURLToPath(import.meta.url)], {
    stdio: 'inherit', env: { ...process.env, RTC_JSON_RECORDING: '1' },
  });
  process.exit(status ?? 1);
}

const folder = fileURLToPath(new URL('recorded/', import.meta.url));
fs.mkdirSync(folder, { recursive: true });
const bundle = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-record-'));
onExit(() => fs.rmSync(bundle, { recursive: true, force: true }));
await bundleJssip(bundle);

const sipp = await startSipp({ scenario: 'uas-at-once', calls: 100, timeout: 120, trace: false });
const pages = await servePages({ dirs: [fileURLToPath(new URL('../e2e/pages/', import.meta.url)), bundle, clientDir] });
// no address of the loopback among the candidates
const browser = await startBrowser({ loopback: false });
const servers = {
  jssip: await startKamailio({ mode: 'upstream', nextHop: sipp.uri, users: [], debug: 1, cfg: fileURLToPath(new URL('sip-ws.cfg', import.meta.url)) }),
  client: await startKamailio({ nextHop: sipp.uri, debug: 1, defines: { WITHOUT_TLS: true } }),
};
const dn = '5001';
const ways = {
  jssip: { page: 'jssip.html', options: { tuned: false, domain: 'rtc.local', session_timers: true } },
  client: { page: 'agent.html', options: {} },
};

try {
  for (const [name, { page: file, options }] of Object.entries(ways)) {
    const page = await browser.page();
    const cdp = await browser.context.newCDPSession(page);
    await cdp.send('Network.enable');
    let frames = [];
    for (const [event, dir] of [['Network.webSocketFrameSent', 'out'], ['Network.webSocketFrameReceived', 'in']]) {
      cdp.on(event, ({ response: { payloadData, opcode } }) => frames.push({ dir, text: opcode === 2 ? Buffer.from(payloadData, 'base64').toString() : payloadData }));
    }
    const run = (method, ...list) => page.evaluate(([key, args]) => window.agent[key](...args), [method, list]);
    await page.goto(`${pages.url}${file}`);
    await page.waitForFunction(() => window.agent);
    await run('register', { url: servers[name].wsUrl, dn, password: `pw${dn}`, ...options });
    frames = [];
    const index = await run('call', '900000001');
    await until(async () => (await run('about', index))?.state === 'established', { ms: 60_000, what: `${name} talks` });
    await run('hangup', index);
    const last = name === 'jssip' ? /^SIP\/2.0 200 [^]*\nCSeq: \d+ BYE/ : /^\{"type":"callEnded"/;
    await until(() => frames.some(({ dir, text }) => dir === 'in' && last.test(text)), { ms: 20_000, what: `${name} is done` });
    // (the answer to the registration may come in between)
    frames = frames.slice(frames.findIndex(({ dir }) => dir === 'out'));
    const first = frames[0].text;
    const offer = name === 'jssip' ? first.slice(first.indexOf('\r\n\r\n') + 4) : JSON.parse(first).payload.sdp;
    fs.writeFileSync(path.join(folder, `${name}-offer.sdp`), offer);
    fs.writeFileSync(path.join(folder, `${name}.json`), `${JSON.stringify(frames, null, 1)}\n`);
    const bytes = (dir) => frames.filter((frame) => frame.dir === dir).reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
    console.log(`${name}: ${frames.map(({ dir, text }) => `${dir} ${Buffer.byteLength(text)}`).join(', ')}; out ${bytes('out')}, in ${bytes('in')}, offer ${offer.length}`);
    await page.close();
  }
} finally {
  await browser.close();
  await pages.close();
  for (const server of Object.values(servers)) await server.stop();
  await sipp.stop();
}
process.exit(0);
