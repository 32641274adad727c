/** What the operator's script, the RPC interface and other users of the same port have to do with it. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { until } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePort } from '../common/ports.mjs';
import { fakeAnswer, fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer } from './peer.mjs';
import { Bench, callsBecome, editedConfig, endsOf, tm, to } from './support.mjs';

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
/** @type {Bench} */
let bench;

/** Log lines of our own script with that word, from an earlier look on. */
const noted = (word, from = 0) => kamailio.log().split('\n').filter((line) => line.includes(`${word}:`)).slice(from).map((line) => line.slice(line.indexOf(`${word}:`)));

/** A call to that endpoint, answered. */
async function answered(client, peer, number = to(peer)) {
  const id = client.send('call', { to: number, sdp: fakeOffer() });
  const invite = await peer.request('INVITE');
  peer.reply(invite, 180);
  peer.reply(invite, 200, { body: farSdp({ setup: 'active' }) });
  await peer.waitFor((m) => m.method === 'ACK' && m.callId === invite.callId);
  const { callId } = await client.waitFor('callAccepted', (p, m) => m.id === id);
  return { id, invite, callId };
}

describe('a config with routes', () => {
  before(async () => {
    const cfg = editedConfig((text) => {
      const [head, rest] = text.split('event_route[rtc-json:message] {');
      const [, tail] = rest.split('# Once for each call, after its end: call records.');
      return `${head}event_route[rtc-json:message] {
	xlog("L_NOTICE", "MESSAGE:$rtcj(type)|$rtcj(id)|$rtcj(dn)|$rtcj(addr)|$rtcj(payload.to)|$rtcj(payload.dn)|$si|\\n");
	if ($rtcj(type) == "register") {
		xlog("L_NOTICE", "SECRET:<$rtcj(payload.password)><$rtcj(payload.resume)><$rtcj(payload.token)><$rtcj(payload.digest)><$rtcj(password)><$rtcj(payload)>\\n");
		if ($rtcj(payload.dn) == "5009") { rtc_json_reject("503", "Come back later"); exit; }
	}
	if ($rtcj(type) == "call") {
		if ($rtcj(payload.to) =~ "^00") { rtc_json_reject("403", "International calls are barred"); exit; }
		if ($rtcj(payload.to) == "drop") drop;
		if ($rtcj(payload.to) == "wrong") {
			if (!rtc_json_reject("200", "OK")) xlog("L_NOTICE", "REJECT:200 is none\\n");
			rtc_json_reject("699", "Last \\"of\\" all");
			if (!rtc_json_handle()) xlog("L_NOTICE", "HANDLE:done before\\n");
			exit;
		}
		if ($rtcj(payload.to) == "exit") exit;
		if ($rtcj(payload.to) =~ "^7[0-9]{5}$") $du = "sip:127.0.0.1:" + $(rtcj(payload.to){s.substr,1,0});
	}
	# nothing more: a message that was not refused acts when the route ends
}

event_route[rtc-json:call-ended] {
	xlog("L_NOTICE", "ENDED:$rtcj(call.dn)|$rtcj(call.direction)|$rtcj(call.from)|$rtcj(call.to)|$rtcj(call.reason)|$rtcj(call.code)|$rtcj(call.cause)|$rtcj(call.duration)|$rtcj(call.answered)|$rtcj(call.id)|$rtcj(call.sip_call_id)|$rtcj(call.started)|$rtcj(call.ring_after)|$rtcj(call.answer_after)|$rtcj(call.nonsense)|$rtcj(call.transferred_to)|$rtcj(call.transfers)|\\n");
}
${tail.slice(tail.indexOf('#!ifdef KAMAILIO_6_1'))}`;
    });
    kamailio = await startKamailio({ cfg, cfgExtra: tm({ wt_timer: 200 }) });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('the message route sees what is in a message, and no secret', async () => {
    const from = noted('MESSAGE').length;
    const secretsFrom = noted('SECRET').length;
    const a = await bench.client();
    await a.register('5001');
    await a.request('ping', {}, { id: 'p-1' });
    const lines = noted('MESSAGE', from);
    assert.match(lines[0], /^MESSAGE:register\|[^|]+\|5001\|127\.0\.0\.1\|<null>\|5001\|127\.0\.0\.1\|$/);
    assert.equal(lines[1], 'MESSAGE:ping|p-1|5001|127.0.0.1|<null>|<null>|127.0.0.1|');
    const wrong = await bench.client();
    await wrong.request('register', { dn: '5001', password: 'unguessable', resume: 'unguessable-token', displayName: '' });
    for (const line of noted('SECRET', secretsFrom)) {
      assert.match(line, /^SECRET:(<(<null>)?>){5}/);
      assert.doesNotMatch(line, /pw5001|unguessable/);
    }
    assert.doesNotMatch(kamailio.log(), /pw5001|unguessable/);
  });

  test('rtc_json_reject() refuses a call', async () => {
    const a = await bench.agent('5001');
    const { type, payload } = await a.request('call', { to: '004912345', sdp: fakeOffer() });
    assert.deepEqual([type, payload.code, payload.message], ['error', 403, 'International calls are barred']);
    assert.equal((await kamailio.rpcRows('rtc_json.calls')).length, 0);
    assert.ok(!a.received.some((m) => m.type === 'callProgress'));
  });

  test('rtc_json_reject() of a register is registrationFailed', async () => {
    const a = await bench.client();
    const { type, payload } = await a.request('register', { dn: '5009', password: 'pw5009', displayName: '' });
    assert.deepEqual([type, payload], ['registrationFailed', { code: 503, reason: 'Come back later' }]);
  });

  test('a code that is no refusal, and a second decision, have no effect', async () => {
    bench.expectLog(/rtc_json_reject\(\): the code must be 400 to 699/);
    const a = await bench.agent('5001');
    const id = a.send('call', { to: 'wrong', sdp: fakeOffer() });
    const error = await a.waitFor('error', (p, m) => m.id === id);
    assert.deepEqual([error.code, error.message], [699, 'Last "of" all']);
    await a.never('error', 200);
    assert.equal(noted('REJECT').length, 1);
    assert.equal(noted('HANDLE').length, 1);
  });

  test('drop refuses with 403, exit lets it act', async () => {
    const a = await bench.agent('5001');
    const { type, payload } = await a.request('call', { to: 'drop', sdp: fakeOffer() });
    assert.deepEqual([type, payload.code], ['error', 403]);
    // nobody of that name here: Kamailio calls itself and its script says 404
    const { payload: other } = await a.request('call', { to: 'exit', sdp: fakeOffer() });
    assert.deepEqual([other.code, other.details], [404, 'unallocated_number']);
  });

  test('$du is the next hop of this one call', async () => {
    const [one, other] = [await bench.peer(), await bench.peer()];
    const a = await bench.agent('5001');
    const first = await answered(a, one);
    const second = await answered(a, other);
    for (const [peer, { invite, callId }] of [[one, first], [other, second]]) {
      assert.equal((await peer.legOf(invite).bye()).status, 200);
      await a.waitFor('callEnded', (p) => p.callId === callId);
    }
  });

  test('the call-ended route runs once for each end, with the record of the call', async () => {
    const from = noted('ENDED').length;
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { invite, callId } = await answered(a, peer);
    assert.equal((await peer.legOf(invite).request('BYE', { headers: ['Reason: Q.850;cause=16'] })).status, 200);
    await a.waitFor('callEnded');
    await until(() => noted('ENDED').length > from);
    const fields = noted('ENDED', from)[0].slice('ENDED:'.length).split('|');
    assert.deepEqual(fields.slice(0, 11), ['5001', 'out', '5001', to(peer), 'normal_clearing', '0', '16', '0', '1', callId, invite.callId]);
    assert.ok(Math.abs(Number(fields[11]) - Date.now() / 1000) < 10, fields[11]);
    assert.ok(Number(fields[13]) >= Number(fields[12]), fields.join(' '));
    assert.deepEqual(fields.slice(14, 17), ['<null>', '<null>', '<null>']);

    // one that is refused, and one that comes in and rings in two browsers
    const id = a.send('call', { to: to(peer), sdp: fakeOffer() });
    peer.reply(await peer.request('INVITE'), 486);
    await a.waitFor('error', (p, m) => m.id === id);
    const b = await bench.agent('5001');
    const leg = peer.leg('5001');
    leg.invite();
    const incoming = await b.waitFor('incomingCall');
    await b.expect('hangup', { callId: incoming.callId, reason: 'declined' }, 'callEnded');
    leg.ack(await leg.answer());
    await until(() => noted('ENDED').length >= from + 3);
    const [, busy, declined] = noted('ENDED', from).map((line) => line.slice('ENDED:'.length).split('|').slice(0, 9));
    assert.deepEqual(busy, ['5001', 'out', '5001', to(peer), 'user_busy', '486', '0', '0', '0']);
    assert.deepEqual(declined, ['5001', 'in', 'far', '5001', 'call_rejected', '603', '0', '0', '0']);
    assert.equal(noted('ENDED').length, from + 3, 'once each');
    await a.waitFor('callEnded', (p) => p.callId === incoming.callId);
    assert.deepEqual([endsOf(a, incoming.callId).length, endsOf(b, incoming.callId).length], [1, 1]);
  });

  test('the call-ended route is told of transfers', async () => {
    const from = noted('ENDED').length;
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { invite, callId } = await answered(a, peer);
    const leg = peer.legOf(invite);
    a.send('transfer', { callId, to: '1004' });
    peer.reply(await leg.incoming('REFER'), 202, { headers: ['Refer-Sub: false'] });
    peer.reply(await leg.incoming('BYE'), 200);
    await a.waitFor('callEnded');
    await until(() => noted('ENDED').length > from);
    const fields = noted('ENDED', from)[0].slice('ENDED:'.length).split('|');
    assert.deepEqual([fields[4], fields[15]], ['transferred', '1004']);
    const [{ kind, to: number, result }] = JSON.parse(fields[16]);
    assert.deepEqual([kind, number, result], ['blind', '1004', 'completed']);
  });

  test('rtc_json.hangup ends a call on both sides', async () => {
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    const { callId } = await answered(a, peer);
    await kamailio.rpcText('rtc_json.hangup', callId);
    peer.reply(await peer.request('BYE'), 200);
    assert.deepEqual([(await a.waitFor('callEnded')).callId, endsOf(a, callId).length], [callId, 1]);
    await assert.rejects(kamailio.rpc('rtc_json.hangup', callId), { code: 404 });
    await assert.rejects(kamailio.rpc('rtc_json.hangup'), { code: 400 });
    // one that rings in the browser
    const leg = peer.leg('5001');
    leg.invite();
    const incoming = await a.waitFor('incomingCall');
    await kamailio.rpcText('rtc_json.hangup', incoming.callId);
    const final = await leg.answer();
    assert.equal(final.status, 480);
    leg.ack(final);
    await a.waitFor('callEnded', (p) => p.callId === incoming.callId);
    // and one that rings at the far side
    a.send('call', { to: to(peer), sdp: fakeOffer() });
    const invite = await peer.request('INVITE');
    peer.reply(invite, 180);
    const ringing = await a.waitFor('callProgress', (p) => p.state === 'ringing' && p.callId !== callId);
    await kamailio.rpcText('rtc_json.hangup', ringing.callId);
    peer.reply(await peer.request('CANCEL'), 200);
    peer.reply(invite, 487);
    await peer.request('ACK');
    await a.waitFor('callEnded', (p) => p.callId === ringing.callId);
  });

  test('RPC: one agent, all agents, calls, and faults for what is not there', async () => {
    const peer = await bench.peer();
    const [a, b] = [await bench.agent('5001'), await bench.agent('5002', { displayName: 'Bea' })];
    const { callId, invite } = await answered(a, peer);
    assert.deepEqual((await kamailio.rpcRows('rtc_json.agents')).map((r) => [r.dn, r.displayName, r.sessions, r.attached, r.calls, r.upstream]),
      [[5001, 'Agent 5001', 1, 1, 1, 0], [5002, 'Bea', 1, 1, 0, 0]]);
    const [own, session, call] = await kamailio.rpcRows('rtc_json.agent', '5001');
    assert.equal(own.dn, 5001);
    assert.deepEqual([session.state, session.address], ['attached', '127.0.0.1']);
    assert.ok(session.expires > 290 && session.expires <= 300, String(session.expires));
    const [row] = await kamailio.rpcRows('rtc_json.calls');
    assert.deepEqual(call, row);
    assert.deepEqual([row.callId, row.state, row.sipCallId], [callId, 'established', invite.callId]);
    await assert.rejects(kamailio.rpc('rtc_json.agent', '4711'), { code: 404 });
    await assert.rejects(kamailio.rpc('rtc_json.agent'), { code: 400 });
    assert.equal((await peer.legOf(invite).bye()).status, 200);
    await a.waitFor('callEnded');
    assert.equal((await b.request('ping')).type, 'pong');
  });

  test('statistics count what happened', async () => {
    const names = ['registered', 'register_failed', 'calls_out', 'calls_in', 'calls_answered', 'calls_failed', 'errors', 'bad_frames'];
    const read = async () => Promise.all(names.map((name) => kamailio.stat(name)));
    const before = await read();
    const frames = [await kamailio.stat('frames_in'), await kamailio.stat('frames_out')];
    const peer = await bench.peer();
    const a = await bench.agent('5001');
    assert.deepEqual([await kamailio.stat('agents'), await kamailio.stat('sessions')], [1, 1]);
    const { callId, invite } = await answered(a, peer);
    assert.equal(await kamailio.stat('calls'), 1);
    assert.equal((await peer.legOf(invite).bye()).status, 200);
    await a.waitFor('callEnded', (p) => p.callId === callId);
    const leg = peer.leg('5001');
    leg.invite();
    const incoming = await a.waitFor('incomingCall');
    await a.request('hangup', { callId: incoming.callId, reason: 'busy' });
    leg.ack(await leg.answer());
    await a.request('hangup', { callId: 'none', reason: '' });
    a.sendRaw('{');
    await a.waitFor('error', (p) => p.code === 400);
    const stranger = await bench.client();
    await stranger.request('register', { dn: '5001', password: 'wrong', displayName: '' });
    assert.deepEqual(Object.fromEntries((await read()).map((value, i) => [names[i], value - before[i]])), {
      registered: 1, register_failed: 1, calls_out: 1, calls_in: 1, calls_answered: 1, calls_failed: 1, errors: 1, bad_frames: 1,
    });
    const of = (dir) => [a, stranger].flatMap((c) => c.log).filter((e) => e.dir === dir).length;
    assert.deepEqual([await kamailio.stat('frames_in') - frames[0], await kamailio.stat('frames_out') - frames[1]], [of('out'), of('in')]);
    // the module's own command says the same
    assert.equal((await kamailio.rpc('rtc_json.stats')).calls_out, await kamailio.stat('calls_out'));
  });

  test('JSON and SIP share the port, and even a connection', async () => {
    const a = await bench.agent('5001');
    const replies = [];
    const ws = new WebSocket(kamailio.wsUrl, ['sip']);
    ws.on('message', (data) => replies.push(data.toString()));
    await new Promise((done, fail) => { ws.once('open', done); ws.once('error', fail); });
    const options = (id) => ['OPTIONS sip:127.0.0.1 SIP/2.0', `Via: SIP/2.0/WS x.invalid;branch=z9hG4bK${id}`, 'Max-Forwards: 70',
      'From: <sip:j@x.invalid>;tag=1', 'To: <sip:127.0.0.1>', `Call-ID: ${id}`, 'CSeq: 1 OPTIONS', 'Content-Length: 0', '', ''].join('\r\n');
    try {
      ws.send(options('one'));
      await until(() => replies.length === 1);
      assert.match(replies[0], /^SIP\/2\.0 200 /);
      assert.match(replies[0], /^Call-ID: one\r$/m);
      ws.send('{"type":"ping","payload":{},"id":"p-1"}');
      await until(() => replies.length === 2);
      assert.deepEqual(JSON.parse(replies[1]), { type: 'pong', payload: {}, id: 'p-1' });
      ws.send(options('two'));
      await until(() => replies.length === 3);
      assert.match(replies[2], /^SIP\/2\.0 200 /);
      ws.send('\r\n\r\n'); // keep-alive, answered by Kamailio (RFC 7118, 6; RFC 5626, 3.5.1)
      await until(() => replies.length === 4);
      assert.equal(replies[3], '\r\n');
      // SIP that came by WebSocket never goes to an agent directly, past the far side's rules: the script decides
      ws.send(options('three').replace('OPTIONS sip:127.0.0.1 ', 'OPTIONS sip:5001@127.0.0.1 '));
      await until(() => replies.length === 5);
      assert.match(replies[4], /^SIP\/2\.0 404 /);
      // and so does it for a REGISTER
      ws.send(options('four').replaceAll('OPTIONS', 'REGISTER'));
      await until(() => replies.length === 6);
      assert.match(replies[5], /^SIP\/2\.0 404 /);
    } finally { ws.terminate(); }
    assert.equal((await a.request('ping')).type, 'pong');
  });
});

describe('the example as it is', () => {
  before(async () => {
    kamailio = await startKamailio();
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('a barred number is barred for transfers and texts, too', async () => {
    const a = await bench.agent('5001');
    for (const [type, payload] of [['call', { sdp: fakeOffer() }], ['transfer', { callId: 'any' }], ['message', { text: 'hello' }]]) {
      const answer = await a.request(type, { to: '004912345', ...payload });
      assert.deepEqual([answer.type, answer.payload.code, answer.payload.message], ['error', 403, 'International calls are barred'], type);
    }
  });
});

describe('JsSIP beside it (WITH_JSSIP)', () => {
  let port;
  before(async () => {
    port = await freePort();
    kamailio = await startKamailio({ nextHop: `sip:127.0.0.1:${port}`, defines: { WITH_JSSIP: true }, cfgExtra: tm({ wt_timer: 200 }) });
    bench = new Bench(kamailio);
  });
  after(() => kamailio?.stop());
  afterEach(() => bench.finish());

  test('a REGISTER by WebSocket goes to the far side, its answer comes back, JSON agents go on', async () => {
    const registrar = await openPeer(kamailio.sipPort, { port });
    const replies = [];
    const ws = new WebSocket(kamailio.wsUrl, ['sip']);
    ws.on('message', (data) => replies.push(data.toString()));
    try {
      await new Promise((done, fail) => { ws.once('open', done); ws.once('error', fail); });
      const a = await bench.agent('5001');
      ws.send(['REGISTER sip:127.0.0.1 SIP/2.0', 'Via: SIP/2.0/WS x.invalid;branch=z9hG4bKreg', 'Max-Forwards: 70', 'From: <sip:j@x.invalid>;tag=1',
        'To: <sip:j@x.invalid>', 'Call-ID: reg', 'CSeq: 1 REGISTER', 'Contact: <sip:j@x.invalid;transport=ws>', 'Supported: path', 'Content-Length: 0', '', ''].join('\r\n'));
      const register = await registrar.request('REGISTER');
      assert.match(register.header('Path'), /received=/);
      registrar.reply(register, 200);
      await until(() => replies.some((r) => r.startsWith('SIP/2.0 200')));
      assert.equal((await a.request('ping')).type, 'pong');
    } finally {
      ws.terminate();
      await registrar.close();
    }
  });
});

/** Where Kamailio's own modules are, as far as the harness can see. */
const installed = (name) => ['/usr/lib', '/usr/lib64', '/usr/local/lib', '/usr/local/lib64']
  .flatMap((root) => [root, ...(fs.existsSync(root) ? fs.readdirSync(root).map((sub) => path.join(root, sub)) : [])])
  .some((dir) => fs.existsSync(path.join(dir, 'kamailio/modules', `${name}.so`)));

const kemi = {
  lua: {
    module: 'app_lua',
    script: `
function ksr_request_route()
	if KSR.rtc_json.handle() > 0 then return 1 end
	KSR.sl.send_reply(404, "Not Found")
	return 1
end
function ksr_reply_route()
	return 1
end
function ksr_xhttp_event(name)
	KSR.set_reply_close()
	KSR.set_reply_no_connect()
	if KSR.pv.gete("$hdr(Upgrade)") == "websocket" then KSR.websocket.handle_handshake() return 1 end
	KSR.xhttp.xhttp_reply(404, "Not Found", "text/plain", "not here\\n")
	return 1
end
function ksr_rtc_json_event(name)
	if name == "rtc_json:call-ended" then
		KSR.notice("KEMI:" .. name .. "|" .. KSR.pv.gete("$rtcj(call.dn)") .. "|" .. KSR.pv.gete("$rtcj(call.reason)") .. "|\\n")
		return 1
	end
	if KSR.pv.gete("$rtcj(type)") == "call" and KSR.pv.gete("$rtcj(payload.to)") == "0011" then
		KSR.rtc_json.reject(403, "Barred by Lua")
		return 1
	end
	KSR.rtc_json.handle()
	return 1
end
`,
  },
  python: {
    module: 'app_python3',
    script: `
import KSR as KSR

def mod_init():
    return kamailio()

class kamailio:
    def child_init(self, rank):
        return 0

    def ksr_request_route(self, msg):
        if KSR.rtc_json.handle() > 0:
            return 1
        KSR.sl.send_reply(404, "Not Found")
        return 1

    # app_python3 leaves an exception behind where this is missing, and the next request of the process fails by it
    def ksr_reply_route(self, msg):
        return 1

    def ksr_xhttp_event(self, msg, name):
        KSR.set_reply_close()
        KSR.set_reply_no_connect()
        if KSR.pv.gete("$hdr(Upgrade)") == "websocket":
            KSR.websocket.handle_handshake()
            return 1
        KSR.xhttp.xhttp_reply(404, "Not Found", "text/plain", "not here\\n")
        return 1

    def ksr_rtc_json_event(self, msg, name):
        if name == "rtc_json:call-ended":
            KSR.notice("KEMI:" + name + "|" + KSR.pv.gete("$rtcj(call.dn)") + "|" + KSR.pv.gete("$rtcj(call.reason)") + "|\\n")
            return 1
        if KSR.pv.gete("$rtcj(type)") == "call" and KSR.pv.gete("$rtcj(payload.to)") == "0011":
            KSR.rtc_json.reject(403, "Barred by Python")
            return 1
        KSR.rtc_json.handle()
        return 1
`,
  },
};

for (const [language, { module, script }] of Object.entries(kemi)) {
  describe(`KEMI: ${language}`, { skip: installed(module) ? false : `${module} is not installed` }, () => {
    before(async () => {
      const cfg = editedConfig((text) => {
        return text.slice(0, text.indexOf('####### Routing'))
          .replace('loadmodule "rtc_json.so"', `loadmodule "${module}.so"\nloadmodule "rtc_json.so"`)
          + `
modparam("${module}", "load", "SCRIPT_FILE")
modparam("xhttp", "event_callback", "ksr_xhttp_event")
modparam("rtc_json", "event_callback", "ksr_rtc_json_event")
cfgengine "${language}"
`;
      });
      const file = path.join(path.dirname(cfg), language === 'lua' ? 'route.lua' : 'route.py');
      fs.writeFileSync(file, script);
      fs.writeFileSync(cfg, fs.readFileSync(cfg, 'utf8').replace('SCRIPT_FILE', file));
      kamailio = await startKamailio({ cfg, cfgExtra: tm({ wt_timer: 200 }) });
      // Kamailio parses its own HTTP answers as SIP where the handshake runs in KEMI (5.6.3, also without our module)
      bench = new Bench(kamailio, { log: [/parse_first_line: bad message/, /parse_msg: message=<HTTP/, /build_sip_msg_from_buf\(\): parsing failed/] });
    });
    after(() => kamailio?.stop());
    afterEach(() => bench.finish());

    test('a call between two agents, a refusal, a call record', async () => {
      const [a, b] = [await bench.agent('5001'), await bench.agent('5002')];
      const { type, payload } = await a.request('call', { to: '0011', sdp: fakeOffer() });
      assert.deepEqual([type, payload.code], ['error', 403]);
      assert.match(payload.message, /^Barred by /);
      const id = a.send('call', { to: '5002', sdp: fakeOffer() });
      const incoming = await b.waitFor('incomingCall');
      await b.expect('answer', { callId: incoming.callId, sdp: fakeAnswer() }, 'ack');
      const { callId } = await a.waitFor('callAccepted', (p, m) => m.id === id);
      await callsBecome(kamailio, (rows) => rows.every((row) => row.state === 'established'));
      await a.expect('hangup', { callId, reason: 'user_hangup' }, 'callEnded');
      await b.waitFor('callEnded');
      await until(() => noted('KEMI').length === 2);
      assert.deepEqual(noted('KEMI').sort(), ['KEMI:rtc_json:call-ended|5001|normal_clearing|', 'KEMI:rtc_json:call-ended|5002|normal_clearing|']);
      // a number that nobody has: the script's own 404
      assert.equal((await a.request('call', { to: '4711', sdp: fakeOffer() })).payload.code, 404);
    });
  });
}
