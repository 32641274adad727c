import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accept, established, FakePeer, FakeSocket, reconnected, registered, settle } from './fakes.mjs';

test('a lost socket: the session is resumed with its token, the last event and the password', async () => {
  const { phone, socket } = await registered();
  const states = [];
  phone.on('state', (state) => states.push(state));
  socket.say('notice', { reason: 'x' }, 'evt-4');
  socket.drop();
  await settle();
  assert.equal(phone.state, 'reconnecting');
  const next = await reconnected();
  const first = socket.find('register');
  accept();
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

test('waits grow up to the longest one, and differ', async (t) => {
  const waits = [];
  const { phone, socket } = await registered({ backoff: [100, 350] });
  t.mock.method(globalThis, 'setTimeout', (job, wait) => {
    waits.push(wait);
    return queueMicrotask(job);
  });
  socket.drop();
  for (let i = 0; i < 4; i++) {
    await settle();
    FakeSocket.last.drop();
  }
  await settle();
  phone.close();
  assert.equal(waits.length, 5);
  [100, 200, 350, 350, 350].forEach((full, i) => {
    assert.ok(waits[i] >= full / 2 && waits[i] <= full, `wait ${i}: ${waits[i]}`);
  });
});

test('register tries at once while the phone waits', async () => {
  const { phone, socket } = await registered({ backoff: [60000, 60000] });
  socket.drop();
  const promise = phone.register();
  assert.notEqual(FakeSocket.last, socket);
  accept();
  await promise;
  assert.equal(phone.state, 'registered');
  phone.close();
});

test('a call and its connection survive; a request without an outcome is sent again under the same id', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('1003');
  await settle();
  const request = socket.find('call');
  const peers = FakePeer.all.length;
  socket.drop();
  const next = await reconnected();
  accept();
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

test('a request made while the socket is away is sent after the resume', async () => {
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  socket.drop();
  call.hangup();
  const next = await reconnected();
  accept({ calls: [{ callId: 'c1', direction: 'out', state: 'established', from: '5001', to: '1003' }] });
  const { payload, id } = next.find('hangup');
  assert.equal(payload.callId, 'c1');
  next.say('callEnded', { callId: 'c1', reason: 'normal_clearing', duration: 1 }, id);
  assert.equal((await call.ended).duration, 1);
  phone.close();
});

test('what has an outcome is not sent again, and events told twice act once', async () => {
  const { phone, socket } = await registered();
  const seen = [];
  phone.on('message', ({ text }) => seen.push(text));
  await established(phone, socket);
  socket.say('message', { from: '1', text: 'one' }, 'evt-1');
  socket.drop();
  const next = await reconnected();
  accept({ calls: [{ callId: 'c1', direction: 'out', state: 'established', from: '5001', sdp: 'a' }] });
  next.say('message', { from: '1', text: 'one' }, 'evt-1');
  next.say('message', { from: '1', text: 'two' }, 'evt-2');
  await settle();
  assert.deepEqual(next.sent.map(({ type }) => type), ['register']);
  assert.deepEqual(seen, ['one', 'two']);
  phone.close();
});

test('an answer that was missed is taken from the snapshot, one that is there already is not applied again', async () => {
  const { phone, socket } = await registered();
  const waiting = phone.call('1003');
  await settle();
  const request = socket.find('call').id;
  socket.say('callProgress', { callId: 'c1', state: 'ringing', request }, request);
  const talking = phone.call('1004');
  await settle();
  const other = socket.find('call').id;
  socket.say('callAccepted', { callId: 'c2', sdp: 'a2' }, other);
  await settle();
  socket.drop();
  const next = await reconnected();
  accept({
    calls: [
      { callId: 'c1', direction: 'out', state: 'established', from: '5001', to: '1003', sdp: 'a1' },
      { callId: 'c2', direction: 'out', state: 'established', from: '5001', to: '1004', sdp: 'a2' },
    ],
  });
  next.say('callAccepted', { callId: 'c1', sdp: 'a1' }, request);
  await settle();
  assert.equal(waiting.state, 'established');
  assert.deepEqual(waiting.pc.log, ['local offer', 'remote answer a1']);
  assert.deepEqual(talking.pc.log, ['local offer', 'remote answer a2']);
  phone.close();
});

test('the snapshot names a call whose name was missed', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('1003');
  await settle();
  const request = socket.find('call').id;
  socket.drop();
  await reconnected();
  accept({ calls: [{ callId: 'c5', direction: 'out', state: 'ringing', from: '5001', to: '1003', request }] });
  await settle();
  assert.deepEqual([call.id, call.state], ['c5', 'ringing']);
  phone.close();
});

test('an inbound call that rings now appears, once; one of another browser does not', async () => {
  const { phone, socket } = await registered();
  const incoming = new Promise((done) => phone.on('call', done));
  socket.drop();
  const next = await reconnected();
  accept({
    calls: [
      { callId: 'c6', direction: 'in', state: 'incoming', from: '1009', to: '5001', displayName: 'Dora', sdp: 'offer' },
      { callId: 'c7', direction: 'in', state: 'established', from: '1010', to: '5001' },
    ],
  });
  const ringing = await incoming;
  assert.deepEqual([ringing.id, ringing.state, ringing.displayName], ['c6', 'ringing', 'Dora']);
  next.say('incomingCall', { callId: 'c6', from: '1009', sdp: 'offer' }, 'evt-1');
  assert.equal(phone.calls.size, 1);
  assert.equal(next.count('ping'), 0);
  next.drop();
  await reconnected();
  accept({ calls: [{ callId: 'c6', direction: 'in', state: 'incoming', from: '1009', to: '5001', sdp: 'offer' }] });
  await settle();
  assert.deepEqual([...phone.calls], [ringing]);
  assert.equal(ringing.state, 'ringing');
  phone.close();
});

test('a call that is gone ends as the missed event says, or for want of one by the loss of the network', async () => {
  const { phone, socket } = await registered();
  const told = await established(phone, socket, 'c1');
  const untold = await established(phone, socket, 'c2');
  const kept = await established(phone, socket, 'c3');
  socket.drop();
  const next = await reconnected();
  accept({ calls: [{ callId: 'c3', direction: 'out', state: 'established', from: '5001', to: '1003', sdp: 'a' }] });
  next.say('callEnded', { callId: 'c1', reason: 'normal_clearing', duration: 7 }, 'evt-1');
  await settle();
  assert.deepEqual([told.state, untold.state, kept.state], ['ended', 'established', 'established']);
  next.say('pong', {}, next.find('ping').id);
  assert.deepEqual([(await told.ended).reason, (await untold.ended).reason], ['normal_clearing', 'network_error']);
  assert.equal(untold.pc.signalingState, 'closed');
  assert.equal(kept.state, 'established');
  assert.notEqual(kept.pc.signalingState, 'closed');
  phone.close();
});

test('a `call` that failed meanwhile gets its outcome from the retry', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('486');
  await settle();
  const { id } = socket.find('call');
  socket.say('callProgress', { callId: 'c1', state: 'ringing', request: id }, id);
  await settle();
  socket.drop();
  const next = await reconnected();
  accept();
  assert.deepEqual(next.sent.map((message) => message.type), ['register', 'call', 'ping']);
  next.say('callEnded', { callId: 'c1', reason: 'user_busy', duration: 0, code: 486 }, 'evt-1');
  next.say('error', { message: 'Busy Here', code: 486, details: 'user_busy' }, id);
  assert.equal((await call.ended).code, 486);
  phone.close();
});

test('a session that could not be resumed: its calls end, its requests are refused, nothing is sent again', async () => {
  const { phone, socket } = await registered();
  const talking = await established(phone, socket);
  const calling = phone.call('1004');
  await settle();
  socket.drop();
  const next = await reconnected();
  const incoming = new Promise((done) => phone.on('call', done));
  accept({
    session: 'token-2',
    calls: [{ callId: 'c9', direction: 'in', state: 'incoming', from: '1009', to: '5001', sdp: 'offer' }],
  });
  assert.equal((await talking.ended).reason, 'session_expired');
  assert.equal((await calling.ended).reason, 'session_expired');
  assert.equal((await incoming).id, 'c9');
  assert.deepEqual(next.sent.map((message) => message.type), ['register']);
  phone.close();
});

test('in a new session events are counted from the start again', async () => {
  const { phone, socket } = await registered();
  const seen = [];
  phone.on('message', ({ text }) => seen.push(text));
  socket.say('message', { from: '1', text: 'old' }, 'evt-9');
  socket.drop();
  const next = await reconnected();
  accept({ session: 'token-2' });
  next.say('message', { from: '1', text: 'new' }, 'evt-1');
  await settle();
  assert.deepEqual(seen, ['old', 'new']);
  phone.close();
});

test('a resume that is refused for good ends everything; one that may work later is tried again', async () => {
  const { phone, socket } = await registered();
  const errors = [];
  phone.on('error', (error) => errors.push(error.code));
  const call = await established(phone, socket);
  socket.drop();
  const second = await reconnected();
  second.open();
  second.say('registrationFailed', { reason: 'registrar is down', code: 503 }, second.find('register').id);
  assert.equal(phone.state, 'reconnecting');
  assert.equal(call.state, 'established');
  const third = await reconnected();
  assert.notEqual(third, second);
  third.open();
  third.say('registrationFailed', { reason: 'forbidden', code: 403 }, third.find('register').id);
  assert.equal((await call.ended).reason, 'session_expired');
  await settle();
  assert.deepEqual(errors, [403]);
  assert.equal(phone.state, 'closed');
});

test('a server that restarts is come back to', async () => {
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  socket.say('unregistered', { dn: '5001', reason: 'shutdown' }, 'evt-1');
  assert.equal(phone.state, 'reconnecting');
  await reconnected();
  accept({ calls: [{ callId: 'c1', direction: 'out', state: 'established', from: '5001' }] });
  await settle();
  assert.equal(call.state, 'established');
  phone.close();
});

test('close ends the registration and with it the calls, and leaves no timer behind', async () => {
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  phone.close();
  assert.equal(socket.sent.at(-1).type, 'unregister');
  assert.ok(socket.closed);
  const end = await call.ended;
  assert.deepEqual([end.reason, end.error], ['normal_clearing', undefined]);
  const sockets = FakeSocket.all.length;
  await new Promise((done) => setTimeout(done, 20));
  assert.equal(FakeSocket.all.length, sockets);
});
