/** The REST API on the real Kamailio, with four workers. */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { claims, newSecret, sign } from '../../scripts/token.mjs';
import { onExit, sleep, until } from '../common/cleanup.mjs';
import { ask, raw } from '../common/http.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { Bench, callIn, callOut, callsBecome, endCall, hopByNumber, Secrets, tm, to } from '../sip/support.mjs';

const secrets = new Secrets();
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-rest-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));
const keyFile = path.join(dir, 'keys.json');
const hs = newSecret('hs');
const rsa = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
fs.writeFileSync(keyFile, JSON.stringify({ keys: [hs, { ...rsa.publicKey.export({ format: 'jwk' }), kid: 'rs' }] }), { mode: 0o600 });
const secretKey = (jwk) => crypto.createSecretKey(Buffer.from(jwk.k, 'base64url'));

/** A token that is right but for what is said here. */
function token(dn, { scope, dns, ttl = 60, more = {}, key = secretKey(hs), header = {} } = {}) {
  const made = sign({ ...claims(dn, { ttl }), iss: 'https://id.example', aud: 'rtc_json', scope, dn: dns, ...more }, key, { kid: 'hs', ...header });
  return secrets.add('a token', made);
}

const everything = 'agents:read:all agents:write:all calls:read:all calls:write:all genesys:read:all';
const origin = 'https://desk.example';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;
let all;

before(async () => {
  all = token('desk', { scope: everything, ttl: 3600 });
  kamailio = await startKamailio({
    cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }),
    params: {
      jwt_keys: keyFile, jwt_issuer: 'https://id.example', jwt_audience: 'rtc_json', api_origins: `https://other.example, ${origin}`,
      call_history: 20, log_calls: 1,
    },
  });
  bench = new Bench(kamailio);
});
after(async () => { await kamailio?.stop(); });
afterEach(() => bench.finish());

const api = (method, target, options = {}) => ask(kamailio.wsPort, method, target, { token: all, ...options });

/** The answer is the problem that it should be (RFC 9457). */
function assertProblem(answer, status, detail) {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  assert.deepEqual(Object.keys(answer.json), ['detail', 'status', 'title', 'type']);
  assert.deepEqual([answer.json.status, answer.json.type], [status, 'about:blank']);
  if (detail) assert.match(answer.json.detail, detail);
}

const statusOf = async (dn) => (await api('GET', `/api/dn/${dn}`)).json?.status;
const statusBecomes = (dn, wanted) => until(async () => await statusOf(dn) === wanted, { what: `${dn} is ${wanted}` });

describe('agents', () => {
  test('one, as the specification has it', async () => {
    assertProblem(await api('GET', '/api/dn/5001'), 404);
    await bench.agent('5001', { displayName: 'Ann' });
    const answer = await api('GET', '/api/dn/5001');
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.deepEqual(answer.json, { dn: '5001', displayName: 'Ann', status: 'available', genesysAgent: null, skills: [] });
  });

  test('what he does: available, ringing, busy, away, offline', async () => {
    const a = await bench.agent('5001');
    const far = await bench.peer();
    assert.equal(await statusOf('5001'), 'available');

    const leg = far.leg('5001');
    leg.invite({});
    const { callId } = await a.waitFor('incomingCall');
    assert.equal(await statusOf('5001'), 'ringing');
    await a.expect('answer', { callId, sdp: fakeAnswer() }, 'ack');
    assert.equal(await statusOf('5001'), 'busy');
    leg.ack(await leg.answer());
    await callsBecome(kamailio, (rows) => rows[0]?.state === 'established');
    await endCall(a, { callId, peer: far, leg });
    await statusBecomes('5001', 'available');

    a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    const invite = await far.request('INVITE');
    assert.equal(await statusOf('5001'), 'busy', 'who calls is busy before anybody answers');
    far.reply(invite, 486);
    await a.waitFor('callEnded', (p) => p.reason === 'user_busy');
    await statusBecomes('5001', 'available');

    const patched = await api('PATCH', '/api/dn/5001', { body: { status: 'away' } });
    assert.deepEqual([patched.status, patched.json.status], [200, 'away']);
    assert.equal(await statusOf('5001'), 'away');
    const call = await callIn(kamailio, a, far, '5001');
    assert.equal(await statusOf('5001'), 'busy', 'a call says more than a wish');
    await endCall(a, call);
    await statusBecomes('5001', 'away');
    await a.expect('unregister', {}, 'unregistered');
    assert.equal(await statusOf('5001'), 'offline');
    const b = await bench.agent('5001');
    assert.equal(await statusOf('5001'), 'away', 'it stays so until he says otherwise');
    assert.equal((await api('PATCH', '/api/dn/5001', { body: { status: 'available' } })).json.status, 'available');
    assert.ok(b.registered);
  });

  test('skills, and the tag that guards them', async () => {
    await bench.agent('5002');
    const first = await api('GET', '/api/dn/5002');
    const { etag } = first.headers;
    assert.match(etag, /^"[0-9a-f]+"$/);
    const changed = await api('PATCH', '/api/dn/5002', { body: { skills: ['sales', 'de DE'] }, headers: { 'If-Match': etag } });
    assert.deepEqual([changed.status, changed.json.skills], [200, ['sales', 'de DE']]);
    assert.notEqual(changed.headers.etag, etag);
    assertProblem(await api('PATCH', '/api/dn/5002', { body: { skills: [] }, headers: { 'If-Match': etag } }), 412);
    const now = await api('GET', '/api/dn/5002', { headers: { 'If-None-Match': `"x", W/${changed.headers.etag}` } });
    assert.deepEqual([now.status, now.text, now.headers.etag], [304, '', changed.headers.etag]);
    const before_ = await api('GET', '/api/dn/5002', { headers: { 'If-None-Match': etag } });
    assert.deepEqual([before_.status, before_.json.skills], [200, ['sales', 'de DE']]);
    // it outlives Kamailio
    await bench.finish();
    await kamailio.restart();
    assert.deepEqual((await api('GET', '/api/dn/5002')).json.skills, ['sales', 'de DE']);
  });

  test('changes that cannot be made', async () => {
    await bench.agent('5001');
    const type = { 'Content-Type': 'application/merge-patch+json' };
    for (const [body, detail] of [
      ['', /not JSON/], ['{', /not JSON/], ['[]', /object/], ['{}', /expected/], ['{"status":"busy"}', /away/], ['{"status":null}', /away/],
      ['{"skills":"a"}', /array/], ['{"skills":["a","a"]}', /different/], ['{"dn":"5002"}', /only status and skills/],
      ['{"status":"away","status":"available"}', /twice/], [`{"skills":["${'x'.repeat(65)}"]}`, /64/], ['{"status":"away"}}', /not JSON/],
    ]) {
      assertProblem(await api('PATCH', '/api/dn/5001', { body, headers: type }), 400, detail);
    }
    const wrong = await api('PATCH', '/api/dn/5001', { body: '{"status":"away"}', headers: { 'Content-Type': 'text/plain' } });
    assertProblem(wrong, 415);
    assert.match(wrong.headers['accept-patch'], /merge-patch/);
    assertProblem(await api('PATCH', '/api/dn/5555', { body: { status: 'away' } }), 404);
    assertProblem(await api('PATCH', '/api/dn/5001?x=1', { body: { status: 'away' } }), 400);
    assert.equal(await statusOf('5001'), 'available');
    assertProblem(await api('GET', '/api/dn/5555'), 404, /nothing is known/);
  });

  test('all of them, by pages and by what they do', async () => {
    const dns = ['5003', '5004', '5005', '5006', '5007'];
    for (const dn of dns) await bench.agent(dn);
    for (const dn of ['5004', '5006']) await api('PATCH', `/api/dn/${dn}`, { body: { status: 'away', skills: ['polish', dn] } });
    const listed = (answer) => answer.json.agents.map((agent) => agent.dn);

    let target = '/api/dn?limit=2&after=5002';
    const pages = [];
    while (target) {
      const answer = await api('GET', target);
      assert.equal(answer.status, 200, answer.text);
      pages.push(listed(answer));
      target = /^<(.*)>; rel="next"$/.exec(answer.headers.link ?? '')?.[1];
      assert.equal(answer.json.next ?? undefined, target && pages.at(-1).at(-1));
    }
    assert.deepEqual(pages, [['5003', '5004'], ['5005', '5006'], ['5007']]);
    assert.deepEqual(listed(await api('GET', '/api/dn?status=away&after=5002')), ['5004', '5006']);
    assert.deepEqual(listed(await api('GET', '/api/dn?skill=polish&limit=1&after=5004')), ['5006']);
    assert.deepEqual(listed(await api('GET', '/api/dn?skill=nobody')), []);
    for (const query of ['limit=0', 'limit=501', 'limit=x', 'status=asleep', 'limit=1&limit=2', 'other=1']) {
      assertProblem(await api('GET', `/api/dn?${query}`), 400);
    }
    // who may see his own alone sees no other
    assert.deepEqual(listed(await api('GET', '/api/dn', { token: token('5003', { dns: ['5005', '5999'] }) })), ['5003', '5005']);
    for (const dn of ['5004', '5006']) await api('PATCH', `/api/dn/${dn}`, { body: { status: 'available', skills: [] } });
  });
});

describe('calls', () => {
  test('a call is shown, and ended from here', async () => {
    const a = await bench.agent('5001');
    const far = await bench.peer();
    const call = await callOut(a, far);
    const listed = await api('GET', '/api/calls');
    assert.equal(listed.json.calls.length, 1);
    const [shown] = listed.json.calls;
    const { started, duration, ...rest } = shown;
    assert.deepEqual(rest, {
      callId: call.callId, dn: '5001', direction: 'out', state: 'established', from: '5001', to: to(far), sipCallId: call.leg.callId,
      answered: true, hold: false, remoteHold: false, muted: false, recording: null,
    });
    assert.ok(Math.abs(Date.parse(started) - Date.now()) < 10_000 && duration >= 0 && duration < 10, `${started} ${duration}`);
    const one = await api('GET', `/api/calls/${call.callId}`);
    assert.deepEqual({ ...one.json, duration }, shown);
    assert.deepEqual((await api('GET', '/api/calls?dn=5002')).json, { calls: [], next: null });
    assert.equal((await api('GET', '/api/calls?dn=5001')).json.calls.length, 1);

    // of somebody else it is as if there were none
    for (const method of ['GET', 'DELETE']) {
      const other = await api(method, `/api/calls/${call.callId}`, { token: token('5002') });
      const none = await api(method, '/api/calls/none', { token: token('5002') });
      assertProblem(other, 404);
      assert.deepEqual(other.json, none.json);
    }
    const gone = await api('DELETE', `/api/calls/${call.callId}`, { token: token('5001') });
    assert.deepEqual([gone.status, gone.text], [204, '']);
    far.reply(await far.request('BYE'), 200);
    const ended = await a.waitFor('callEnded');
    assert.equal(ended.callId, call.callId);
    assertProblem(await api('DELETE', `/api/calls/${call.callId}`), 404);
    assertProblem(await api('GET', `/api/calls/${call.callId}`), 404);
    assert.deepEqual((await api('GET', '/api/calls')).json.calls, []);
  });

  test('one that rings is refused', async () => {
    const a = await bench.agent('5001');
    const far = await bench.peer();
    const leg = far.leg('5001');
    leg.invite({});
    const { callId } = await a.waitFor('incomingCall');
    const [shown] = (await api('GET', '/api/calls')).json.calls;
    assert.deepEqual([shown.callId, shown.direction, shown.state, shown.answered, shown.to], [callId, 'in', 'incoming', false, '5001']);
    assert.equal((await api('DELETE', `/api/calls/${callId}`)).status, 204);
    const refused = await leg.answer();
    assert.ok(refused.status >= 400, String(refused.status));
    leg.ack(refused);
    await a.waitFor('callEnded', (p) => p.callId === callId);
  });

  test('what is over, latest first', async () => {
    const a = await bench.agent('5008');
    const far = await bench.peer();
    const made = [];
    for (let i = 0; i < 3; i += 1) {
      const call = await callOut(a, far);
      await endCall(a, call);
      made.unshift(call);
    }
    a.send('call', { to: to(far), sdp: fakeOffer(), iceServers: [] });
    const invite = await far.request('INVITE');
    await sleep(20);
    far.reply(invite, 180);
    await a.waitFor('callProgress', (p) => p.state === 'ringing');
    far.reply(invite, 486);
    const busy = await a.waitFor('callEnded', (p) => p.reason === 'user_busy');

    const { json } = await api('GET', '/api/calls/history?dn=5008');
    assert.deepEqual(json.calls.map((c) => c.callId), [busy.callId, ...made.map((c) => c.callId)]);
    const { started, ringAfter, ...rest } = json.calls[0];
    assert.deepEqual(rest, {
      callId: busy.callId, sipCallId: invite.callId, dn: '5008', direction: 'out', from: '5008', to: to(far), answered: false, duration: 0,
      reason: 'user_busy', code: 486, cause: json.calls[0].cause, answerAfter: null, recorded: false, transferredTo: null, transfers: [],
    });
    assert.ok(ringAfter > 0 && ringAfter < 5000 && Math.abs(Date.parse(started) - Date.now()) < 20_000);
    assert.deepEqual([json.calls[1].answered, json.calls[1].reason, json.calls[1].answerAfter >= 0], [true, 'normal_clearing', true]);

    const first = await api('GET', '/api/calls/history?dn=5008&limit=3');
    const second = await api('GET', /^<(.*)>/.exec(first.headers.link)[1]);
    assert.deepEqual([...first.json.calls, ...second.json.calls], json.calls);
    assert.equal(second.headers.link, undefined);
    // each is a line of the log as well
    const lines = kamailio.log().split('\n').filter((line) => line.includes('call-record ')).map((line) => JSON.parse(line.slice(line.indexOf('{'))));
    assert.deepEqual(lines.find((line) => line.callId === busy.callId), json.calls[0]);
    assert.deepEqual((await api('GET', '/api/calls/history', { token: token('5007') })).json.calls.filter((c) => c.dn !== '5007'), []);
    assertProblem(await api('GET', '/api/calls/history?before=x'), 400);
    // they outlive Kamailio
    await bench.finish();
    await kamailio.restart();
    assert.deepEqual((await api('GET', '/api/calls/history?dn=5008')).json, json);
  });

  test('only so many are kept', async () => {
    const a = await bench.agent('5009');
    const far = await bench.peer();
    for (let i = 0; i < 22; i += 1) await endCall(a, await callOut(a, far));
    const { json } = await api('GET', '/api/calls/history');
    assert.equal(json.calls.length, 20);
    assert.ok(json.calls.every((call) => call.dn === '5009'));
  });
});

describe('who may do what', () => {
  const routes = [
    ['GET', '/api/dn', 'agents:read'], ['GET', '/api/dn/5001', 'agents:read'], ['PATCH', '/api/dn/5001', 'agents:write'],
    ['GET', '/api/calls', 'calls:read'], ['GET', '/api/calls/history', 'calls:read'], ['GET', '/api/calls/none', 'calls:read'],
    ['DELETE', '/api/calls/none', 'calls:write'], ['GET', '/api/genesys/status', 'genesys:read'],
  ];
  const send = (method, target, given) => api(method, target, { token: given, ...(method === 'PATCH' ? { body: { skills: [] } } : {}) });

  test('each route wants a good token', async () => {
    await bench.agent('5001');
    const public_ = rsa.publicKey.export({ type: 'spki', format: 'pem' });
    const bad = {
      none: undefined,
      'no token at all': '',
      'not a token': 'x.y.z',
      'another secret': token('5001', { key: secretKey(newSecret('other')) }),
      expired: token('5001', { ttl: -60 }),
      'not yet valid': token('5001', { more: { nbf: Math.floor(Date.now() / 1000) + 120 } }),
      'another audience': token('5001', { more: { aud: 'somebody' } }),
      'another issuer': token('5001', { more: { iss: 'https://evil.example' } }),
      'without a subject': token(undefined),
      'without an end': token('5001', { more: { exp: undefined } }),
      'algorithm none': token('5001', { header: { alg: 'none' } }),
      'a public key taken for a secret': token('5001', { key: crypto.createSecretKey(Buffer.from(public_)), header: { kid: 'rs' } }),
    };
    const good = [token('5001'), token('5001', { key: rsa.privateKey, header: { kid: 'rs' } })];
    for (const [method, target] of routes) {
      for (const [what, given] of Object.entries(bad)) {
        const answer = await send(method, target, given);
        assertProblem(answer, 401);
        assert.match(answer.headers['www-authenticate'], /^Bearer realm="rtc_json"/, what);
      }
      for (const given of good) {
        const { status } = await send(method, target, given);
        assert.equal(status, target.endsWith('none') ? 404 : 200, `${method} ${target}`);
      }
    }
    for (const scheme of ['Basic NTAwMTpwdzUwMDE=', 'Bearer', `Token ${good[0]}`]) {
      assertProblem(await api('GET', '/api/dn', { token: undefined, headers: { Authorization: scheme } }), 401);
    }
    assert.equal((await api('GET', '/api/dn', { token: undefined, headers: { Authorization: `bearer ${good[0]}` } })).status, 200);
  });

  test('a scope is good for its routes alone, and for its own numbers unless it says all', async () => {
    await bench.agent('5001');
    const scopes = ['agents:read', 'agents:write', 'calls:read', 'calls:write', 'genesys:read', 'register'];
    for (const [method, target, needed] of routes) {
      for (const scope of scopes) {
        for (const [dn, suffix] of [['5001', ''], ['5002', ''], ['5002', ':all']]) {
          const answer = await send(method, target, token(dn, { scope: `other ${scope}${suffix}` }));
          const what = `${method} ${target} ${scope}${suffix} of ${dn}`;
          if (scope !== needed) {
            assertProblem(answer, 403, new RegExp(`scope ${needed}$`));
            assert.match(answer.headers['www-authenticate'], new RegExp(`insufficient_scope.*scope="${needed}"`), what);
          } else if (target.endsWith('5001') && dn === '5002' && !suffix) {
            assertProblem(answer, 403, /another DN/);
          } else {
            assert.equal(answer.status, target.endsWith('none') ? 404 : 200, what);
          }
        }
      }
      assertProblem(await send(method, target, token('5001', { scope: 'other' })), 403);
    }
    // nor is it told whether the other one exists
    const [there, nobody] = await Promise.all(['5001', '5999'].map((dn) => api('GET', `/api/dn/${dn}`, { token: token('5002') })));
    assert.deepEqual([there.status, there.json], [403, nobody.json]);
  });

  test('the WebSocket asks the same', async () => {
    for (const [scope, code] of [[undefined, 0], ['register', 0], ['agents:read register', 0], ['register:all', 0], ['other', 403], [everything, 403]]) {
      const a = await bench.client();
      const answer = await a.request('register', { token: token('5001', { scope }) });
      assert.deepEqual([answer.type, answer.payload.code ?? 0], [code ? 'registrationFailed' : 'registered', code], String(scope));
      if (code) assert.match(answer.payload.reason, /scope register$/);
      else await a.expect('unregister', {}, 'unregistered');
    }
  });
});

describe('as HTTP wants it', () => {
  test('health needs no token', async () => {
    const answer = await api('GET', '/api/health', { token: undefined });
    assert.deepEqual([answer.status, answer.json], [200, { status: 'ok' }]);
  });

  test('methods', async () => {
    await bench.agent('5001');
    for (const [target, allow] of [
      ['/api/dn', 'GET, HEAD, OPTIONS'], ['/api/dn/5001', 'GET, HEAD, PATCH, OPTIONS'], ['/api/calls/none', 'GET, HEAD, DELETE, OPTIONS'],
      ['/api/calls/history', 'GET, HEAD, OPTIONS'], ['/api/health', 'GET, HEAD, OPTIONS'],
    ]) {
      const options = await api('OPTIONS', target, { token: undefined });
      assert.deepEqual([options.status, options.headers.allow, options.text], [204, allow, '']);
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'TRACE'].filter((m) => !allow.includes(m))) {
        const answer = await api(method, target);
        assertProblem(answer, 405);
        assert.equal(answer.headers.allow, allow);
      }
    }
    const [got, head] = [await api('GET', '/api/dn/5001'), await api('HEAD', '/api/dn/5001')];
    assert.deepEqual([head.status, head.text], [200, '']);
    for (const name of ['etag', 'content-length', 'content-type', 'cache-control']) assert.equal(head.headers[name], got.headers[name], name);
    for (const target of ['/api', '/api/', '/api/none', '/api/dn/', '/api/dn/5001/x', '/api//dn', '/api/genesys', `/api/dn/${'x'.repeat(300)}`]) {
      assertProblem(await api('GET', target), 404);
    }
    // what is not the API's goes on to the script
    assert.equal((await api('GET', '/apis')).text, 'not here\n');
    assert.equal((await api('GET', '/api/dn/50%301')).json.dn, '5001');
  });

  test('pages of listed origins alone', async () => {
    for (const [from, wanted] of [[origin, origin], ['https://evil.example', undefined], ['null', undefined], [`${origin}:444`, undefined]]) {
      const asked = await api('OPTIONS', '/api/dn/5001', { token: undefined, headers: { Origin: from, 'Access-Control-Request-Method': 'PATCH' } });
      const got = await api('GET', '/api/dn', { headers: { Origin: from } });
      for (const { headers } of [asked, got]) {
        assert.equal(headers['access-control-allow-origin'], wanted);
        assert.equal(headers['access-control-allow-credentials'], undefined);
        assert.equal(headers.vary, 'Origin');
      }
      assert.equal(asked.headers['access-control-allow-methods'], wanted && 'GET, HEAD, PATCH, OPTIONS');
      assert.equal(/Authorization/.test(asked.headers['access-control-allow-headers']), Boolean(wanted));
    }
  });

  test('one connection for many requests', async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    let sockets = 0;
    agent.on('free', (socket) => { if (!socket.seen) { socket.seen = true; sockets += 1; } });
    for (let i = 0; i < 50; i += 1) {
      assert.equal((await api('GET', i % 2 ? '/api/dn' : '/api/none', { agent })).status, i % 2 ? 200 : 404);
    }
    assert.equal(sockets, 1);
    agent.destroy();
    const two = 'GET /api/health HTTP/1.1\r\nHost: x\r\n\r\nGET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
    const { text, closed } = await raw(kamailio.wsPort, two);
    assert.deepEqual([text.match(/HTTP\/1\.1 200 OK/g)?.length, closed], [2, true], text);
    const old = await raw(kamailio.wsPort, 'GET /api/health HTTP/1.0\r\nHost: x\r\n\r\n');
    assert.ok(old.closed && old.text.includes('"ok"'), old.text);
  });

  test('sizes and forms that are refused', async () => {
    const long = await api('PATCH', '/api/dn/5001', { body: JSON.stringify({ skills: ['x'.repeat(17_000)] }), headers: { 'Content-Type': 'application/json' } });
    assertProblem(long, 413);
    assert.equal(long.headers.connection, 'close');
    assertProblem(await api('GET', `/api/dn?skill=${'x'.repeat(2100)}`), 414);
    assertProblem(await api('GET', '/api/dn', { headers: Object.fromEntries(Array.from({ length: 70 }, (_, i) => [`X-${i}`, '1'])) }), 431);
    assertProblem(await api('GET', '/api/dn/%ff'), 400);
    const chunked = await raw(kamailio.wsPort, 'PATCH /api/dn/5001 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n');
    assert.match(chunked.text, /^HTTP\/1\.1 411 /);
    assert.equal(chunked.text.match(/HTTP\/1\.1/g).length, 1, 'what follows is no request');
    assert.ok(chunked.closed);
    // it lives on
    assert.equal((await api('GET', '/api/health')).status, 200);
  });

  test('many at a time', async () => {
    await bench.agent('5001');
    const answers = await Promise.all(Array.from({ length: 60 }, (_, i) => (i % 3
      ? api('GET', '/api/dn/5001') : api('PATCH', '/api/dn/5001', { body: { skills: [`s${i}`] } }))));
    assert.deepEqual(answers.map((answer) => answer.status), answers.map(() => 200));
    assert.match((await api('GET', '/api/dn/5001')).json.skills.join(), /^s\d+$/);
    await api('PATCH', '/api/dn/5001', { body: { skills: [] } });
  });

  test('it is counted', async () => {
    const [requests, errors] = [await kamailio.stat('api_requests'), await kamailio.stat('api_errors')];
    await api('GET', '/api/health');
    await api('GET', '/api/none');
    assert.deepEqual([await kamailio.stat('api_requests') - requests, await kamailio.stat('api_errors') - errors], [2, 1]);
  });

  test('no token is shown', async () => {
    secrets.add('the secret', hs.k);
    await secrets.notShown(kamailio, ['5001']);
  });
});

test('without keys nobody gets in', async () => {
  const own = await startKamailio();
  try {
    assert.equal((await ask(own.wsPort, 'GET', '/api/health')).status, 200);
    assertProblem(await ask(own.wsPort, 'GET', '/api/dn', { token: token('5001') }), 501, /no keys/);
    assertProblem(await ask(own.wsPort, 'GET', '/api/dn'), 401);
  } finally { await own.stop(); }
});

test('what cannot be used ends the start', async () => {
  for (const [params, reason] of [
    [{ api_origins: '*' }, /api_origins: '\*' cannot be used; write origins/],
    [{ api_origins: 'https://desk.example/' }, /api_origins/],
    [{ api_origins: 'desk.example' }, /api_origins/],
    [{ genesys_uri: 'genesys' }, /genesys_uri: 'genesys' cannot be used; write a SIP URI/],
    [{ genesys_uri: 'sip:g.example', genesys_interval: 0 }, /genesys_interval: 0 is out of range/],
    [{ call_history: -1 }, /call_history: -1 is out of range/],
  ]) {
    const error = await startKamailio({ params }).then(async (own) => { await own.stop(); return undefined; }, (e) => e);
    assert.match(error?.message ?? 'it started', reason);
  }
});

describe('calls to somebody who is away', () => {
  /** @type {import('../common/kamailio.mjs').Kamailio} */
  let own;
  /** @type {Bench} */
  let ownBench;
  before(async () => {
    own = await startKamailio({
      cfg: hopByNumber(), cfgExtra: tm({ fr_timer: 1500, wt_timer: 200 }),
      params: { jwt_keys: keyFile, jwt_issuer: 'https://id.example', jwt_audience: 'rtc_json', away_reply: 480 },
    });
    ownBench = new Bench(own);
  });
  after(async () => { await own?.stop(); });
  afterEach(() => ownBench.finish());
  const set = async (status) => assert.equal((await ask(own.wsPort, 'PATCH', '/api/dn/5001', { token: all, body: { status } })).status, 200);

  test('get away_reply and no browser rings; who takes the place of a call that is up is let in, and all else goes on', async () => {
    const a = await ownBench.agent('5001');
    const far = await ownBench.peer();
    const before = await callIn(own, a, far, '5001');
    await set('away');
    const leg = far.leg('5001');
    leg.invite({});
    const refused = await leg.answer();
    leg.ack(refused);
    assert.equal(refused.status, 480);
    assert.equal(await own.stat('calls_away'), 1);
    // a change within the call, and another far side in the place of its own
    assert.equal((await before.leg.request('UPDATE')).status, 200);
    const taker = far.leg('5001');
    taker.invite({ headers: ['Require: replaces', `Replaces: ${before.leg.callId};to-tag=${before.leg.remoteTag};from-tag=${before.leg.localTag}`] });
    await a.waitFor('callUpdated', (p) => p.answerNeeded);
    await a.expect('answer', { callId: before.callId, sdp: fakeAnswer() }, 'ack');
    const ok = await taker.answer();
    assert.equal(ok.status, 200);
    taker.ack(ok);
    far.reply(await before.leg.incoming('BYE'), 200);
    await endCall(a, { callId: before.callId, peer: far, leg: taker });
    // he may call himself
    await endCall(a, await callOut(a, far));
    assert.equal(a.received.filter((m) => m.type === 'incomingCall').length, 1);
    await set('available');
    await endCall(a, await callIn(own, a, far, '5001'));
    assert.equal(await own.stat('calls_away'), 1);
  });
});
