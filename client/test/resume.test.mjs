import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accept, clock, established, FakePeer, FakeSocket, reconnected, registered, settle, snapshot, tick } from './fakes.mjs';

test('a lost socket: the session is resumed with its token, the last event and the password', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const states = [];
  phone.on('state', (state) => states.push(state));
  socket.say('notice', { reason: 'x' }, 'evt-4');
  socket.drop();
  await settle();
  assert.equal(phone.state, 'reconnecting');
  const next = reconnected(t);
  const first = socket.find('register');
  await accept();
  const second = next.find('register');
  assert.deepEqual(second.payload, {
    dn: '5001',
    password: 'pw5001',
    displayName: 'Alice',
    resume: 'token-1',
    last: 4,
  });
  assert.notEqual(second.id, first.id);
  await settle();
  assert.deepEqual(states, ['reconnecting', 'registered']);
  phone.close();
});

test('waits grow up to the longest one, and go by chance', async (t) => {
  clock(t);
  t.mock.method(Math, 'random', () => 0.5);
  const { phone, socket } = await registered();
  const waits = [];
  for (let last = socket; waits.length < 6; ) {
    last.drop();
    let wait = 0;
    for (; FakeSocket.last === last; wait++) tick(1);
    waits.push(wait);
    last = FakeSocket.last;
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 2000, 2000]);
  t.mock.method(Math, 'random', () => 0);
  const last = FakeSocket.last;
  last.drop();
  tick(1);
  assert.notEqual(FakeSocket.last, last);
  phone.close();
});

test('register tries at once while the phone waits', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  socket.drop();
  const promise = phone.register();
  assert.notEqual(FakeSocket.last, socket);
  const { length } = FakeSocket.all;
  tick(9000);
  assert.equal(FakeSocket.all.length, length, 'and not once more when the wait is over');
  await accept();
  await promise;
  assert.equal(phone.state, 'registered');
  phone.close();
});

test('a call and its connection survive; a request without an outcome is sent again under the same id', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const call = phone.call('1003');
  await settle();
  const request = socket.find('call');
  const peers = FakePeer.all.length;
  socket.drop();
  const next = reconnected(t);
  await accept();
  assert.deepEqual(next.find('call'), request);
  assert.equal(next.count('call'), 1);
  assert.equal(FakePeer.all.length, peers);
  next.say('callProgress', { callId: 'c1', state: 'trying', request: request.id }, request.id);
  next.say('callAccepted', { callId: 'c1', sdp: 'a' }, request.id);
  await settle();
  assert.equal(call.state, 'established');
  assert.notEqual(call.pc.signalingState, 'closed');
  phone.close();
});

test('a request made while the socket is away is sent after the resume', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  socket.drop();
  call.hangup();
  const next = reconnected(t);
  await accept({ calls: [{ callId: 'c1', direction: 'out', state: 'established', from: '5001', to: '1003' }] });
  const { payload, id } = next.find('hangup');
  assert.equal(payload.callId, 'c1');
  next.say('callEnded', { callId: 'c1', reason: 'normal_clearing', duration: 1 }, id);
  assert.equal((await call.ended).duration, 1);
  phone.close();
});

test('what has an outcome is not sent again, and events told twice act once', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const seen = [];
  phone.on('message', ({ text }) => seen.push(text));
  await established(phone, socket);
  socket.say('message', { from: '1', text: 'one' }, 'evt-1');
  socket.drop();
  const next = reconnected(t);
  await accept({ calls: [{ callId: 'c1', direction: 'out', state: 'established', from: '5001', sdp: 'a' }] });
  next.say('message', { from: '1', text: 'one' }, 'evt-1');
  next.say('message', { from: '1', text: 'two' }, 'evt-2');
  await settle();
  assert.deepEqual(next.sent.map(({ type }) => type), ['register']);
  assert.deepEqual(seen, ['one', 'two']);
  phone.close();
});

test('an inbound call that rings now appears, once', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const incoming = new Promise((done) => phone.on('call', done));
  socket.drop();
  const next = reconnected(t);
  const rings = snapshot({ callId: 'c6', direction: 'in', state: 'incoming', from: '1009', to: '5001', displayName: 'Dora', sdp: 'offer', since: 0 });
  await accept({ calls: [rings] });
  const ringing = await incoming;
  assert.deepEqual([ringing.id, ringing.state, ringing.displayName], ['c6', 'ringing', 'Dora']);
  assert.deepEqual(ringing.pc.log, ['remote offer offer']);
  next.say('incomingCall', { callId: 'c6', from: '1009', displayName: 'Dora', sdp: 'offer' }, 'evt-1');
  next.drop();
  reconnected(t);
  await accept({ calls: [rings] });
  assert.deepEqual([...phone.calls], [ringing]);
  assert.equal(ringing.state, 'ringing');
  assert.equal(typeof ringing.hold, 'function');
  phone.close();
});

test('a `call` that failed meanwhile gets its outcome from the retry', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const call = phone.call('486');
  await settle();
  const { id } = socket.find('call');
  socket.say('callProgress', { callId: 'c1', state: 'ringing', request: id }, id);
  await settle();
  socket.drop();
  const next = reconnected(t);
  await accept();
  assert.deepEqual(next.sent.map((message) => message.type), ['register', 'call']);
  next.say('callEnded', { callId: 'c1', reason: 'user_busy', duration: 0, code: 486 }, 'evt-1');
  await settle();
  next.say('error', { message: 'Busy Here', code: 486, details: 'user_busy' }, id);
  assert.equal((await call.ended).code, 486);
  phone.close();
});

test('a session that could not be resumed: its calls end, its requests are refused, nothing is sent again', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const talking = await established(phone, socket);
  const calling = phone.call('1004');
  await settle();
  socket.drop();
  const next = reconnected(t);
  const incoming = new Promise((done) => phone.on('call', done));
  await accept({
    session: 'token-2',
    calls: [{ callId: 'c9', direction: 'in', state: 'incoming', from: '1009', to: '5001', sdp: 'offer' }],
  });
  assert.equal((await talking.ended).reason, 'session_expired');
  assert.equal((await calling.ended).reason, 'session_expired');
  assert.equal((await incoming).id, 'c9');
  assert.deepEqual(next.sent.map((message) => message.type), ['register']);
  phone.close();
});

test('in a new session events are counted from the start again', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const seen = [];
  phone.on('message', ({ text }) => seen.push(text));
  socket.say('message', { from: '1', text: 'old' }, 'evt-9');
  socket.drop();
  const next = reconnected(t);
  await accept({ session: 'token-2' });
  next.say('message', { from: '1', text: 'new' }, 'evt-1');
  await settle();
  assert.deepEqual(seen, ['old', 'new']);
  phone.close();
});

test('a resume that is refused for good ends everything; one that may work later is tried again', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const errors = [];
  phone.on('error', (error) => errors.push(error.code));
  const call = await established(phone, socket);
  socket.drop();
  const second = reconnected(t);
  second.open();
  await settle();
  second.say('registrationFailed', { reason: 'registrar is down', code: 503 }, second.find('register').id);
  assert.equal(phone.state, 'reconnecting');
  assert.equal(call.state, 'established');
  const third = reconnected(t);
  assert.notEqual(third, second);
  third.open();
  await settle();
  third.say('registrationFailed', { reason: 'forbidden', code: 403 }, third.find('register').id);
  assert.equal((await call.ended).reason, 'session_expired');
  await settle();
  assert.deepEqual(errors, [403]);
  assert.equal(phone.state, 'closed');
});

test('a server that restarts is come back to', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  socket.say('unregistered', { dn: '5001', reason: 'shutdown' }, 'evt-1');
  assert.equal(phone.state, 'reconnecting');
  reconnected(t);
  await accept({ calls: [{ callId: 'c1', direction: 'out', state: 'established', from: '5001' }] });
  await settle();
  assert.equal(call.state, 'established');
  phone.close();
});

test('close ends the registration and with it the calls, and leaves no timer behind', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  phone.close();
  assert.equal(socket.sent.at(-1).type, 'unregister');
  assert.ok(socket.closed);
  const end = await call.ended;
  assert.deepEqual([end.reason, end.error], ['normal_clearing', undefined]);
  const sockets = FakeSocket.all.length;
  tick(60_000);
  assert.equal(FakeSocket.all.length, sockets);
});

test('no more requests wait than the server remembers outcomes of', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  socket.drop();
  const waiting = Array.from({ length: 16 }, (_, i) => phone.request('message', { to: '1003', text: `${i}` }));
  await assert.rejects(phone.request('message', { to: '1003', text: 'one more' }), { code: 429, retryable: true });
  const next = reconnected(t);
  await accept();
  assert.deepEqual(next.sent.slice(1).map(({ payload }) => payload.text), waiting.map((_, i) => `${i}`));
  for (const { id } of next.sent.slice(1)) next.say('ack', {}, id);
  await Promise.all(waiting);
  phone.close();
});

test('ids are never used again, not even by a page that was loaded anew', async (t) => {
  clock(t);
  t.mock.method(Date, 'now', () => 1000);
  const first = await registered();
  for (let i = 0; i < 3; i++) first.phone.request('ping', {}).catch(() => {});
  const used = first.socket.sent.map(({ id }) => id);
  assert.equal(new Set(used).size, used.length);
  first.phone.close();
  t.mock.method(Date, 'now', () => 2000);
  const second = await registered();
  assert.ok(!used.includes(second.socket.sent[0].id));
  second.phone.close();
});
