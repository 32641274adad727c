/** Servers, pages and measurements that the end-to-end tests share. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { startAsterisk } from '../common/asterisk.mjs';
import { clientDir, servePages, startBrowser } from '../common/browser.mjs';
import { sleep, until } from '../common/cleanup.mjs';
import { startFirefox } from '../common/firefox.mjs';
import { startKamailio, tlsBug } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';

/** The pages of these tests, with the client's `dist` beside them. */
export const serveTestPages = (dirs = [], options = {}) => servePages({ ...options, dirs: [fileURLToPath(new URL('./pages/', import.meta.url)), ...dirs, clientDir] });

/**
 * Asterisk as the registrar, and Kamailio in front of it. Asterisk writes every SIP message to its log.
 * @param {import('../common/kamailio.mjs').Options & { media?: string }} [options] of Kamailio; media: the address of Asterisk's sound
 */
export async function startUpstream({ media, ...options } = {}) {
  const port = await freePort();
  const kamailio = await startKamailio({ mode: 'upstream', asteriskPort: port, workers: 4, ...options });
  const asterisk = await startAsterisk({ kamailio: `127.0.0.1:${kamailio.sipPort}`, port, media });
  await asterisk.rx('pjsip set logger on');
  return { kamailio, asterisk };
}

// a page that says nothing for so long does not say anything any more
const patience = 15_000;

/** One agent in one page. Made by `openAgent`. */
export class Agent {
  constructor(page, dn) {
    this.page = page;
    this.dn = dn;
  }

  /** Runs one of the functions of `window.agent` in the page. One that never ends fails. @param {string} name */
  async run(name, ...args) {
    let timer;
    try {
      return await Promise.race([
        this.page.evaluate(([method, list]) => window.agent[method](...list), [name, args]),
        new Promise((_, fail) => {
          timer = setTimeout(async () => fail(new Error(`${name}(${args}) of ${this.dn} gave nothing\n${await this.transcript()}`)), patience);
        }),
      ]);
    } finally { clearTimeout(timer); }
  }

  about(index) { return this.run('about', index); }

  /** Calls and waits until the far side has answered. @returns {Promise<number>} index of the call */
  async callAndWait(to, ms = 5000) {
    const index = await this.run('call', to);
    await this.reaches(index, 'established', ms);
    return index;
  }

  /** Waits until call `index` is there and in this state. @returns {Promise<any>} what is known of it */
  async reaches(index, state, ms = 5000) {
    let last;
    try {
      return await until(async () => { last = await this.about(index); return last?.state === state && last; }, { ms });
    } catch {
      throw new Error(`call ${index} of ${this.dn} did not become ${state} within ${ms} ms: ${JSON.stringify(last)}\n${await this.transcript()}`);
    }
  }

  /** The JSON messages of this page. @returns {Promise<{ at: number, dir: 'in' | 'out', type: string, payload: any, id: string }[]>} */
  async messages() {
    const frames = await this.page.evaluate(() => window.agent.frames);
    return frames.map(({ at, dir, data }) => ({ at, dir, ...JSON.parse(data) }));
  }

  /** Messages of this type that came, in order. @returns {Promise<any[]>} their payloads */
  async got(type, accept = () => true) {
    return (await this.messages()).filter((m) => m.dir === 'in' && m.type === type && accept(m.payload)).map((m) => m.payload);
  }

  /** Waits for a message of this type, also one that came already. @returns {Promise<any>} its payload */
  async gets(type, accept = () => true, ms = 5000) {
    try {
      return await until(async () => (await this.got(type, accept))[0], { ms });
    } catch { throw new Error(`${this.dn} got no ${type} ${accept} within ${ms} ms\n${await this.transcript()}`); }
  }

  /** Waits until a call is over. @returns {Promise<any>} how it ended */
  async ended(index, ms = 5000) { return (await this.reaches(index, 'ended', ms)).end; }

  /** The first message of this type in this direction. */
  async message(dir, type) { return (await this.messages()).find((m) => m.dir === dir && m.type === type); }

  async transcript() {
    return (await this.messages()).map(({ dir, type, payload, id }) => `${dir === 'in' ? '<' : '>'} ${type} ${id} ${
      JSON.stringify(payload, (key, value) => (key === 'password' ? '…' : key === 'sdp' && value ? `<sdp ${value.length}>` : value))}`).join('\n');
  }
}

/**
 * Opens a page and registers.
 * @param {Awaited<ReturnType<typeof startBrowser>>} browser
 * @param {{ url: string }} pages
 * @param {{ dn: string, url: string, [option: string]: any }} options of the client; `tone`: see pages/agent.js
 * @returns {Promise<Agent>}
 */
export async function openAgent(browser, pages, { dn, ...options }) {
  const page = await browser.page(`${pages.url}agent.html`);
  await page.waitForFunction(() => window.agent);
  const agent = new Agent(page, dn);
  await agent.run('register', { dn, password: `pw${dn}`, displayName: `Agent ${dn}`, ...options });
  return agent;
}

/**
 * Asterisk, Kamailio, a browser and pages that send tones: what most of these tests need.
 * @param {Record<string, number>} tones DN to hertz
 * @param {import('../common/kamailio.mjs').Options & { local?: boolean, firefox?: string[] }} [options] of Kamailio; local: without
 *   Asterisk; firefox: DNs whose pages are opened in Firefox, whose microphone hums the tone of the first; all others are in Chromium
 */
export async function startBench(tones, { local = false, firefox = [], ...options } = {}) {
  const servers = local ? { kamailio: await startKamailio({ mode: 'local', workers: 4, ...options }) } : await startUpstream(options);
  const pages = await serveTestPages();
  const browser = await startBrowser();
  const fox = firefox.length ? await startFirefox({ hertz: tones[firefox[0]] }) : undefined;
  const bench = {
    ...servers,
    browser,
    fox,
    pages,
    /** @type {Record<string, Agent>} */
    agents: {},

    /** Opens a page and registers. */
    open: (dn, more = {}) => (firefox.includes(dn)
      ? openAgent(fox, pages, { dn, url: servers.kamailio.wssUrl, ...more })
      : openAgent(browser, pages, { dn, url: servers.kamailio.wssUrl, tone: tones[dn], ...more })),

    /** All channels of Asterisk, and all calls of Kamailio, are gone. */
    async quiet(ms = 5000) {
      await until(async () => (await servers.kamailio.rpcRows('rtc_json.calls')).length === 0, { ms, what: 'no call is left in Kamailio' });
      if (servers.asterisk) await until(async () => await servers.asterisk.channels() === 0, { ms, what: 'no channel is left in Asterisk' });
    },

    /** After a test, also one that failed: ends what is left. */
    async hangUpAll() {
      for (const { callId } of await servers.kamailio.rpcRows('rtc_json.calls')) await servers.kamailio.rpc('rtc_json.hangup', callId).catch(() => {});
      await servers.asterisk?.rx('channel request hangup all');
      await bench.quiet();
    },

    /** SIP messages in Asterisk's log, from `since` (its length then). @returns {string[]} */
    sip: (start, since = 0) => servers.asterisk.log().slice(since).split('--->\n').filter((text) => text.startsWith(start)),

    /** Nothing went wrong that nobody saw. */
    clean() {
      assert.deepEqual([...browser.errors, ...(fox?.errors ?? [])], []);
      assert.deepEqual(complaints(servers.kamailio), []);
    },

    async stop() {
      await browser.close();
      await fox?.close();
      await pages.close();
      await servers.kamailio.stop();
      await servers.asterisk?.stop();
    },
  };
  for (const dn of Object.keys(tones)) bench.agents[dn] = await bench.open(dn);
  return bench;
}

/**
 * Fails unless the server refuses a request of this agent.
 * @param {Agent} agent
 * @param {string} type
 * @param {object} payload
 * @param {number} code that the `error` must have
 */
export async function refused(agent, type, payload, code) {
  const before = (await agent.messages()).length;
  await assert.rejects(agent.run('request', type, payload), `${type} ${JSON.stringify(payload).slice(0, 200)} was not refused`);
  const outcome = (await agent.messages()).slice(before).findLast((m) => m.dir === 'in' && m.type === 'error');
  assert.equal(outcome?.payload.code, code, `${type} ${JSON.stringify(payload).slice(0, 200)}: ${JSON.stringify(outcome)}`);
}

/**
 * One agent calls another, who answers, and both hear each other.
 * @param {Agent} caller
 * @param {Agent} callee
 * @returns {Promise<[number, number]>} indices of the call at either
 */
export async function talk(caller, callee) {
  const theirs = await callee.run('count');
  const ours = await caller.run('call', callee.dn);
  await callee.reaches(theirs, 'ringing');
  await callee.run('answer', theirs);
  await caller.reaches(ours, 'established');
  await callee.reaches(theirs, 'established');
  for (const [agent, index] of [[caller, ours], [callee, theirs]]) {
    await until(async () => (await agent.run('sound', index)).packets > 10, { what: `sound reaches ${agent.dn}` });
  }
  return [ours, theirs];
}

// A beep of the fake microphone adds some hundredths, silence less than a millionth. Measured over more than two beeps.
const audible = 1e-3;
const listenFor = 2300;

/**
 * Measures what each of these calls hears in the next seconds, all at the same time.
 * @param {...[{ run(name: string, ...args: any[]): Promise<any> }, number]} calls agent and index of the call
 */
export async function listen(...calls) {
  const before = await Promise.all(calls.map(([agent, index]) => agent.run('sound', index)));
  await sleep(listenFor);
  const after = await Promise.all(calls.map(([agent, index]) => agent.run('sound', index)));
  return after.map((end, i) => ({
    seconds: (end.at - before[i].at) / 1000, packets: end.packets - before[i].packets, sent: end.sent - before[i].sent,
    energy: end.energy - before[i].energy, codec: end.codec, pair: end.pair,
  }));
}

/** Like `listen`, and fails unless every one of them has heard a sound all the time. Gives the figures as text, too. */
export async function hears(...calls) {
  const heard = await listen(...calls);
  for (const [i, { seconds, packets, energy, codec }] of heard.entries()) {
    const text = `${calls[i][0].dn}: ${JSON.stringify(heard[i])}`;
    assert.ok(seconds >= 2, text);
    // 50 packets a second are sent; a busy machine loses some, but sound that stops has none
    assert.ok(packets > seconds * 15, `sound stops: ${text}`);
    assert.ok(energy > audible, `nothing but silence: ${text}`);
    assert.equal(codec, 'audio/PCMU');
  }
  return heard.map((h, i) => `${calls[i][0].dn} hears ${h.packets} packets in ${h.seconds.toFixed(1)} s, energy ${h.energy.toPrecision(2)}, ${h.pair}`).join('; ');
}

/** Fails unless each of these calls gets packets that hold nothing but silence. */
export async function hearsSilence(...calls) {
  // what was sent before stands in the jitter buffer, longer on a busy machine
  await sleep(1000);
  for (const [i, heard] of (await listen(...calls)).entries()) {
    assert.ok(heard.energy < audible / 100, `${calls[i][0].dn} hears something: ${JSON.stringify(heard)}`);
  }
}

// In a tone of an agent's own (pages/measure.js) there is a quarter of full scale, in each note of the music a third of that.
const heardTone = 0.02;
const silentTone = 0.004;

/** The notes of Asterisk's music on hold (scripts/asterisk.sh). */
export const music = [523, 659, 784];

/**
 * Fails unless what a call hears in the next two seconds has all of these tones and none of those.
 * @param {[{ dn: string, run(name: string, ...args: any[]): Promise<any> }, number]} call agent and index of the call
 * @param {{ has?: number[], not?: number[] }} tones in hertz
 * @returns {Promise<string>} the figures
 */
export async function hearsTones([agent, index], { has = [], not = [] }) {
  // what was sent before stands in the jitter buffer, longer on a busy machine
  await sleep(1000);
  const found = await agent.run('spectrum', index, [...has, ...not]);
  const text = `${agent.dn} hears ${[...has, ...not].map((hertz, i) => `${hertz} Hz ${found[i].toFixed(4)}`).join(', ')}`;
  has.forEach((hertz, i) => assert.ok(found[i] > heardTone, `no ${hertz} Hz: ${text}`));
  not.forEach((hertz, i) => assert.ok(found[has.length + i] < silentTone, `${hertz} Hz: ${text}`));
  return text;
}

/** Payload formats of the audio section of an SDP, by name, in order. */
export function codecs(sdp) {
  const [, formats] = /^m=audio \d+ \S+ (.*?)\r?$/m.exec(sdp);
  const named = new Map([...sdp.matchAll(/^a=rtpmap:(\d+) ([^\r\n]+)/gm)].map(([, format, name]) => [format, name]));
  return { formats: formats.split(' ').map((format) => named.get(format) ?? format), mapped: [...named.values()] };
}

/**
 * What Kamailio complained of, except for what its core says of a connection that was cut or a process that was killed.
 * @param {import('../common/kamailio.mjs').Kamailio} kamailio
 * @param {RegExp} [expected] what else this test brings about
 */
export const complaints = (kamailio, expected = /^$/) => kamailio.warnings()
  .filter((line) => !tlsBug.test(line) && !/openssl bug|tcp_read_(data|req)\(\)|receive_fd\(\): EOF|pid file contains old pid/.test(line) && !expected.test(line));

/** Whole milliseconds between two times. */
export const ms = (from, to) => Math.round(to - from);

/** Prints a figure that was measured. @param {string} text */
export const note = (text) => console.log(`# ${text}`);

export { sleep, startBrowser, startKamailio, until };
