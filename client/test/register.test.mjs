import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RtcJsonError } from '../dist/rtc-json.js';
import { accept, FakeSocket, newPhone, reconnected, registered, settle } from './fakes.mjs';

test('register sends one frame with the credentials and resolves with the outcome', async () => {
  const phone = newPhone();
  const states = [];
  phone.on('state', (state) => states.push(state));
  const promise = phone.register();
  const socket = FakeSocket.last;
  assert.equal(socket.url, 'wss://server.example/ws');
  assert.deepEqual(socket.protocols, ['rtc-json', 'sip']);
  assert.equal(phone.register(), promise, 'a second call joins the first');

  accept({ iceServers: [{ urls: 'stun:s' }] });
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

test('a refusal rejects with code and reason, closes, and can be tried again', async () => {
  const phone = newPhone();
  const promise = phone.register();
  const socket = FakeSocket.last;
  socket.open();
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
  accept();
  await again;
  phone.close();
});

test('a server that cannot be reached rejects as retryable, without reconnecting by itself', async () => {
  const phone = newPhone();
  const promise = phone.register();
  FakeSocket.last.drop();
  await assert.rejects(promise, { name: 'RtcJsonError', code: 0, retryable: true });
  const sockets = FakeSocket.all.length;
  await new Promise((done) => setTimeout(done, 20));
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

test('a silent server counts as lost; one that answers pings does not', async () => {
  const { phone, socket } = await registered({ keepAlive: 15 });
  for (let i = 0; i < 4; i++) {
    await new Promise((done) => setTimeout(done, 10));
    const ping = socket.find('ping');
    if (ping) socket.say('pong', {}, ping.id);
  }
  assert.ok(socket.count('ping') >= 1);
  assert.equal(phone.state, 'registered');
  const next = await reconnected();
  assert.notEqual(next, socket);
  assert.ok(socket.closed);
  assert.equal(phone.state, 'reconnecting');
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
  socket.say('error', { message: 'no such call', code: 404, callId: 'c9', details: 'd', cause: 1 }, 'r99');
  await settle();
  assert.deepEqual(seen.slice(0, 3), ['draining', '1003', 'hello']);
  const [error] = seen.slice(3);
  assert.deepEqual([error.message, error.code, error.details, error.cause], ['no such call', 404, 'd', 1]);
  off();
  socket.say('message', { from: '1003', text: 'again' }, 'evt-3');
  await settle();
  assert.equal(seen.length, 4);
  phone.close();
});
