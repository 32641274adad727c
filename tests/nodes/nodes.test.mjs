/** Two real Kamailios that know each other by dmq: replicas, takeover with a call, SIP at the wrong node, a restart. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit, until } from '../common/cleanup.mjs';
import { ask } from '../common/http.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer } from '../sip/peer.mjs';
import { Secrets } from '../sip/support.mjs';
import { agent, agentAt, browser, closeBrowsers, network, others, resume, secret, startNodes } from './support.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-nodes-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const keyFile = path.join(dir, 'keys.json');
const jwk = newSecret('hs');
fs.writeFileSync(keyFile, JSON.stringify({ keys: [jwk] }), { mode: 0o600 });
// the records of all nodes go into one table, as they would in a database of their own
const database = path.join(dir, 'records.sqlite');
const sql = (text) => execFileSync('sqlite3', ['-bail', '-json', database], { input: `.timeout 2000\n${text}`, encoding: 'utf8' }).trim();
sql(fs.readFileSync(fileURLToPath(new URL('../../kamailio-module/rtc_json-create.sql', import.meta.url)), 'utf8'));
const recorded = (callId) => JSON.parse(sql(`SELECT * FROM rtc_json_calls WHERE call_id = '${callId}';`) || '[]');

const token = sign(claims('desk', { more: { scope: 'agents:read:all agents:write:all genesys:read calls:read:all calls:write:all' } }), crypto.createSecretKey(Buffer.from(jwk.k, 'base64url')), { kid: 'hs' });

// a script that tells where somebody is
const cfg = path.join(dir, 'kamailio.cfg');
fs.writeFileSync(cfg, fs.readFileSync(new URL('../../kamailio.cfg.example', import.meta.url), 'utf8').replace('request_route {\n', `request_route {
	if (is_method("OPTIONS") && $hdr(X-Locate) != $null) {
		rtc_json_locate("$hdr(X-Locate)");
		$var(found) = "" + $rc;
		if ($rtcj(node) != $null) $var(found) = $var(found) + " " + $rtcj(node);
		sl_send_reply("200", "$var(found)");
		exit;
	}
`));

let nodes = [];
let peer;

/** Where its API is. */
const http = (node) => `${node.address}:${node.wsPort}`;

/** Waits until that node has a replica of so many agents of others. */
const replicas = (node, wanted, calls = 0) => until(
  async () => {
    const rows = await others(node);
    const sum = (name) => rows.reduce((all, row) => all + row[name], 0);
    return sum('records') === wanted && sum('knownCalls') === calls;
  },
  { ms: 15_000, what: `${wanted} replicas with ${calls} calls` },
);

/** A call out of that browser, answered by the far side. */
async function answered(client) {
  const id = client.send('call', { to: '1003', sdp: fakeOffer() });
  const invite = await peer.request('INVITE');
  peer.reply(invite, 200, { body: farSdp({ setup: 'active' }), headers: ['Allow: INVITE, ACK, BYE, UPDATE'] });
  await peer.waitFor((m) => m.method === 'ACK' && m.callId === invite.callId);
  const { callId } = await client.waitFor('callAccepted', (p, m) => m.id === id);
  return { callId, invite };
}

/** The far side gives up what rings at that browser: it is told, and so is the far side. */
async function cancelled(leg, client, callId) {
  leg.cancel();
  assert.equal((await leg.reply(leg.inviteBranch, undefined, 5000, 'CANCEL')).status, 200);
  const final = await leg.answer();
  assert.equal(final.status, 487);
  leg.ack(final);
  const { reason } = await client.waitFor('callEnded', (p) => p.callId === callId);
  assert.equal(reason, 'cancelled');
}

describe('two nodes', () => {
  before(async () => {
    peer = await openPeer(0, { address: network.address });
    nodes = await startNodes(2, peer.uri, { cfg, more: { jwt_keys: keyFile, records_url: `sqlite://${database}` } });
    peer.server = nodes[0].node;
  });
  after(async () => {
    await peer?.close();
    for (const node of nodes) await node.stop();
  });
  afterEach(async () => {
    closeBrowsers();
    // (each node's word that it lives is a transaction, so those never end)
    for (const node of nodes) assert.deepEqual(await node.rpcRows('rtc_json.calls'), [], 'no call is left over');
    peer.forget();
    peer.server = nodes[0].node;
  });

  test('the API of each node shows the agents of all', async () => {
    const get = async (node, target) => (await ask(http(node), 'GET', target, { token })).json;
    const first = await browser(nodes[0]);
    await first.register('5004');
    const second = await browser(nodes[1]);
    await second.register('5005');
    for (const node of nodes) {
      await until(async () => (await get(node, '/api/genesys/status')).registeredAgents === 2, { ms: 15_000, what: 'both are counted' });
      const { agents } = await get(node, '/api/dn');
      assert.deepEqual(agents.map(({ dn, status }) => [dn, status]), [['5004', 'available'], ['5005', 'available']]);
    }
    // what a node knows of its agent by itself (the directory, that he is away) is not in the way of what it tells of him
    assert.equal((await ask(http(nodes[0]), 'PATCH', '/api/dn/5004', { token, body: { status: 'away', skills: ['polish'] } })).status, 200);
    const { callId } = await answered(first);
    for (const node of nodes) await until(async () => (await get(node, '/api/dn/5004')).status === 'busy', { ms: 15_000, what: 'he is busy' });
    // the other node shows it, and ends it when told to
    await until(async () => (await get(nodes[1], `/api/calls/${callId}`)).state === 'established', { ms: 15_000, what: 'the call is shown' });
    const { calls } = await get(nodes[1], '/api/calls');
    assert.deepEqual(calls.map((row) => [row.callId, row.dn, row.to]), [[callId, '5004', '1003']]);
    assert.ok(calls[0].duration < 600, 'by its own clock');
    assert.equal((await ask(http(nodes[1]), 'DELETE', `/api/calls/${callId}`, { token })).status, 204);
    peer.reply(await peer.request('BYE'), 200);
    await first.waitFor('callEnded', (p) => p.callId === callId);
    for (const node of nodes) await until(async () => (await get(node, '/api/calls')).calls.length === 0, { ms: 15_000, what: 'no call is shown' });
    await until(async () => (await get(nodes[1], '/api/dn/5004')).status !== 'busy', { ms: 15_000, what: 'he is not busy any more' });
    const { status, skills } = await get(nodes[0], '/api/dn/5004');
    assert.deepEqual([status, skills], ['away', ['polish']]);
    await ask(http(nodes[0]), 'PATCH', '/api/dn/5004', { token, body: { status: 'available' } });
    await first.expect('unregister', {}, 'unregistered');
    await second.expect('unregister', {}, 'unregistered');
    for (const node of nodes) await until(async () => (await get(node, '/api/genesys/status')).registeredAgents === 0, { ms: 15_000, what: 'nobody is left' });
  });

  test('a browser that comes to the other node goes on with its call there', async () => {
    const [a, b] = nodes;
    const before = await a.stat('call_records');
    const client = await agent(nodes[0], '5001');
    const { callId, invite } = await answered(client);
    await replicas(b, 1, 1);
    client.rst();

    const moving = resume(nodes[1], '5001', client.registered.session);
    // the far side is told where it goes on, above all numbers that the first node may still use
    const refresh = await peer.request('UPDATE');
    assert.equal(refresh.callId, invite.callId);
    assert.equal(refresh.contact, `sip:5001@${b.node}`);
    assert.ok(refresh.cseq > invite.cseq + 100, String(refresh.cseq));
    peer.server = b.node;
    peer.reply(refresh, 200);
    const again = await moving;
    assert.deepEqual(again.registered.calls.map((c) => [c.callId, c.state]), [[callId, 'established']]);

    await until(async () => (await agentAt(a, '5001')) === undefined, { ms: 10_000, what: 'the first node lets go' });
    assert.equal(await a.stat('yielded') > 0 && await b.stat('taken_over') > 0, true);

    const held = again.request('hold', { callId, hold: true });
    const reinvite = await peer.request('INVITE');
    peer.reply(reinvite, 200, { body: farSdp({ setup: 'active', version: 2, direction: 'recvonly' }) });
    assert.equal((await held).payload.hold, true);
    const over = again.request('hangup', { callId, reason: 'user_hangup' });
    peer.reply(await peer.request('BYE'), 200);
    assert.equal((await over).type, 'callEnded');
    assert.equal(peer.received((m) => m.method === 'BYE').length, 1, 'one BYE, not one of each node');
    // one record, too, of the node where it ended, with all that it was since it began at the other
    await until(() => recorded(callId).length === 1, { ms: 8000, what: 'a row' });
    const [row] = recorded(callId);
    assert.deepEqual([row.dn, row.direction, row.callee, row.reason, row.answered, row.sip_call_id], ['5001', 'out', '1003', 'normal_clearing', 1, invite.callId]);
    assert.equal(await a.stat('call_records'), before);
    await again.request('unregister');
    await replicas(a, 0);
  });

  test('a script learns where an agent is', async () => {
    const [a, b] = nodes;
    const where = async (node, dn) => {
      peer.server = node.node;
      return (await peer.leg('locate').request('OPTIONS', { headers: [`X-Locate: ${dn}`] })).start.replace('SIP/2.0 200 ', '').trim();
    };
    const client = await agent(a, '5006');
    await replicas(b, 1);
    assert.equal(await where(a, '5006'), `1 sip:${a.node}`);
    assert.equal(await where(b, '5006'), `2 sip:${a.node}`);
    assert.equal(await where(b, '5007'), '-1');
    await client.request('unregister');
    await replicas(b, 0);
    assert.equal(await where(b, '5006'), '-1');
  });

  test('an INVITE at the wrong node rings at the right one', async () => {
    const [a, b] = nodes;
    const client = await agent(nodes[0], '5002');
    await replicas(b, 1);
    peer.server = b.node;
    const leg = peer.leg('5002');
    leg.invite();
    const { callId } = await client.waitFor('incomingCall');
    client.send('answer', { callId, sdp: fakeAnswer() });
    const ok = await leg.answer();
    assert.equal(ok.status, 200);
    assert.equal(ok.contact, `sip:5002@${a.node}`);
    peer.server = a.node;
    leg.ack(ok);
    assert.equal((await leg.bye()).status, 200);
    await client.waitFor('callEnded');
    await client.request('unregister');
    await replicas(b, 0);
  });

  test('an INVITE that was taken to another node is cancelled there', async () => {
    const [a, b] = nodes;
    const client = await agent(b, '5002');
    await replicas(a, 1);
    const leg = peer.leg('5002');
    leg.invite();
    const { callId } = await client.waitFor('incomingCall');
    await cancelled(leg, client, callId);
    await client.request('unregister');
    await replicas(a, 0);
  });

  test('an INVITE that went on with its agent to another node is cancelled there', async () => {
    const [a, b] = nodes;
    const client = await agent(a, '5002');
    await replicas(b, 1);
    const leg = peer.leg('5002');
    leg.invite();
    await client.waitFor('incomingCall');
    const passedOn = await a.stat('passed_on');
    const again = await resume(b, '5002', client.registered.session);
    const { callId } = await again.waitFor('incomingCall');
    assert.equal(await a.stat('passed_on'), passedOn + 1);
    await cancelled(leg, again, callId);
    await again.request('unregister');
    await replicas(a, 0);
  });

  test('nobody is let in by a wrong token, and no secret is shown', async () => {
    const [, b] = nodes;
    const client = await agent(nodes[0], '5003');
    await replicas(b, 1);
    const stranger = await browser(nodes[1]);
    const { type, payload } = await stranger.request('register', { dn: '5003', resume: `${client.registered.session.slice(1)}x` });
    assert.deepEqual([type, payload.code], ['registrationFailed', 401]);
    assert.equal((await agentAt(b, '5003')), undefined);
    const secrets = new Secrets();
    secrets.add('the token', client.registered.session);
    secrets.add('the nodes\' secret', secret);
    for (const node of nodes) {
      await secrets.notShown(node, ['5003']);
      assert.deepEqual(secrets.in(await node.rpcText('rtc_json.nodes')), []);
    }
    await client.request('unregister');
    await replicas(b, 0);
  });

  test('a node that is killed under a call: its browser goes on at the other, and the first one, back again, leaves it alone', async () => {
    const [a, b] = nodes;
    peer.server = a.node;
    const client = await agent(nodes[0], '5004');
    const { callId, invite } = await answered(client);
    await replicas(b, 1, 1);
    await a.lose();
    const began = Date.now();
    const moving = resume(nodes[1], '5004', client.registered.session);
    const refresh = await peer.request('UPDATE');
    peer.server = b.node;
    peer.reply(refresh, 200);
    const again = await moving;
    assert.ok(Date.now() - began < 10_000);
    // its arena is still there, with the agent in it
    await a.back();
    await until(async () => (await agentAt(a, '5004')) === undefined, { ms: 20_000, what: 'the first node lets go' });
    assert.ok(await agentAt(b, '5004'));
    assert.equal(peer.received((m) => m.method === 'BYE').length, 0);
    assert.equal((await peer.legOf(invite).request('OPTIONS', { uri: `sip:5004@${b.node}` })).status, 200);
    const over = again.request('hangup', { callId, reason: 'user_hangup' });
    peer.reply(await peer.request('BYE'), 200);
    assert.equal((await over).type, 'callEnded');
    await again.request('unregister');
  });
});
