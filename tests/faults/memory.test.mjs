/** Kamailio's memory runs out: at each place where a call needs some, once; and the arena is full. Nobody dies, nothing is left half-made. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onExit, until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { realm, startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer, Registrar } from '../sip/peer.mjs';
import { hopByNumber, memoryOf, tm, to } from '../sip/support.mjs';
import { backAtBaseline, Callee, noAlarm, note } from './support.mjs';

const module_ = fileURLToPath(new URL('../../run/faults/failing_memory.so', import.meta.url));
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-memory-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));

/** tm of Kamailio 5.6 looks whether it got the memory for an ACK only after it has moved the pointer (build_dlg_ack). */
const tmDies = /build_dlg_ack\(\)/;

/** The allocations that fail, as failing_memory.c reads them. */
class Failing {
  #fd;

  constructor(file) {
    fs.writeFileSync(file, Buffer.alloc(248));
    this.#fd = fs.openSync(file, 'r+');
  }

  /** From here on: those from `first` to `last` fail (0: none), in shared (1) or private (2) memory. */
  arm(pool, first = 0, last = first) {
    this.disarm();
    const head = Buffer.alloc(244);
    head.writeInt32LE(first, 0);
    head.writeInt32LE(last, 4);
    fs.writeSync(this.#fd, head, 0, head.length, 4);
    const word = Buffer.alloc(4);
    word.writeInt32LE(pool);
    fs.writeSync(this.#fd, word, 0, 4, 0);
  }

  /** Ends it and tells how many there were, how many of them failed, and where the first did. */
  disarm() {
    fs.writeSync(this.#fd, Buffer.alloc(4), 0, 4, 0);
    const all = Buffer.alloc(248);
    fs.readSync(this.#fd, all, 0, all.length, 0);
    return { count: all.readInt32LE(12), failed: all.readInt32LE(16), site: all.toString('latin1', 20).replace(/\0.*$/s, '') };
  }
}

describe('an allocation fails', () => {
  const control = path.join(dir, 'control');
  let kamailio;
  let failing;
  let registrarPeer;
  let peer;
  let far;
  before(async () => {
    failing = new Failing(control);
    const port = await freePort();
    kamailio = await startKamailio({
      mode: 'upstream', nextHop: `sip:127.0.0.1:${port}`, cfg: hopByNumber(), workers: 2,
      params: { resume_grace: 2, call_history: 0 },
      cfgExtra: [
        tm({ wt_timer: 200, fr_timer: 1500, fr_inv_timer: 3000 }), 'modparam("websocket", "rm_delay_interval", 1)',
        `loadmodule "${module_}"`, `modparam("failing_memory", "control", "${control}")`, 'modparam("failing_memory", "modules", "rtc_json,tm,")',
      ].join('\n'),
    });
    registrarPeer = await openPeer(kamailio.sipPort, { port });
    new Registrar(registrarPeer, { realm });
    peer = await openPeer(kamailio.sipPort, { port: await freePort() });
    far = new Callee(peer);
  });
  after(async () => {
    await kamailio?.stop();
    await Promise.all([registrarPeer?.close(), peer?.close()]);
  });

  /** All that a call does: registered, out, held, ended; in, answered, ended by the far side. Whatever is refused, it goes on. */
  async function everything() {
    const told = [];
    const client = await connect(kamailio.wsUrl);
    try {
      const ask = async (type, payload) => {
        const { type: outcome, payload: { code } } = await client.request(type, payload, { ms: 10_000 });
        told.push(`${type} ${outcome}${code ? ` ${code}` : ''}`);
        return outcome;
      };
      if (await ask('register', { dn: '5001', password: 'pw5001', displayName: '' }) !== 'registered') return told;
      const id = client.send('call', { to: to(peer), sdp: fakeOffer() });
      const outcome = await until(() => client.received.find((m) => m.id === id && m.type !== 'callProgress'), { ms: 10_000, what: 'outcome of call' });
      told.push(`call ${outcome.type}${outcome.payload.code ? ` ${outcome.payload.code}` : ''}`);
      const { callId } = outcome.payload;
      if (outcome.type === 'callAccepted') {
        await ask('hold', { callId, hold: true });
        await ask('hangup', { callId, reason: 'user_hangup' });
      }
      const leg = peer.leg('5001');
      leg.invite({ body: farSdp() });
      const refused = leg.answer(8000).catch(() => undefined);
      const rings = client.waitFor('incomingCall', undefined, 8000).catch(() => undefined);
      const incoming = await Promise.race([rings, refused.then((reply) => (reply ? undefined : rings))]);
      if (incoming) await ask('answer', { callId: incoming.callId, sdp: fakeAnswer() });
      const final = await refused;
      told.push(`in ${final?.status ?? 'no reply'}`);
      if (final) leg.ack(final);
      if (final?.status === 200) {
        const bye = await leg.bye(3000).catch(() => undefined);
        told.push(`bye ${bye?.status ?? 'no reply'}`);
        if (bye?.status !== 200 && bye?.status !== 481) await leg.bye(3000).catch(() => undefined);
      }
      await ask('unregister', {});
      return told;
    } finally { await client.close(); }
  }

  // (of private memory the module and tm took none in such a call: nothing to fail there)
  for (const [pool, name] of [[1, 'shared']]) {
    test(`${name} memory, once at each place`, { timeout: 600_000 }, async () => {
      let pid = kamailio.pid;
      await everything();
      failing.arm(pool);
      const usual = await everything();
      const { count } = failing.disarm();
      assert.deepEqual(usual, ['register registered', 'call callAccepted', 'hold callUpdated', 'hangup callEnded', 'answer ack', 'in 200', 'bye 200', 'unregister unregistered']);
      assert.ok(count > 20, `${count} allocations`);
      let from = await memoryOf(kamailio);
      const sites = new Map();
      const wrong = [];
      const died = [];
      for (let n = 1; n <= count; n += 1) {
        failing.arm(pool, n);
        const told = await everything().catch((error) => [`stuck: ${error.message.split('\n')[0]}`]);
        const { failed, site } = failing.disarm();
        if (failed) sites.set(site, (sites.get(site) ?? 0) + 1);
        const note_ = (what) => wrong.push(`${n} of ${count}, ${site}: ${what} (${told.join(', ')})`);
        const dead = () => kamailio.pid !== pid;
        const left = async () => {
          const [calls, { current }] = [await kamailio.rpcRows('rtc_json.calls'), await kamailio.rpc('tm.stats')];
          return far.live.length + calls.length + current && `${far.live.length} on the far side, ${calls.length} calls, ${current} transactions`;
        };
        const idle = await until(() => left().then((what) => !what, dead), { ms: 10_000, every: 50 }).catch(() => false);
        if (dead()) {
          // a fault of Kamailio's own is named, and the rest is tried all the same
          if (tmDies.test(site)) died.push(site); else note_('Kamailio died');
          await until(() => kamailio.pids.length === 0, { what: 'all of Kamailio has ended' });
          await kamailio.start();
          pid = kamailio.pid;
          for (const id of far.live) far.calls.get(id).over = true;
          await everything();
          from = await memoryOf(kamailio);
          continue;
        }
        if (told.some((text) => text.startsWith('stuck'))) note_('no outcome');
        if (!idle) note_(`left over: ${await left()}`);
        for (const id of far.live) far.calls.get(id).over = true;
      }
      note(`${count} allocations at ${sites.size} places; ended Kamailio by a fault of its own: ${died.length ? died.join(', ') : 'none'}`);
      for (const [site, times] of sites) note(`  ${times} x ${site}`);
      assert.deepEqual(wrong, []);
      assert.deepEqual(await everything(), usual);
      // a connection that is over keeps its buffer until Kamailio's timer comes by
      await until(async () => (await memoryOf(kamailio)).shm - from.shm < 20_000, { ms: 15_000, every: 1000 }).catch(() => {});
      backAtBaseline(from, await memoryOf(kamailio), { shm: 20_000 });
      assert.equal(await kamailio.stat('step_failures'), 0);
      // what a process says whose sibling died, and tm of its own want
      noAlarm(kamailio, [/receive_fd\(\): EOF on/, /handle_sigs\(\): (child process \d+ exited by a signal|core was)/]);
    });
  }
});
