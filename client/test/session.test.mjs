import assert from 'node:assert/strict';
import { test } from 'node:test';
import { followNetwork, keepSession } from '../dist/session.js';
import { accept, clock, established, FakePeer, FakeSocket, FakeStorage, fakeWindow, microphone, newPhone, reconnected, registered, settle, snapshot, tick } from './fakes.mjs';

const KEY = 'rtc-json 5001';

/** A page that has a phone with a call, and is then loaded anew: gives the next page's phone, not registered yet. */
async function reloaded(t, options = {}) {
  clock(t);
  const happens = fakeWindow(t);
  const storage = new FakeStorage();
  const phone = newPhone();
  keepSession(phone, storage);
  const promise = phone.register();
  const socket = await accept();
  await promise;
  socket.say('notice', { reason: 'x' }, 'evt-4');
  happens('pagehide');
  const kept = storage.getItem(KEY);
  const next = newPhone({ password: undefined, ...options });
  keepSession(next, storage);
  t.after(() => next.close());
  return { next, storage, kept, happens, old: phone };
}

test('the session is kept while no page is there, and at no other time', async (t) => {
  const { next, storage, kept } = await reloaded(t);
  assert.deepEqual(JSON.parse(kept), { resume: 'token-1', last: 4 });
  assert.equal(storage.items.size, 0, 'taken by the page that came');
  next.register();
  const socket = await accept();
  assert.deepEqual(socket.find('register').payload, { dn: '5001', displayName: 'Alice', resume: 'token-1', last: 4 });
  assert.equal(storage.items.size, 0);
});

test('a page that has signed out keeps nothing', async (t) => {
  const happens = fakeWindow(t);
  const storage = new FakeStorage();
  const phone = newPhone();
  keepSession(phone, storage);
  happens('pagehide');
  phone.register();
  await accept();
  phone.close();
  happens('pagehide');
  assert.equal(storage.items.size, 0);
});

test('a browser that forbids storage: the phone works without', async (t) => {
  Object.defineProperty(globalThis, 'sessionStorage', { get: () => { throw new Error('denied'); }, configurable: true });
  t.after(() => delete globalThis.sessionStorage);
  const phone = newPhone();
  keepSession(phone);
  phone.register();
  await accept();
  assert.equal(phone.state, 'registered');
  phone.close();
});

test('the browser’s sessionStorage is what is used without another', async (t) => {
  Object.defineProperty(globalThis, 'sessionStorage', { value: new FakeStorage(), configurable: true });
  t.after(() => delete globalThis.sessionStorage);
  sessionStorage.setItem(KEY, '{"resume":"kept","last":2}');
  const phone = newPhone({ full: true });
  assert.deepEqual(phone.session, { resume: 'kept', last: 2 });
  sessionStorage.setItem(KEY, '{"resume":"kept","last":2}');
  assert.equal(newPhone({ full: true, storage: null }).session, undefined);
  assert.equal(sessionStorage.items.size, 1);
});

test('a network that is not there yet after a reload is waited for', async (t) => {
  const { next } = await reloaded(t);
  const promise = next.register();
  FakeSocket.last.drop();
  assert.equal(next.state, 'reconnecting');
  reconnected(t);
  await accept();
  assert.equal((await promise).session, 'token-1');
});

test('a call of before is taken up: microphone, a new connection, an offer by `update`', async (t) => {
  const { next } = await reloaded(t);
  const calls = [];
  next.on('call', (call) => calls.push([call, call.state]));
  next.register();
  const socket = await accept({ calls: [snapshot({ callId: 'c1', muted: true, remoteHold: true })] });
  assert.equal(calls.length, 1);
  const [[call, state]] = calls;
  assert.equal(state, 'established');
  assert.deepEqual(
    [call.id, call.direction, call.from, call.to, call.muted, call.held, call.remoteHold],
    ['c1', 'out', '5001', '1003', true, false, true],
  );
  assert.ok(Math.abs(Date.now() - 7000 - call.answeredAt) < 500);
  assert.equal(call.pc.stream.getTracks()[0].enabled, false);
  const { payload, id } = socket.find('update');
  assert.deepEqual(payload, { callId: 'c1', sdp: 'offer 1 ice 0' });
  socket.say('callUpdated', { callId: 'c1', hold: false, remoteHold: true, sdp: 'their answer' }, id);
  await settle();
  assert.deepEqual(call.pc.log, ['local offer 1 ice 0', 'remote answer their answer']);
  call.hangup();
  await settle();
  assert.equal(socket.find('hangup').payload.callId, 'c1');
});

test('an outbound call that rings is taken up, and gets its sound when it is answered', async (t) => {
  const { next } = await reloaded(t);
  next.register();
  const socket = await accept({ calls: [snapshot({ callId: 'c1', state: 'ringing', since: 0, request: '17' })] });
  const [call] = next.calls;
  assert.deepEqual([call.state, call.answeredAt], ['ringing', undefined]);
  assert.equal(socket.count('update'), 0);
  socket.say('callAccepted', { callId: 'c1', sdp: 'answer to the lost offer' }, '17');
  await settle();
  assert.equal(call.state, 'established');
  assert.ok(call.answeredAt);
  assert.equal(socket.find('update').payload.callId, 'c1');
});

test('an inbound call that rings is told as one', async (t) => {
  const { next } = await reloaded(t);
  next.register();
  const socket = await accept({ calls: [snapshot({ callId: 'c1', direction: 'in', state: 'incoming', from: '1003', to: '5001', sdp: 'offer', since: 0 })] });
  const [call] = next.calls;
  assert.deepEqual([call.state, call.from], ['ringing', '1003']);
  const answered = call.answer();
  await settle();
  socket.say('ack', { callId: 'c1' }, socket.find('answer').id);
  await answered;
  assert.equal(next.calls.size, 1);
});

test('a call of before without a microphone is hung up', async (t) => {
  microphone(async () => {
    throw Object.assign(new Error('denied'), { name: 'NotAllowedError' });
  });
  const { next } = await reloaded(t, { audio: true });
  next.register();
  const socket = await accept({ calls: [snapshot({ callId: 'c1' })] });
  assert.deepEqual(socket.find('hangup').payload, { callId: 'c1', reason: 'media_error' });
});

test('a session that is over: nothing is taken up', async (t) => {
  const { next } = await reloaded(t, { password: 'pw5001' });
  next.register();
  const socket = await accept({ session: 'token-2' });
  assert.equal(next.calls.size, 0);
  assert.deepEqual(next.session, { resume: 'token-2', last: 0 });
  assert.deepEqual(socket.sent.map(({ type }) => type), ['register']);
});

test('back on a lost line: what changed meanwhile is made up for, what is known is not taken up again', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  keepSession(phone, new FakeStorage());
  const talking = await established(phone, socket, 'c1');
  const calling = phone.call('1004');
  await settle();
  const { id } = socket.find('call');
  socket.say('callProgress', { callId: 'c2', state: 'trying', request: id }, id);
  await settle();
  const nameless = phone.call('1005');
  await settle();
  const request = socket.find('call').id;
  const peers = FakePeer.all.length;
  socket.drop();
  const next = reconnected(t);
  await accept({
    calls: [
      snapshot({ callId: 'c1', remoteHold: true }),
      snapshot({ callId: 'c2', state: 'ringing', since: 0, request: id }),
      snapshot({ callId: 'c3', state: 'ringing', since: 0, request }),
    ],
  });
  assert.equal(talking.remoteHold, true);
  assert.equal(calling.state, 'ringing');
  assert.deepEqual([nameless.id, nameless.state], ['c3', 'ringing']);
  assert.equal(FakePeer.all.length, peers);
  assert.equal(next.count('update') + next.count('hangup'), 0);
  phone.close();
});

test('a call that is gone ends as the missed event says, or for want of one because the server does not know it', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  keepSession(phone, new FakeStorage());
  const told = await established(phone, socket, 'c1');
  const untold = await established(phone, socket, 'c2');
  const kept = await established(phone, socket, 'c3');
  socket.drop();
  const next = reconnected(t);
  await accept({ calls: [snapshot({ callId: 'c3' })] });
  next.say('callEnded', { callId: 'c1', reason: 'user_busy', duration: 7 }, 'evt-1');
  for (const { id, payload } of next.sent.filter(({ type }) => type === 'hangup')) {
    next.say('error', { message: 'no such call', code: 404, callId: payload.callId }, id);
  }
  await settle();
  assert.deepEqual([(await told.ended).reason, (await untold.ended).reason], ['user_busy', 'normal_clearing']);
  assert.equal(kept.state, 'established');
  phone.close();
});

test('back in a network: connected at once, and every call looks for a path', async (t) => {
  clock(t);
  const happens = fakeWindow(t);
  const { phone, socket } = await registered();
  followNetwork(phone);
  await established(phone, socket);
  happens('online');
  assert.equal(phone.state, 'reconnecting');
  const next = FakeSocket.last;
  assert.notEqual(next, socket);
  await accept({ calls: [snapshot({ callId: 'c1' })] });
  assert.equal(next.find('update').payload.callId, 'c1');
  assert.equal(next.count('update'), 1);
  phone.close();
  const { length } = FakeSocket.all;
  happens('online');
  assert.equal(FakeSocket.all.length, length, 'a phone that is closed stays so');
});

/** A phone that follows the network, in a call whose sound comes. */
async function hearing(t) {
  clock(t);
  fakeWindow(t);
  const { phone, socket } = await registered();
  followNetwork(phone);
  t.after(() => phone.close());
  const call = await established(phone, socket);
  /** Seconds pass, with sound or without. */
  const pass = async (seconds, sound) => {
    for (let i = 0; i < seconds; i++) {
      if (sound) call.pc.packets += 50;
      tick(1000);
      await settle();
    }
  };
  await pass(3, true);
  assert.equal(socket.count('ping'), 0);
  return { phone, socket, call, pass };
}

test('no sound and no answer of the server: a new connection, and another path for the call', async (t) => {
  const { socket, pass, phone } = await hearing(t);
  await pass(1);
  assert.equal(socket.count('ping'), 1);
  await pass(1);
  assert.equal(phone.state, 'registered');
  await pass(1);
  assert.equal(phone.state, 'reconnecting');
  assert.notEqual(FakeSocket.last, socket);
  await accept({ calls: [snapshot({ callId: 'c1' })] });
  assert.equal(FakeSocket.last.find('update').payload.callId, 'c1');
});

test('no sound, but an answer: nothing happens, and the server is asked again some seconds later', async (t) => {
  const { socket, pass, phone } = await hearing(t);
  await pass(1);
  socket.say('pong', {}, socket.find('ping').id);
  await pass(4);
  assert.equal(socket.count('ping'), 1);
  await pass(2);
  assert.equal(socket.count('ping'), 2);
  socket.say('pong', {}, socket.find('ping').id);
  await pass(1, true);
  await pass(8, true);
  assert.equal(socket.count('ping'), 2);
  assert.equal(phone.state, 'registered');
  assert.equal(socket.count('update'), 0);
});

test('on hold no sound is missed', async (t) => {
  const { socket, call, pass } = await hearing(t);
  call.hold();
  await settle();
  socket.say('callUpdated', { callId: 'c1', hold: true, remoteHold: false }, socket.find('hold').id);
  await pass(5);
  assert.equal(socket.count('ping'), 0);
  // but the loss of the path is
  call.pc.iceConnectionState = 'disconnected';
  await pass(1);
  assert.equal(socket.count('ping'), 1);
});

test('the browser has changed the path and hears nothing there: a new offer, once', async (t) => {
  const { socket, call, pass } = await hearing(t);
  socket.say('pong', {}, 'x');
  call.pc.path = 'candidate:2';
  await pass(1);
  assert.equal(socket.count('update'), 1);
  await pass(3);
  assert.equal(socket.count('update'), 1);
  call.pc.path = 'candidate:3';
  await pass(3, true);
  assert.equal(socket.count('update'), 1, 'a change that is heard through');
});

test('a connection that does not come about is given up after some seconds, and tried again', async (t) => {
  const { socket, pass } = await hearing(t);
  socket.drop();
  const next = reconnected(t);
  assert.notEqual(next, socket);
  await pass(7);
  assert.equal(FakeSocket.last, next);
  assert.equal(next.closed, false);
  await pass(2);
  assert.equal(next.closed, true);
  assert.notEqual(reconnected(t), next);
});
