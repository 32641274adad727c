/** Whether the contact centre answers: OPTIONS to a far side that answers, is silent, or cannot do its work. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { ask } from '../common/http.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { openPeer } from '../sip/peer.mjs';
import { Bench, tm } from '../sip/support.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-genesys-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const keyFile = path.join(dir, 'keys.json');
const jwk = newSecret('hs');
fs.writeFileSync(keyFile, JSON.stringify({ keys: [jwk] }), { mode: 0o600 });
const token = sign(claims('desk', { more: { scope: 'genesys:read' } }), crypto.createSecretKey(Buffer.from(jwk.k, 'base64url')), { kid: 'hs' });

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;
const status = async () => {
  const answer = await ask(kamailio.wsPort, 'GET', '/api/genesys/status', { token });
  assert.equal(answer.status, 200, answer.text);
  return answer.json;
};

describe('a contact centre that is asked each second', () => {
  let port;
  let genesys;
  /** What it answers; 0: nothing. */
  let code = 200;
  const asked = () => genesys.received((m) => m.method === 'OPTIONS').length;
  const answers = async (count) => { const from = asked(); await until(() => asked() >= from + count, { ms: 10_000, what: `${count} more OPTIONS` }); };

  before(async () => {
    port = await freePort();
    // tm waits longer for an answer than it takes to ask again
    kamailio = await startKamailio({
      cfgExtra: tm({ fr_timer: 3000, wt_timer: 200 }),
      params: { jwt_keys: keyFile, genesys_uri: `sip:127.0.0.1:${port}`, genesys_interval: 1 },
    });
    genesys = await openPeer(kamailio.sipPort, { port });
    genesys.onRequest((m) => { if (code) genesys.reply(m, code); });
    bench = new Bench(kamailio, { log: [/genesys: 127\.0\.0\.1:\d+ does not answer/] });
  });
  after(async () => { genesys?.close(); await kamailio?.stop(); });
  afterEach(async () => {
    // its questions are transactions, too: none is to be open when the others are counted
    code = 200;
    await until(async () => (await status()).connected, { ms: 10_000, what: 'connected' });
    await bench.finish();
  });

  test('it answers', async () => {
    await bench.agent('5001');
    await until(async () => (await status()).connected, { what: 'connected' });
    assert.deepEqual(await status(), { connected: true, server: `127.0.0.1:${port}`, registeredAgents: 1 });
    assert.equal(await kamailio.stat('genesys_up'), 1);
    const options = genesys.received((m) => m.method === 'OPTIONS').at(-1);
    assert.match(options.header('From'), /^<sip:[^>]+>;tag=/);
    assert.match(options.header('To'), new RegExp(`^<sip:127\\.0\\.0\\.1:${port}>$`));
    assert.match(options.header('Contact'), /^<sip:127\.0\.0\.1:\d+>$/);
    const from = performance.now();
    await answers(3);
    assert.ok(performance.now() - from > 1800, 'not more often than it was told');
  });

  test('an answer that is no yes is one', async () => {
    for (code of [404, 405, 486]) {
      await answers(1);
      await sleep(300);
      assert.equal((await status()).connected, true, String(code));
    }
  });

  test('it counts as gone after the third failure, not before', async () => {
    for (const wrong of [503, 0]) {
      code = 200;
      await until(async () => (await status()).connected, { ms: 10_000, what: 'connected' });
      await answers(2);
      await sleep(200);
      code = wrong;
      await answers(2);
      await sleep(300);
      assert.equal((await status()).connected, true, `two failures (${wrong})`);
      code = 200;
      await answers(1);
      await sleep(300);
      code = wrong;
      await answers(2);
      await sleep(300);
      assert.equal((await status()).connected, true, `two failures again (${wrong})`);
      await until(async () => !(await status()).connected, { ms: 5000, what: 'not connected' });
      assert.equal(await kamailio.stat('genesys_up'), 0);
      code = 200;
      await answers(1);
      await sleep(200);
      // after silence the question that is open comes again and is answered, too
      if (wrong) assert.equal((await status()).connected, false, 'one answer');
      await answers(1);
      await until(async () => (await status()).connected, { ms: 500, what: 'connected after the second' });
    }
    assert.match(kamailio.log(), /NOTICE: .*genesys: 127\.0\.0\.1:\d+ answers \(200\)/);
  });
});

test('one that was never there, and none at all', async () => {
  const port = await freePort();
  kamailio = await startKamailio({ params: { jwt_keys: keyFile, genesys_uri: `sip:127.0.0.1:${port}`, genesys_interval: 1 } });
  try {
    await until(() => /genesys: .* does not answer/.test(kamailio.log()), { ms: 5000, what: 'it is told' });
    assert.deepEqual(await status(), { connected: false, server: `127.0.0.1:${port}`, registeredAgents: 0 });
  } finally { await kamailio.stop(); }
  kamailio = await startKamailio({ params: { jwt_keys: keyFile } });
  try {
    assert.deepEqual(await status(), { connected: false, server: null, registeredAgents: 0 });
  } finally { await kamailio.stop(); }
});
