/** docs/openapi.yaml against the real server: schemathesis asks everything that it allows, and much that it does not. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit } from '../common/cleanup.mjs';
import { ask } from '../common/http.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { python, pythonJson } from '../common/python.mjs';
import { Bench, callIn, callOut, endCall, hopByNumber, tm } from '../sip/support.mjs';

const document = fileURLToPath(new URL('../../docs/openapi.yaml', import.meta.url));
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-openapi-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const keyFile = path.join(dir, 'keys.json');
const jwk = newSecret('hs');
fs.writeFileSync(keyFile, JSON.stringify({ keys: [jwk] }), { mode: 0o600 });
const scope = 'agents:read:all agents:write:all calls:read:all calls:write:all genesys:read:all';
const token = sign(claims('desk', { more: { scope } }), crypto.createSecretKey(Buffer.from(jwk.k, 'base64url')), { kid: 'hs' });

describe('the description of the API', () => {
  /** @type {import('../common/kamailio.mjs').Kamailio} */
  let kamailio;
  /** @type {Bench} */
  let bench;
  let far;
  let ended;
  let running;
  let client;

  // agents, a call that is over and one that is up: there is something of each kind to be found
  before(async () => {
    kamailio = await startKamailio({
      cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }), params: { jwt_keys: keyFile, genesys_uri: 'sip:127.0.0.1:9', genesys_interval: 3600 },
    });
    bench = new Bench(kamailio, { log: [/genesys/] });
    client = await bench.agent('5001', { displayName: 'Ann' });
    await bench.agent('5002');
    far = await bench.peer();
    ended = await callOut(client, far);
    await endCall(client, ended);
    running = await callIn(kamailio, client, far, '5001');
  });
  after(async () => {
    if (running) await endCall(client, running);
    await bench?.finish();
    await kamailio?.stop();
  });

  /** Runs schemathesis over a document with examples of what is there. */
  async function schemathesis(text) {
    const file = path.join(dir, 'openapi.yaml');
    fs.writeFileSync(file, text);
    return python('schemathesis', [
      'run', file, '--url', `http://127.0.0.1:${kamailio.wsPort}`, '--header', `Authorization: Bearer ${token}`,
      '--checks', 'all', '--max-examples', '25', '--seed', '1', '--no-color', '--report-dir', dir, '--generation-database', 'none',
      // it would end the one call that there is
      '--exclude-operation-id', 'endCall',
    ], { ms: 240_000, cwd: dir, env: { COLUMNS: '200', HYPOTHESIS_STORAGE_DIRECTORY: path.join(dir, 'hypothesis') } });
  }
  const withExamples = () => fs.readFileSync(document, 'utf8')
    .replace(/(name: callId\n(?: {8}.*\n)+)/, (entry) => `${entry}        example: '${running.callId}'\n`);

  test('schemathesis finds no difference', async () => {
    const { status, out } = await schemathesis(withExamples());
    assert.equal(status, 0, out.slice(-6000));
    assert.match(out, /passed/);
    // what it has done to 5001 is what the description allows
    const agent = await ask(kamailio.wsPort, 'GET', '/api/dn/5001', { token });
    assert.deepEqual([agent.status, agent.json.status], [200, 'busy']);
  });

  test('it would find one', async () => {
    const { status, out } = await schemathesis(withExamples().replace('required: [connected, server, registeredAgents]', 'required: [connected, server, registeredAgents, missing]'));
    assert.notEqual(status, 0);
    assert.match(out, /missing/);
  });

  test('every route of the server is described, with its methods, and no other', async () => {
    const paths = await pythonJson('import json, sys, yaml; print(json.dumps({p: [m.upper() for m in o if m != "parameters"] for p, o in yaml.safe_load(sys.stdin)["paths"].items()}))', fs.readFileSync(document));
    assert.equal(Object.keys(paths).length, 7);
    for (const [route, methods] of Object.entries(paths)) {
      const { headers } = await ask(kamailio.wsPort, 'OPTIONS', route.replace(/\{\w+\}/, 'x'));
      const known = headers.allow.split(', ').filter((method) => !['HEAD', 'OPTIONS'].includes(method));
      assert.deepEqual([...methods].sort(), known.sort(), route);
    }
  });
});
