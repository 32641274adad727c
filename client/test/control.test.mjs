import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as control from '../dist/control.js';
import { established, fakeStream, microphone, registered, settle } from './fakes.mjs';

/** For requests whose outcome does not matter: the phone is closed before it comes. */
const ignore = () => {};

async function talking(options) {
  const { phone, socket } = await registered(options);
  const call = await established(phone, socket);
  const [track] = call.pc.stream.getTracks();
  return { phone, socket, call, track };
}
const flags = (fields) => ({ callId: 'c1', hold: false, remoteHold: false, ...fields });

test('hold stops the microphone at once; the outcome is the far side’s consent', async () => {
  const { phone, socket, call, track } = await talking();
  const promise = call.hold();
  assert.deepEqual([call.held, track.enabled], [true, false]);
  await settle();
  const { payload, id } = socket.find('hold');
  assert.deepEqual(payload, { callId: 'c1', hold: true });
  socket.say('callUpdated', flags({ hold: true }), id);
  assert.equal((await promise).hold, true);
  await settle();
  assert.deepEqual([call.held, track.enabled], [true, false]);

  call.hold(false).catch(ignore);
  await settle();
  assert.deepEqual(socket.find('hold').payload, { callId: 'c1', hold: false });
  socket.say('callUpdated', flags(), socket.find('hold').id);
  await settle();
  assert.deepEqual([call.held, track.enabled], [false, true]);
  phone.close();
});

test('hold that is refused: the microphone is as it was', async () => {
  const { phone, socket, call, track } = await talking();
  const promise = call.hold();
  await settle();
  socket.say('error', { message: 'not answered yet', code: 400, callId: 'c1' }, socket.find('hold').id);
  await assert.rejects(promise, { code: 400 });
  assert.deepEqual([call.held, track.enabled, call.state], [false, true, 'established']);
  phone.close();
});

test('mute: the microphone is off until both hold and mute are over', async () => {
  const { phone, socket, call, track } = await talking();
  const promise = call.mute();
  assert.deepEqual([call.muted, track.enabled], [true, false]);
  await settle();
  const { payload, id } = socket.find('mute');
  assert.deepEqual(payload, { callId: 'c1', muted: true });
  socket.say('ack', { callId: 'c1' }, id);
  await promise;

  call.hold().catch(ignore);
  call.mute(false).catch(ignore);
  assert.equal(track.enabled, false);
  call.mute().catch(ignore);
  call.hold(false).catch(ignore);
  assert.equal(track.enabled, false);
  call.mute(false).catch(ignore);
  assert.equal(track.enabled, true);
  phone.close();
});

test('held by the far side, which wants to hear nothing: the microphone is off', async () => {
  const { phone, socket, call, track } = await talking();
  socket.say('callUpdated', flags({ remoteHold: true }), 'evt-1');
  await settle();
  assert.equal(track.enabled, false);
  call.mute(false).catch(ignore);
  assert.equal(track.enabled, false);
  socket.say('callUpdated', flags(), 'evt-2');
  await settle();
  assert.equal(track.enabled, true);
  phone.close();
});

test('the server takes a call off hold: the microphone is on again', async () => {
  const { phone, socket, call, track } = await talking();
  call.hold().catch(ignore);
  await settle();
  socket.say('callUpdated', flags({ hold: true }), socket.find('hold').id);
  await settle();
  socket.say('callUpdated', flags({ remote: { number: '700', displayName: '' } }), 'evt-1');
  await settle();
  assert.deepEqual([call.held, track.enabled, call.remote.number], [false, true, '700']);
  phone.close();
});

test('digits: sent by the server, or played here when it says so', async () => {
  const { phone, socket, call } = await talking();
  const [{ dtmf }] = call.pc.getSenders();
  const first = call.dtmf('12#', 160);
  await settle();
  assert.deepEqual(socket.find('dtmf').payload, { callId: 'c1', digit: '12#', duration: 160 });
  socket.say('ack', { callId: 'c1' }, socket.find('dtmf').id);
  await first;
  assert.deepEqual(dtmf.played, []);

  dtmf.toneBuffer = '45';
  const second = call.dtmf('6');
  await settle();
  assert.deepEqual(socket.find('dtmf').payload, { callId: 'c1', digit: '6' });
  socket.say('ack', { callId: 'c1', mode: 'rfc4733' }, socket.find('dtmf').id);
  await second;
  assert.deepEqual(dtmf.played, [['456', undefined]], 'what was not played yet goes first');
  phone.close();
});

test('transfer: to a number, to another call; progress is an event of the call', async () => {
  const { phone, socket, call } = await talking();
  const other = await established(phone, socket, 'c2');
  const seen = [];
  call.on('transferProgress', ({ state, code }) => seen.push(state, code));
  const blind = control.transfer(call, '1009');
  await settle();
  assert.deepEqual(socket.find('transfer').payload, { callId: 'c1', to: '1009' });
  socket.say('ack', { callId: 'c1' }, socket.find('transfer').id);
  await blind;
  socket.say('transferProgress', { callId: 'c1', state: 'failed', code: 486 }, 'evt-1');
  await settle();
  assert.deepEqual(seen, ['failed', 486]);
  assert.equal(call.state, 'established');

  control.transfer(call, other).catch(ignore);
  await settle();
  assert.deepEqual(socket.find('transfer').payload, { callId: 'c1', withCallId: 'c2' });
  phone.close();
});

test('recording, conference, text', async () => {
  const { phone, socket, call } = await talking();
  const other = await established(phone, socket, 'c2');
  const recorded = control.recording(call, 'start');
  await settle();
  assert.deepEqual(socket.find('recording').payload, { callId: 'c1', action: 'start' });
  const seen = [];
  call.on('recordingUpdated', ({ state }) => seen.push(state));
  socket.say('recordingUpdated', { callId: 'c1', state: 'recording' }, socket.find('recording').id);
  assert.equal((await recorded).state, 'recording');
  await settle();
  assert.deepEqual(seen, ['recording']);

  const joined = control.conference(phone, [call, other], '700');
  assert.deepEqual(socket.find('conference').payload, { callIds: ['c1', 'c2'], room: '700' });
  socket.say('ack', {}, socket.find('conference').id);
  await joined;
  control.conference(phone, new Set([call, other])).catch(ignore);
  assert.deepEqual(socket.find('conference').payload, { callIds: ['c1', 'c2'] });

  const sent = control.message(phone, '1003', 'hello');
  assert.deepEqual(socket.find('message').payload, { to: '1003', text: 'hello' });
  socket.say('error', { message: 'Not Found', code: 404 }, socket.find('message').id);
  await assert.rejects(sent, { code: 404 });
  phone.close();
});

test('the full phone has all of this as methods', async () => {
  const { phone, socket } = await registered({ full: true, storage: null });
  const call = await established(phone, socket);
  call.transfer('1009').catch(ignore);
  call.recording('stop').catch(ignore);
  phone.conference([call], '700').catch(ignore);
  phone.message('1003', 'hello').catch(ignore);
  await settle();
  assert.deepEqual(
    ['transfer', 'recording', 'conference', 'message'].map((type) => socket.find(type).payload),
    [{ callId: 'c1', to: '1009' }, { callId: 'c1', action: 'stop' }, { callIds: ['c1'], room: '700' }, { to: '1003', text: 'hello' }],
  );
  const next = fakeStream();
  await call.replaceMicrophone(next);
  assert.equal(call.pc.getSenders()[0].track, next.clones[0].track);
  phone.close();
});

test('another microphone: its sound takes the place of the old one, nothing is sent', async () => {
  const old = fakeStream();
  const next = fakeStream();
  const asked = [];
  microphone(async (constraints) => (asked.push(constraints), asked.length === 1 ? old : next));
  const { phone, socket, call } = await talking({ audio: { echoCancellation: false } });
  call.mute().catch(ignore);
  await settle();
  const sent = socket.sent.length;
  await control.replaceMicrophone(call, { deviceId: 'headset' });
  assert.deepEqual(asked, [{ audio: { echoCancellation: false } }, { audio: { deviceId: 'headset' } }]);
  const [sender] = call.pc.getSenders();
  assert.deepEqual(sender.replaced, [next.track]);
  assert.equal(old.track.stopped, true);
  assert.equal(next.track.enabled, false, 'still muted');
  call.mute(false).catch(ignore);
  assert.equal(next.track.enabled, true);
  await settle();
  assert.equal(socket.sent.slice(sent).every(({ type }) => type === 'mute'), true);
  call.hangup();
  assert.equal(next.track.stopped, true);
  phone.close();
});

test('another microphone that cannot be had leaves the old one', async () => {
  const old = fakeStream();
  let count = 0;
  microphone(async () => {
    if (count++) throw new Error('unplugged');
    return old;
  });
  const { phone, call } = await talking({ audio: true });
  await assert.rejects(control.replaceMicrophone(call), { message: 'unplugged' });
  assert.equal(old.track.stopped, false);
  assert.deepEqual(call.pc.getSenders()[0].replaced, []);
  phone.close();
});

test('hung up while the other microphone is asked for: nothing keeps it', async () => {
  const next = fakeStream();
  let grant;
  let count = 0;
  microphone(() => (count++ ? new Promise((done) => (grant = done)) : fakeStream()));
  const { phone, call } = await talking({ audio: true });
  const promise = control.replaceMicrophone(call);
  call.hangup();
  grant(next);
  await promise;
  assert.equal(next.track.stopped, true);
  phone.close();
});

test('a microphone that is unplugged: the call goes on with the browser’s next one', async () => {
  const streams = [fakeStream(), fakeStream(), fakeStream()];
  let count = 0;
  microphone(async () => streams[count++]);
  const { phone, socket } = await registered({ audio: true });
  control.followMicrophone(phone);
  const call = await established(phone, socket);
  for (const i of [0, 1]) {
    streams[i].track.onended();
    await settle();
    assert.equal(call.pc.getSenders()[0].track, streams[i + 1].track);
  }
  phone.close();
});
