/**
 * The client against JsSIP, as shipped and tuned by hand, in one run on the same Kamailio and Asterisk. Prints `name value` lines.
 *
 * RTC_JSON_BENCH_CALLS: calls of each (15). Bytes and frames hold anywhere; times are those of the machine, so compare them within one run.
 */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { bundleJssip } from '../../scripts/jssip-bundle.mjs';
import { clientDir } from '../common/browser.mjs';
import { Agent, serveTestPages, sleep, startBrowser, startUpstream, until } from '../e2e/fixture.mjs';

const rounds = Number(process.env.RTC_JSON_BENCH_CALLS ?? 15);
// the first calls of a page compile its script
const warmUp = 2;
// a time that is longer than the best JsSIP's by so much (share and ms) still counts as level: medians of the same program in two runs
// differ by as much, and Asterisk writes whole milliseconds
const level = { share: 1.15, ms: 4 };

const ways = {
  json: { page: 'agent.html', dn: '5001', stun: (iceServers) => ({ rtc: { iceServers } }) },
  shipped: { page: 'jssip.html', dn: '5003', more: { tuned: false, domain: '127.0.0.1' }, stun: (iceServers) => ({ iceServers }) },
  tuned: { page: 'jssip.html', dn: '5003', more: { tuned: true, domain: '127.0.0.1' }, stun: (iceServers) => ({ iceServers }) },
};

let servers;
let browser;
let pages;
let bundle;
/** A STUN server that swallows everything. */
let hole;
before(async () => {
  servers = await startUpstream({ defines: { WITH_JSSIP: true } });
  bundle = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-jssip-'));
  await bundleJssip(bundle);
  pages = await serveTestPages([bundle]);
  browser = await startBrowser();
  hole = dgram.createSocket('udp4');
  await new Promise((bound) => { hole.bind(0, '127.0.0.1', bound); });
});
after(async () => {
  hole?.close();
  await browser?.close();
  await pages?.close();
  if (bundle) fs.rmSync(bundle, { recursive: true });
  await servers?.kamailio.stop();
  await servers?.asterisk.stop();
});

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const figures = {};
function print(name, value) {
  figures[name] = value;
  console.log(`${name} ${Number(value.toFixed(3))}`);
}

/** Opens a page whose frames on the WebSocket the browser itself counts. */
async function open({ page: file, dn, more, stun }, iceServers = []) {
  const page = await browser.page();
  const cdp = await browser.context.newCDPSession(page);
  await cdp.send('Network.enable');
  let tally = { frames: 0, bytes: 0 };
  for (const event of ['Network.webSocketFrameSent', 'Network.webSocketFrameReceived']) {
    cdp.on(event, ({ response: { payloadData } }) => {
      tally.frames += 1;
      tally.bytes += Buffer.byteLength(payloadData);
    });
  }
  await page.goto(`${pages.url}${file}`);
  await page.waitForFunction(() => window.agent);
  const agent = new Agent(page, dn);
  await agent.run('register', { dn, url: servers.kamailio.wssUrl, password: `pw${dn}`, ...more, ...(iceServers.length ? stun(iceServers) : {}) });
  return {
    agent,
    page,
    /** What has gone and come since the last time, once nothing goes or comes any more. */
    async taken() {
      for (let seen = -1; seen !== tally.frames; await sleep(250)) seen = tally.frames;
      const now = tally;
      tally = { frames: 0, bytes: 0 };
      return now;
    },
    async heap() {
      for (let i = 0; i < 3; i += 1) await cdp.send('HeapProfiler.collectGarbage');
      return (await cdp.send('Runtime.getHeapUsage')).usedSize;
    },
  };
}

/** When Asterisk got the first INVITE after this place of its log, in ms of the clock that the pages have. */
const inviteAt = (since) => {
  const [, time] = /\[(\d+-\d+-\d+ [\d:.]+)\][^\n]*<--- Received SIP request[^\n]*--->\r?\nINVITE /.exec(servers.asterisk.log().slice(since)) ?? [];
  return time && new Date(time.replace(' ', 'T')).getTime();
};

/** Calls the echo, hears, hangs up. @returns times in ms from the click */
async function call({ agent }, ms) {
  const since = servers.asterisk.log().length;
  const index = await agent.run('call', '600');
  await until(async () => (await agent.about(index)).at.firstPacket, { ms, what: 'the first packet' });
  const { at } = await agent.about(index);
  // (Asterisk writes its log in a thread of its own, later than the sound comes on a busy machine)
  const invite = await until(() => inviteAt(since), { what: 'Asterisk has logged the INVITE' });
  return { index, times: { invite: invite - at.start, ok: at.accepted - at.start, sound: at.firstPacket - at.start } };
}

async function gone() {
  await until(async () => await servers.asterisk.channels() === 0, { what: 'the channel is gone' });
}

test(`${rounds} calls of each, in turn`, async () => {
  const clients = {};
  const seen = {};
  const note = (name, what, value) => ((seen[name] ??= {})[what] ??= []).push(value);
  const count = (name, what, { frames, bytes }) => {
    note(name, `${what}_frames`, frames);
    note(name, `${what}_bytes`, bytes);
  };
  for (const [name, way] of Object.entries(ways)) {
    clients[name] = await open(way);
    count(name, 'register', await clients[name].taken());
    note(name, 'heap_registered', await clients[name].heap());
  }
  for (let round = -warmUp; round < rounds; round += 1) {
    // in turn: what else the machine does meanwhile hits all of them
    for (const [name, client] of Object.entries(clients)) {
      await client.page.bringToFront();
      const { index, times } = await call(client, 5000);
      const made = await client.taken();
      await client.agent.run('hold', index, true);
      const held = await client.taken();
      await client.agent.run('hangup', index);
      await gone();
      const ended = await client.taken();
      if (round < 0) continue;
      count(name, 'call', made);
      count(name, 'hold', held);
      count(name, 'hangup', ended);
      for (const [what, value] of Object.entries(times)) note(name, `click_to_${what}_ms`, value);
    }
  }
  for (const [name, client] of Object.entries(clients)) {
    for (const [what, values] of Object.entries(seen[name])) print(`${name}.${what}`, median(values));
    print(`${name}.heap_after_calls`, await client.heap());
    await client.page.close();
  }
});

test('a STUN server that does not answer', async () => {
  const iceServers = [{ urls: `stun:127.0.0.1:${hole.address().port}` }];
  const clients = {};
  for (const [name, way] of Object.entries(ways)) clients[name] = await open(way, iceServers);
  const seen = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  for (let round = -warmUp; round < rounds; round += 1) {
    for (const [name, client] of Object.entries(clients)) {
      // (as shipped it takes some 40 s a call)
      if (name === 'shipped' && round !== 0) continue;
      await client.page.bringToFront();
      const { index, times } = await call(client, 60_000);
      await client.agent.run('hangup', index);
      await gone();
      if (round >= 0) seen[name].push(times);
    }
  }
  for (const [name, values] of Object.entries(seen)) {
    for (const what of Object.keys(values[0])) print(`${name}.dead_stun_click_to_${what}_ms`, median(values.map((times) => times[what])));
    await clients[name].page.close();
  }
});

test('the aims', () => {
  const size = (file) => gzipSync(fs.readFileSync(file), { level: 9 }).length;
  print('json.bundle_gzip', size(path.join(clientDir, 'dist/rtc-json.js')));
  print('json.bundle_gzip_with_everything', size(path.join(clientDir, 'dist/rtc-json.global.js')));
  print('shipped.bundle_gzip', size(path.join(bundle, 'jssip.bundle.js')));
  const wire = (name) => ['register', 'call', 'hold', 'hangup'].reduce((sum, what) => sum + figures[`${name}.${what}_bytes`], 0);
  const ratios = {
    bundle: figures['json.bundle_gzip'] / figures['shipped.bundle_gzip'],
    wire_bytes: wire('json') / Math.min(wire('shipped'), wire('tuned')),
    heap_after_calls: figures['json.heap_after_calls'] / figures['tuned.heap_after_calls'],
  };
  const slower = [];
  for (const what of ['invite', 'ok', 'sound']) {
    for (const dead of ['', 'dead_stun_']) {
      const key = `${dead}click_to_${what}_ms`;
      const [ours, best] = [figures[`json.${key}`], Math.min(figures[`shipped.${key}`], figures[`tuned.${key}`])];
      ratios[key] = ours / best;
      if (ours > Math.max(best * level.share, best + level.ms)) slower.push(`${key}: ${ours}, best ${best}`);
    }
  }
  for (const [name, value] of Object.entries(ratios)) print(`ratio.${name}`, value);
  assert.ok(ratios.bundle <= 0.06, `bundle ${ratios.bundle}`);
  assert.ok(ratios.wire_bytes <= 0.35, `bytes on the wire ${ratios.wire_bytes}`);
  assert.deepEqual(slower, [], 'slower than the best JsSIP');
});

test('nothing went wrong that nobody saw', () => assert.deepEqual(browser.errors, []));
