#!/usr/bin/env node
/**
 * fuzz-seeds.mjs FOLDER: first inputs for the fuzz targets (FOLDER/TARGET/…), made from the recorded messages in tests/samples, the
 * descriptions in crates, and the corpora beside this repository (RTC_JSON_CORPORA), where they are.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('..', import.meta.url));
const corpora = process.env.RTC_JSON_CORPORA ?? path.join(top, '../shared/corpora');
const out = process.argv[2];
if (!out) { console.error('fuzz-seeds.mjs FOLDER'); process.exit(2); }
const count = {};

function put(target, name, data) {
  const dir = path.join(out, target);
  fs.mkdirSync(dir, { recursive: true });
  fs.writeFileSync(path.join(dir, name.replace(/[^\w.-]/g, '_')), data);
  count[target] = (count[target] ?? 0) + 1;
}

const files = (dir, end) => (fs.existsSync(dir) ? fs.readdirSync(dir).filter((name) => name.endsWith(end)).map((name) => [name, fs.readFileSync(path.join(dir, name))]) : []);
const samples = (way) => files(path.join(top, 'tests/samples', way), '.json').flatMap(([name, text]) => JSON.parse(text).map((message, i) => [`${name}-${i}`, message]));
// the call of a sample does not exist; one that does reaches further
const live = (message, call) => JSON.stringify(message, (key, value) => (key === 'callId' || key === 'withCallId' ? call : value));
// an input is worth the more the shorter it is: of a description what is asked of each, one line of a kind
const small = (text) => {
  let map = new Set();
  const seen = new Set();
  return text.split('\r\n').filter((line) => {
    if (line.startsWith('m=')) { seen.clear(); map = new Set(line.split(' ').slice(3)); return true; }
    const [, kind, number] = /^a=(rtpmap|fmtp|rtcp-fb|extmap|ssrc|ssrc-group|candidate):?(\S*)/.exec(line) ?? [];
    if (!kind) return true;
    if (kind === 'rtpmap' && /PCMU|telephone-event\/8000|VP8/.test(line)) { seen.add(number); return true; }
    if (kind === 'fmtp') return seen.has(number);
    return !['rtpmap', 'ssrc-group'].includes(kind) && !seen.has(kind) && seen.add(kind);
  }).join('\r\n').replace(/^(m=\S+ \S+ \S+) (.*)$/gm, (line, head, list) => `${head} ${list.split(' ').filter((n) => ['0', '101', '110', '126', '96', '120'].includes(n)).join(' ') || list}`)
    .replace(/(a=msid|a=rtcp-fb|a=extmap).*\r\n/g, '');
};
const short = (message) => JSON.parse(JSON.stringify(message, (key, value) => (key === 'sdp' ? small(value) : value)));
const register = { type: 'register', payload: { dn: '5001', password: 'pw-of-5001', displayName: 'Ann' }, id: 'reg' };
const offer = fs.readFileSync(path.join(top, 'crates/engine/tests/samples/chromium-offer.sdp'), 'utf8');
const far = fs.readFileSync(path.join(top, 'crates/engine/tests/samples/asterisk-answer.sdp'), 'utf8');

for (const [name, message] of samples('client')) {
  put('frames', name, `${live(message, '$out')}\nr 200\n${live(message, '$in')}\nr 486\nt 5000\n`);
  put('ffi', name, [`f1${JSON.stringify(register)}`, 'r401', 'r200', `f1${JSON.stringify({ type: 'call', payload: { to: '600', sdp: offer }, id: 'c' })}`, 'r200',
    `f1${live(message, '$call')}`, 'r200', 't', 'c1', 'A', 'C'].join('\n'));
  put('frames', `short-${name}`, `${live(short(message), '$out')}\nr 200\n`);
  put('frames', `short-in-${name}`, `${live(short(message), '$in')}\nr 486\nt 5000\n`);
  put('ffi', `short-${name}`, [`f1${JSON.stringify(register)}`, 'r200', `f1${JSON.stringify({ type: 'call', payload: { to: '600', sdp: small(offer) }, id: 'c' })}`, 'r200', `f1${live(short(message), '$call')}`, 'r200'].join('\n'));
}
for (const [name, text] of files(path.join(corpora, 'json'), '.json')) put('frames', name, text);

for (const dir of ['crates/sdp/tests/samples', 'crates/engine/tests/samples', 'tests/common/sdp']) {
  for (const [name, text] of files(path.join(top, dir), '.sdp')) {
    put('sdp', name, Buffer.concat([Buffer.from('0'), text]));
    put('sdp', `3-${name}`, Buffer.concat([Buffer.from('3'), text]));
    put('sdp', `short-${name}`, `0${small(text.toString())}`);
    put('sdp', `3-short-${name}`, `3${small(text.toString())}`);
  }
}
for (const [name, text] of files(path.join(corpora, 'sdp'), '')) put('sdp', name, Buffer.concat([Buffer.from('0'), text]));

const message = (first, { call = 'in-call-1', from = '<sip:1003@pbx.example>;tag=far1', to = '<sip:5001@pbx.example>;tag=$intag', cseq, more = '', body = '' }) => [
  first, 'Via: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bK1', 'Max-Forwards: 70', `From: ${from}`, `To: ${to}`, `Call-ID: ${call}`, `CSeq: ${cseq}`,
  'Contact: <sip:1003@127.0.0.1:5080>', `${more}${body ? 'Content-Type: application/sdp\r\n' : ''}Content-Length: ${Buffer.byteLength(body)}`, '', body].join('\r\n');
const ours = { call: '$sipcall', from: '<sip:600@pbx.example>;tag=far2', to: '<sip:5001@pbx.example>;tag=$outtag' };
for (const [method, more, body] of [['BYE', '', ''], ['INVITE', '', far], ['UPDATE', '', far], ['INFO', 'Info-Package: trickle-ice\r\n', ''], ['ACK', '', ''], ['CANCEL', '', ''], ['OPTIONS', '', ''],
  ['REFER', 'Refer-To: <sip:1004@pbx.example?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc>\r\n', ''], ['NOTIFY', 'Event: refer\r\nSubscription-State: terminated\r\n', ''], ['PRACK', 'RAck: 1 1 INVITE\r\n', ''], ['MESSAGE', '', '']]) {
  const first = `${method} sip:5001@127.0.0.1:5060 SIP/2.0`;
  put('sip', `in-${method}`, message(first, { cseq: `2 ${method}`, more, body }));
  put('sip', `out-${method}`, message(first, { ...ours, cseq: `2 ${method}`, more, body }));
  if (body) put('sip', `short-${method}`, message(first, { ...ours, cseq: `2 ${method}`, more, body: small(body) }));
}
for (const [code, more, body] of [[100, '', ''], [180, 'Require: 100rel\r\nRSeq: 1\r\n', ''], [183, '', far], [200, 'Session-Expires: 90;refresher=uac\r\n', far], [302, '', ''], [401, 'WWW-Authenticate: Digest realm="a", nonce="n", qop="auth", algorithm=SHA-256\r\n', ''],
  [422, 'Min-SE: 600\r\n', ''], [486, 'Reason: Q.850;cause=17;text="busy"\r\n', ''], [491, '', '']]) {
  const reply = message(`SIP/2.0 ${code} Whatever`, { call: '$sipcall', from: '<sip:5001@pbx.example>;tag=$outtag', to: '<sip:600@pbx.example>;tag=far2', cseq: '1 INVITE', more, body: body && small(body) });
  put('sip', `reply-${code}`, `${reply}\x1e${message('BYE sip:5001@127.0.0.1 SIP/2.0', { ...ours, cseq: '3 BYE' })}`);
}
for (const [name, text] of files(path.join(corpora, 'sip-rfc4475'), '.dat')) put('sip', name, text);

put('token', 'claims', `c${JSON.stringify({ sub: '5001', exp: 1_800_000_060, nbf: 1_799_999_000, iat: 1_799_999_000, iss: 'x', aud: ['rtc', 'y'], scope: 'register calls:read', dns: ['5001', '50*'] })}`);
put('token', 'header', `h${JSON.stringify({ alg: 'HS256', typ: 'JWT', kid: 'hs', crit: ['b64'] })}\n{"sub":"5001","exp":1800000060}`);
put('token', 'whole', 'teyJhbGciOiJIUzI1NiIsImtpZCI6ImhzIn0.eyJzdWIiOiI1MDAxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk');
for (const [name, text] of files(path.join(top, 'crates/api/tests/keys'), '.pem')) if (!name.includes('.key.')) put('token', name, Buffer.concat([Buffer.from('k'), text]));
put('token', 'jwks', `k${JSON.stringify({ keys: [{ kty: 'oct', kid: 'a', alg: 'HS256', k: 'YSBzZWNyZXQgZm9yIHRlc3RzLCBvZiAzMiBieXRlcy4' }, { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' }] })}`);
put('token', 'secret', 'sa-turn-secret-of-some-length\n');
for (const uri of ['stun:turn.example:3478', 'turn:[2001:db8::1]:3478?transport=udp', 'turns:a.b?transport=tcp']) put('token', uri, `u${uri}`);

const edit = (at, length, value) => { const b = Buffer.alloc(6); b.writeUInt32LE(at); b[4] = length; b[5] = value; return b; };
put('arena', 'nothing', '');
for (let i = 0; i < 40; i += 1) put('arena', `edit-${i}`, Buffer.concat([edit(i * 26_003, i * 5, i * 7), edit(i * 64, 7, 0xff)]));
for (const length of [0, 64, 4096, 65_536, 1_000_000]) { const b = Buffer.alloc(5); b[0] = 0xff; b.writeUInt32LE(length, 1); put('arena', `cut-${length}`, b); }

const sip = (text) => text.replaceAll('\r\n', '|');
put('ffi', 'http', 'gGET /api/agents?x=1 HTTP/1.1|Host: a|Authorization: Bearer x||\ngPUT /api/agents/5001 HTTP/1.1|Host: a|Content-Length: 2||{}\nA\nT\nS3\n');
put('ffi', 'in', [`f1${JSON.stringify(register)}`, 'r200', `s1${sip(message('INVITE sip:5001@127.0.0.1 SIP/2.0', { to: '<sip:5001@x>', cseq: '1 INVITE', body: far }))}`,
  `f1${JSON.stringify({ type: 'answer', payload: { callId: '$call', sdp: far }, id: 'a' })}`, 's1BYE sip:5001@127.0.0.1 SIP/2.0|Call-ID: in-call-1|CSeq: 2 BYE||', 'R', 'vcall.from'].join('\n'));
put('ffi', 'failing', [`x4`, `f1${JSON.stringify(register)}`, 'x0', '1200', `f1${JSON.stringify(register)}`, 'D1', `f2${JSON.stringify(register)}`, 'x511', 'c1', 't'].join('\n'));
const rest = (line, more = '') => `g${line} HTTP/1.1|Host: a|Authorization: Bearer $token|${more}|`;
put('ffi', 'api', [`f1${JSON.stringify(register)}`, 'r401', 'r200', rest('GET /api/agents?limit=5'), rest('GET /api/agents/5001'), rest('GET /api/calls'), rest('GET /api/genesys'), rest('GET /api/calls/history'),
  rest('PUT /api/agents/5001', 'Content-Type: application/json|Content-Length: 16|') + '{"skills":["a"]}', rest('DELETE /api/calls/$call'), rest('OPTIONS /api/agents', 'Origin: https://pages.example|')].join('\n'));
put('ffi', 'token', `f1${JSON.stringify({ type: 'register', payload: { dn: '5001', token: '$token' }, id: 'r' })}\nr401\nr200\nf1${JSON.stringify({ type: 'ping', payload: {}, id: 'p' })}`);
const node = '192.0.2.9:5060';
const batch = (...items) => `B${JSON.stringify({ from: node, now: 1, items })}`;
put('ffi', 'nodes', [batch({ Hello: { agents: 1, calls: 1, draining: false, hears: ['127.0.0.1:5060'], digest: null } }), `f1${JSON.stringify(register)}`, 'r401', 'r200', `E${node}`, 't', 'N5001', 'L5001', 'P', 'c1',
  `f2${JSON.stringify(register)}`, 'r401', 'r200', 't'].join('\n'));
put('ffi', 'batches', [batch({ Ask: { to: '127.0.0.1:5060', buckets: [0, 1, 255] } }), batch({ Known: { to: '127.0.0.1:5060', dn: '5001', version: { epoch: 3, owner: node, counter: 2 }, brought: ['a'] } }),
  batch({ HangUp: { dn: '5001', call: '$call' } }), batch({ Listing: { bucket: 3, dns: ['5001'] } }), batch({ Record: { dn: '5002', version: { epoch: 1, owner: node, counter: 1 }, record: [1, 2, 3], brought: [] } }),
  batch({ Record: { dn: '5002', version: { epoch: 1, owner: node, counter: 2 }, record: null, brought: [] } }), 'P', 'MAAAA'].join('\n'));
put('ffi', 'directory', 'b\nd5001,Ann,ann,sales\nd5002,,,\ne\na5001\nw5001\nuabc\nmr 1 5001 \n');
if (!fs.existsSync(corpora)) console.log(`the corpora are not here (${corpora}): seeds from the recorded messages alone`);
console.log(Object.entries(count).map(([target, n]) => `${target} ${n}`).join(', '));
