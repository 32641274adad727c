import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RtcJsonError } from '../dist/rtc-json.js';
import { accept, clock, FakeSocket, newPhone, reconnected, registered, settle, tick } from './fakes.mjs';

test('register sends one frame with the credentials and resolves with the outcome', async () => {
  const phone = newPhone();
  const states = [];
  phone.on('state', (state) => states.push(state));
  const promise = phone.register();
  const socket = FakeSocket.last;
  assert.equal(socket.url, 'wss://server.example/ws');
  assert.deepEqual(socket.protocols, ['rtc-json', 'sip']);
  assert.equal(phone.register(), promise, 'a second call joins the first');

  await accept({ iceServers: [{ urls: ['stun:s'] }] });
  assert.deepEqual(
    socket.sent.map(({ type, payload }) => ({ type, payload })),
    [{ type: 'register', payload: { dn: '5001', password: 'pw5001', displayName: 'Alice' } }],
  );
  const outcome = await promise;
  assert.equal(outcome.server, 'fake');
  assert.equal(phone.registration, outcome);
  assert.deepEqual(states, ['connecting', 'registered']);
  assert.equal(FakeSocket.all.length, 1);
  phone.close();
});

test('registered comes again with fresh credentials: the next connection uses them, and nothing else changes', async () => {
  const { phone, socket } = await registered({}, { iceServers: [{ urls: ['turn:t'], username: 'u1', credential: 'c1' }] });
  const states = [];
  phone.on('state', (state) => states.push(state));
  const open = phone.request('message', { to: '5002', text: 'hi' });
  const fresh = [{ urls: ['turn:t'], username: 'u2', credential: 'c2' }];
  const before = phone.session.resume;
  socket.say('registered', { ...phone.registration, iceServers: fresh }, 'evt-3');
  await settle();
  assert.deepEqual([phone.call('1003').pc.config.iceServers, phone.session, states], [fresh, { resume: before, last: 3 }, []]);
  socket.say('ack', {}, socket.find('message').id);
  await open;
  phone.close();
});

test('a refusal rejects with code and reason, closes, and can be tried again', async () => {
  const phone = newPhone();
  const promise = phone.register();
  const socket = FakeSocket.last;
  socket.open();
  await settle();
  socket.say('registrationFailed', { reason: 'wrong password', code: 403 }, socket.find('register').id);
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof RtcJsonError);
    assert.equal(error.name, 'RtcJsonError');
    assert.equal(error.message, 'wrong password');
    assert.equal(error.code, 403);
    assert.equal(error.retryable, false);
    return true;
  });
  assert.equal(phone.state, 'closed');
  assert.ok(socket.closed);

  const again = phone.register();
  assert.notEqual(FakeSocket.last, socket);
  await accept();
  await again;
  phone.close();
});

test('a server that cannot be reached rejects as retryable, without reconnecting by itself', async (t) => {
  clock(t);
  const phone = newPhone();
  const promise = phone.register();
  FakeSocket.last.drop();
  await assert.rejects(promise, { name: 'RtcJsonError', code: 0, retryable: true });
  const sockets = FakeSocket.all.length;
  tick(60_000);
  assert.equal(FakeSocket.all.length, sockets);
  assert.equal(phone.state, 'closed');
});

test('unregister waits for the server, then everything is closed', async () => {
  const { phone, socket } = await registered();
  const promise = phone.unregister();
  socket.say('unregistered', { dn: '5001', reason: 'requested' }, socket.find('unregister').id);
  await promise;
  assert.equal(phone.state, 'closed');
  assert.ok(socket.closed);
  await assert.rejects(phone.unregister(), { code: 401 });
});

test('an end of the registration by the server is told, and ends the calls', async () => {
  const { phone, socket } = await registered();
  const told = [];
  phone.on('unregistered', ({ reason }) => told.push(reason));
  const call = phone.call('1003');
  await settle();
  socket.say('unregistered', { dn: '5001', reason: 'replaced' }, 'evt-1');
  assert.equal((await call.ended).reason, 'session_expired');
  assert.deepEqual(told, ['replaced']);
  assert.equal(phone.state, 'closed');
});

test('a silent server counts as lost; one that answers pings does not', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  for (let i = 0; i < 4; i++) {
    tick(20_000);
    socket.say('pong', {}, socket.find('ping').id);
  }
  assert.equal(socket.count('ping'), 4);
  assert.equal(phone.state, 'registered');
  tick(20_000);
  assert.equal(phone.state, 'registered');
  tick(20_000);
  assert.equal(phone.state, 'reconnecting');
  assert.ok(socket.closed);
  assert.notEqual(reconnected(t), socket);
  phone.close();
});

test('a server that takes the connection and says nothing counts as lost', async (t) => {
  clock(t);
  const phone = newPhone();
  const promise = phone.register();
  FakeSocket.last.open();
  tick(40_000);
  await assert.rejects(promise, { retryable: true });
});

test('a token, or what gives a fresh one at each connect', async (t) => {
  clock(t);
  const fixed = await registered({ password: undefined, token: 'jwt' });
  assert.equal(fixed.socket.find('register').payload.token, 'jwt');
  assert.equal('password' in fixed.socket.find('register').payload, false);
  fixed.phone.close();

  let count = 0;
  const { phone, socket } = await registered({ password: undefined, token: async () => `jwt-${++count}` });
  assert.equal(socket.find('register').payload.token, 'jwt-1');
  socket.drop();
  const next = reconnected(t);
  await accept();
  assert.equal(next.find('register').payload.token, 'jwt-2');
  phone.close();
});

test('a token that cannot be had refuses the first registration; later it is tried again', async (t) => {
  clock(t);
  let fail = true;
  const token = async () => {
    if (fail) throw new TypeError('fetch failed');
    return 'jwt';
  };
  const phone = newPhone({ password: undefined, token });
  const promise = phone.register();
  FakeSocket.last.open();
  await assert.rejects(promise, { name: 'RtcJsonError', message: 'fetch failed', details: 'TypeError' });
  assert.equal(phone.state, 'closed');

  fail = false;
  const again = phone.register();
  await accept();
  await again;
  fail = true;
  FakeSocket.last.drop();
  const second = reconnected(t);
  second.open();
  await settle();
  assert.equal(phone.state, 'reconnecting');
  fail = false;
  assert.notEqual(reconnected(t), second);
  await accept();
  assert.equal(phone.state, 'registered');
  phone.close();
});

const challenge = { realm: 'r', nonce: 'n', algorithm: 'MD5', qop: 'auth', method: 'REGISTER', uri: 'sip:r' };

test('a challenge is answered by the hook, once for the registration and whenever one comes by itself', async () => {
  const asked = [];
  const digest = async (it) => (asked.push(it), { nonce: it.nonce, response: `hash ${asked.length}` });
  const phone = newPhone({ password: undefined, digest });
  const promise = phone.register();
  const socket = FakeSocket.last;
  socket.open();
  await settle();
  const first = socket.find('register');
  assert.deepEqual(Object.keys(first.payload), ['dn', 'displayName']);
  socket.say('challenge', challenge, first.id);
  await settle();
  const second = socket.find('register');
  assert.notEqual(second.id, first.id);
  assert.deepEqual(second.payload.digest, { nonce: 'n', response: 'hash 1' });
  // an answer that comes too late is challenged again
  socket.say('challenge', { ...challenge, nonce: 'n2' }, second.id);
  await settle();
  await accept();
  await promise;

  socket.say('challenge', { ...challenge, nonce: 'n3', callId: 'c1' }, 'evt-1');
  await settle();
  const { payload, id } = socket.find('digest');
  assert.deepEqual(payload, { callId: 'c1', digest: { nonce: 'n3', response: 'hash 3' } });
  socket.say('ack', { callId: 'c1' }, id);
  assert.deepEqual(asked.map(({ nonce }) => nonce), ['n', 'n2', 'n3']);
  phone.close();
});

test('a challenge that nothing can answer refuses the registration', async () => {
  const phone = newPhone({ password: undefined });
  const promise = phone.register();
  const socket = FakeSocket.last;
  socket.open();
  await settle();
  socket.say('challenge', challenge, socket.find('register').id);
  await assert.rejects(promise, { name: 'RtcJsonError' });
  assert.equal(phone.state, 'closed');
});

test('requests: the outcome resolves, a refusal rejects with all that is known of it', async () => {
  const { phone, socket } = await registered();
  const good = phone.request('message', { to: '1003', text: 'hello' });
  const { payload, id } = socket.find('message');
  assert.deepEqual(payload, { to: '1003', text: 'hello' });
  socket.say('ack', {}, id);
  assert.deepEqual(await good, {});

  const told = [];
  phone.on('error', (error) => told.push(error));
  const bad = phone.request('message', { to: '1004', text: 'hello' });
  const refusal = { message: 'far side is away', code: 480, details: 'not registered', cause: 20, retryable: true };
  socket.say('error', refusal, socket.find('message').id);
  await assert.rejects(bad, { name: 'RtcJsonError', request: socket.find('message').id, ...refusal });
  assert.deepEqual(told, []);
  phone.close();
});

test('retryable: as the server says, else by the code', () => {
  const retryable = (info) => new RtcJsonError('x', info).retryable;
  for (const code of [408, 429, 500, 503, 599]) assert.equal(retryable({ code }), true, `${code}`);
  for (const code of [undefined, 0, 400, 403, 404, 415, 486, 491, 603]) assert.equal(retryable({ code }), false, `${code}`);
  assert.equal(retryable({ code: 491, retryable: true }), true);
  assert.equal(retryable({ code: 503, retryable: false }), false);
});

test('a request is given up by its signal; what comes for it later does nothing', async () => {
  const { phone, socket } = await registered();
  const errors = [];
  phone.on('error', (error) => errors.push(error.message));
  const controller = new AbortController();
  const promise = phone.request('ping', {}, { signal: controller.signal });
  controller.abort(new Error('no patience'));
  await assert.rejects(promise, { message: 'no patience' });
  socket.say('pong', {}, socket.find('ping').id);
  await assert.rejects(phone.request('ping', {}, { signal: AbortSignal.abort() }), { name: 'AbortError' });
  assert.equal(socket.count('ping'), 1);
  assert.deepEqual(errors, []);
  phone.close();
});

test('messages without a call become events of the phone; errors without a request too', async () => {
  const { phone, socket } = await registered();
  const seen = [];
  phone.on('notice', (notice) => seen.push(notice.reason));
  const off = phone.on('message', ({ from, text }) => seen.push(from, text));
  phone.on('error', (error) => seen.push(error));
  socket.say('notice', { reason: 'draining' }, 'evt-1');
  socket.say('message', { from: '1003', text: 'hello' }, 'evt-2');
  phone.on('conferenceUpdated', ({ room, state }) => seen.push(room, state));
  socket.say('conferenceUpdated', { room: '700', callIds: ['c1'], state: 'active' }, 'evt-4');
  socket.say('error', { message: 'no such call', code: 404, callId: 'c9', details: 'd', cause: 1 }, 'r99');
  await settle();
  assert.deepEqual(seen.slice(0, 5), ['draining', '1003', 'hello', '700', 'active']);
  const [error] = seen.slice(5);
  assert.deepEqual([error.message, error.code, error.details, error.cause], ['no such call', 404, 'd', 1]);
  off();
  socket.say('message', { from: '1003', text: 'again' }, 'evt-5');
  await settle();
  assert.equal(seen.length, 6);
  phone.close();
});
