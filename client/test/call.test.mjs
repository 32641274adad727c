import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clock, codecs, established, FakePeer, fakeStream, microphone, newPhone, registered, settle } from './fakes.mjs';

test('the offer leaves before any candidate is gathered, and the call goes through its states', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('1003', { displayName: 'Bob', headers: { 'X-Queue': '7' } });
  const log = [];
  call.on('state', (state) => log.push(state));
  call.on('stream', (stream) => log.push(stream));
  call.on('ended', ({ reason, duration }) => log.push(`${reason} ${duration}`));
  assert.deepEqual([call.direction, call.from, call.to, call.state, call.id], ['out', '5001', '1003', 'new', undefined]);
  await settle();

  assert.equal(call.pc, FakePeer.last);
  assert.equal(call.pc.iceGatheringState, 'gathering');
  const request = socket.find('call');
  assert.deepEqual(request.payload, {
    displayName: 'Bob',
    headers: { 'X-Queue': '7' },
    to: '1003',
    sdp: 'offer 1 ice 0',
  });

  socket.say('callProgress', { callId: 'c1', state: 'trying', request: request.id }, request.id);
  await settle();
  assert.equal(call.id, 'c1');
  socket.say('callProgress', { callId: 'c1', state: 'ringing' }, 'evt-1');
  socket.say('callProgress', { callId: 'c1', state: 'ringing' }, 'evt-2');
  socket.say('callAccepted', { callId: 'c1', sdp: 'answer of 1003' }, request.id);
  await settle();
  assert.deepEqual(call.pc.remoteDescription, { type: 'answer', sdp: 'answer of 1003' });
  assert.ok(Date.now() - call.answeredAt < 1000);

  const { track } = fakeStream();
  call.pc.ontrack({ streams: [], track });
  const stream = call.remoteStream;
  assert.deepEqual(stream.tracks, [track]);
  socket.say('callEnded', { callId: 'c1', reason: 'normal_clearing', duration: 12, cause: 16 }, 'evt-3');
  const end = await call.ended;
  assert.equal(end.cause, 16);
  assert.deepEqual(log, ['trying', 'ringing', 'established', stream, 'ended', 'normal_clearing 12']);
  assert.equal(call.pc.signalingState, 'closed');
  assert.equal(phone.calls.size, 0);
  phone.close();
});

test('early media is an answer already; the one that follows gets an offer of its own', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('603');
  await settle();
  const { id } = socket.find('call');
  socket.say('callProgress', { callId: 'c1', state: 'early', sdp: 'early', request: id }, 'evt-1');
  socket.say('callAccepted', { callId: 'c1', sdp: 'final' }, id);
  await settle();
  assert.deepEqual(call.pc.log, ['local offer 1 ice 0', 'remote answer early', 'local offer 2 ice 0', 'remote answer final']);
  assert.equal(call.state, 'established');
  phone.close();
});

test('messages of one call take effect in order, however long a description takes', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('1003');
  await settle();
  const { id } = socket.find('call');
  let open;
  call.pc.remoteGate = new Promise((done) => (open = done));
  const log = [];
  call.on('state', (state) => log.push(state));
  call.on('recordingUpdated', ({ state }) => log.push(state));
  call.on('ended', () => log.push('event ended'));
  socket.say('callProgress', { callId: 'c1', state: 'trying', request: id }, id);
  socket.say('callAccepted', { callId: 'c1', sdp: 'a' }, id);
  await settle();
  socket.say('recordingUpdated', { callId: 'c1', state: 'recording' }, 'evt-1');
  socket.say('callEnded', { callId: 'c1', reason: 'normal_clearing', duration: 0 }, 'evt-2');
  await settle();
  assert.deepEqual(log, []);
  open();
  await settle();
  assert.deepEqual(log, ['established', 'recording', 'ended', 'event ended']);
  phone.close();
});

test('a call that fails: the error of the request, then the end of the call with its reason', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('486');
  await settle();
  const { id } = socket.find('call');
  socket.say('callProgress', { callId: 'c1', state: 'trying', request: id }, id);
  socket.say('error', { message: 'Busy Here', code: 486, details: 'user_busy', callId: 'c1' }, id);
  await settle();
  socket.say('callEnded', { callId: 'c1', reason: 'user_busy', duration: 0, code: 486, cause: 17 }, 'evt-1');
  const end = await call.ended;
  assert.deepEqual([end.reason, end.code, end.cause, end.error.message], ['user_busy', 486, 17, 'Busy Here']);
  assert.equal(call.state, 'ended');
  assert.equal(socket.count('hangup'), 0);
  phone.close();
});

test('a call that is refused before it has a name ends with the code of the refusal', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('00123');
  await settle();
  socket.say('error', { message: 'International calls are barred', code: 403, details: '' }, socket.find('call').id);
  const end = await call.ended;
  assert.deepEqual([end.callId, end.reason, end.code], [undefined, 'call_rejected', 403]);
  assert.equal(end.error.message, 'International calls are barred');
  phone.close();
});

test('hang up: the media stops at once, the end comes from the server', async () => {
  const asked = [];
  const stream = fakeStream();
  microphone(async (constraints) => (asked.push(constraints), stream));
  const { phone, socket } = await registered({ audio: { echoCancellation: false } });
  const call = await established(phone, socket);
  assert.deepEqual(asked, [{ audio: { echoCancellation: false } }]);
  assert.equal(call.state, 'established');
  call.hangup('user_hangup');
  assert.equal(call.state, 'ending');
  assert.ok(stream.track.stopped);
  await settle();
  const { payload, id } = socket.find('hangup');
  assert.deepEqual(payload, { callId: 'c1', reason: 'user_hangup' });
  call.hangup();
  await settle();
  assert.equal(socket.count('hangup'), 1);
  socket.say('callEnded', { callId: 'c1', reason: 'normal_clearing', duration: 3 }, id);
  assert.equal((await call.ended).duration, 3);
  phone.close();
});

test('hang up while the browser is busy with a description that it will never finish', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('1003');
  await settle();
  const request = socket.find('call').id;
  // as browsers do once the connection is closed
  call.pc.remoteGate = new Promise(() => {});
  socket.say('callProgress', { callId: 'c1', state: 'trying', request }, request);
  socket.say('callAccepted', { callId: 'c1', sdp: 'a' }, request);
  await settle();
  call.hangup();
  await settle();
  socket.say('callEnded', { callId: 'c1', reason: 'normal_clearing', duration: 0 }, socket.find('hangup').id);
  await settle();
  assert.equal(call.state, 'ended');
  phone.close();
});

test('what the server said before it knew of the hang-up has no effect any more', async () => {
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  const log = [];
  for (const name of ['state', 'callUpdated']) call.on(name, () => log.push(name));
  call.hangup();
  socket.say('callUpdated', { callId: 'c1', sdp: 'offer 2', answerNeeded: true }, 'evt-1');
  await settle();
  assert.deepEqual(log, ['state']);
  assert.equal(call.state, 'ending');
  assert.equal(socket.count('answer'), 0);
  phone.close();
});

test('hang up before the server has named the call: sent as soon as it has', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('604');
  await settle();
  call.hangup();
  await settle();
  assert.equal(socket.count('hangup'), 0);
  const request = socket.find('call').id;
  socket.say('callProgress', { callId: 'c1', state: 'trying', request }, request);
  await settle();
  const { payload, id } = socket.find('hangup');
  assert.equal(payload.callId, 'c1');
  socket.say('error', { message: 'Request Terminated', code: 487 }, request);
  socket.say('callEnded', { callId: 'c1', reason: 'cancelled', duration: 0, code: 487 }, id);
  assert.equal((await call.ended).reason, 'cancelled');
  phone.close();
});

test('hang up while the microphone is asked for: nothing is sent, the microphone is released', async () => {
  let grant;
  const stream = fakeStream();
  microphone(() => new Promise((done) => (grant = done)));
  const { phone, socket } = await registered({ audio: undefined });
  const call = phone.call('1003');
  await settle();
  assert.equal((await call.hangup()).reason, 'cancelled');
  grant(stream);
  await settle();
  assert.ok(stream.track.stopped);
  assert.equal(socket.count('call'), 0);
  phone.close();
});

test('without a microphone an outbound call ends with media_error and the browser’s own error', async () => {
  const fault = Object.assign(new Error('x'), { name: 'NotAllowedError' });
  microphone(() => Promise.reject(fault));
  const { phone, socket } = await registered({ audio: true });
  const end = await phone.call('1003').ended;
  assert.equal(end.reason, 'media_error');
  assert.equal(end.error.details, 'NotAllowedError');
  assert.equal(end.error.cause, fault);
  assert.equal(socket.count('call'), 0);
  phone.close();
});

test('settings that the browser makes no connection of: told at once, the microphone is released', async (t) => {
  const stream = fakeStream();
  microphone(async () => stream);
  const { phone, socket } = await registered({ audio: undefined });
  t.mock.method(globalThis, 'RTCPeerConnection', function refuse() { throw new TypeError('bad settings'); });
  assert.throws(() => phone.call('1003'), /bad settings/);
  await settle();
  assert.ok(stream.track.stopped);
  assert.equal(phone.calls.size, 0);
  assert.equal(socket.count('call'), 0);
  phone.close();
});

test('the microphone is asked for before anything else of a call is made, and the request leaves before the browser has its description in place', async () => {
  const order = [];
  microphone(async () => (order.push(`microphone, ${FakePeer.all.length - before} connections`), fakeStream()));
  const { phone, socket } = await registered({ audio: undefined });
  const before = FakePeer.all.length;
  const call = phone.call('1003');
  assert.deepEqual(order, ['microphone, 0 connections']);
  call.pc.setLocalDescription = () => new Promise(() => {});
  await settle();
  assert.equal(socket.find('call').payload.sdp, 'offer 1 ice 0');
  phone.close();
});

test('an answer that the browser cannot take hangs up and ends the call', async () => {
  const { phone, socket } = await registered();
  const call = phone.call('1003');
  await settle();
  const request = socket.find('call').id;
  socket.say('callProgress', { callId: 'c1', state: 'trying', request }, request);
  socket.say('callAccepted', { callId: 'c1', sdp: 'bad' }, request);
  await settle();
  const { payload, id } = socket.find('hangup');
  assert.deepEqual(payload, { callId: 'c1', reason: 'media_error' });
  socket.say('callEnded', { callId: 'c1', reason: 'media_error', duration: 0 }, id);
  const end = await call.ended;
  assert.match(end.error.message, /cannot parse/);
  phone.close();
});

test('an inbound call: event, answer at once, established after the ack', async () => {
  const { phone, socket } = await registered();
  const calls = [];
  phone.on('call', (call) => calls.push(call));
  const invitation = { callId: 'c7', from: '1003', displayName: 'Carol', sdp: 'offer of 1003', headers: { 'X-A': 'b' } };
  socket.say('incomingCall', invitation, 'evt-1');
  socket.say('incomingCall', invitation, 'evt-1');
  await settle();
  assert.equal(calls.length, 1);
  const [call] = calls;
  assert.deepEqual(
    [call.id, call.direction, call.state, call.from, call.to, call.displayName, call.headers],
    ['c7', 'in', 'ringing', '1003', '5001', 'Carol', { 'X-A': 'b' }],
  );
  const promise = call.answer();
  assert.equal(call.answer(), promise);
  await settle();
  assert.deepEqual(call.pc.log, ['remote offer offer of 1003', 'local answer 1 ice 0']);
  const { payload, id } = socket.find('answer');
  assert.deepEqual(payload, { callId: 'c7', sdp: 'answer 1 ice 0' });
  assert.equal(call.state, 'trying');
  socket.say('ack', { callId: 'c7' }, id);
  await promise;
  assert.equal(call.state, 'established');
  phone.close();
});

test('an inbound call without an offer: the answer carries ours', async () => {
  const { phone, socket } = await registered();
  const incoming = new Promise((done) => phone.on('call', done));
  socket.say('incomingCall', { callId: 'c8', from: '1003' }, 'evt-1');
  const call = await incoming;
  const promise = call.answer();
  await settle();
  const { payload, id } = socket.find('answer');
  assert.equal(payload.sdp, 'offer 1 ice 0');
  socket.say('ack', { callId: 'c8' }, id);
  await promise;
  socket.say('callAccepted', { callId: 'c8', sdp: 'answer in the ACK' }, 'evt-2');
  await settle();
  assert.deepEqual(call.pc.log, ['local offer 1 ice 0', 'remote answer answer in the ACK']);
  phone.close();
});

test('decline, and a caller who gives up', async () => {
  const { phone, socket } = await registered();
  const calls = [];
  phone.on('call', (call) => calls.push(call));
  socket.say('incomingCall', { callId: 'c1', from: '1', sdp: 'o' }, 'evt-1');
  socket.say('incomingCall', { callId: 'c2', from: '2', sdp: 'o' }, 'evt-2');
  await settle();
  const [first, second] = calls;
  const declined = first.hangup('declined');
  await settle();
  const { payload, id } = socket.find('hangup');
  assert.deepEqual(payload, { callId: 'c1', reason: 'declined' });
  socket.say('callEnded', { callId: 'c1', reason: 'call_rejected', duration: 0 }, id);
  assert.equal((await declined).reason, 'call_rejected');
  socket.say('callEnded', { callId: 'c2', reason: 'answered_elsewhere', duration: 0 }, 'evt-3');
  assert.equal((await second.ended).reason, 'answered_elsewhere');
  await assert.rejects(second.answer(), { name: 'RtcJsonError' });
  assert.equal(socket.count('answer'), 0);
  phone.close();
});

test('without a microphone an inbound call goes on ringing and can be answered later', async () => {
  let fail = true;
  const getUserMedia = async () => {
    if (fail) throw new Error('unplugged');
    return fakeStream();
  };
  microphone(getUserMedia);
  const { phone, socket } = await registered({ audio: true });
  const incoming = new Promise((done) => phone.on('call', done));
  socket.say('incomingCall', { callId: 'c1', from: '1003', sdp: 'o' }, 'evt-1');
  const call = await incoming;
  await assert.rejects(call.answer(), { name: 'RtcJsonError', code: 0, message: 'unplugged' });
  assert.equal(call.state, 'ringing');
  fail = false;
  const promise = call.answer();
  await settle();
  socket.say('ack', { callId: 'c1' }, socket.find('answer').id);
  await promise;
  assert.equal(call.state, 'established');
  phone.close();
});

test('an answer that comes too late rejects and ends the call', async () => {
  const { phone, socket } = await registered();
  const incoming = new Promise((done) => phone.on('call', done));
  socket.say('incomingCall', { callId: 'c1', from: '1003', sdp: 'o' }, 'evt-1');
  const call = await incoming;
  const promise = call.answer();
  await settle();
  socket.say('error', { message: 'no such call', code: 404 }, socket.find('answer').id);
  await assert.rejects(promise, { code: 404 });
  await settle();
  socket.say('error', { message: 'no such call', code: 404 }, socket.find('hangup').id);
  assert.equal((await call.ended).code, 404);
  phone.close();
});

test('servers for ICE: those of the registration, or of the page', async () => {
  const iceServers = [{ urls: ['turn:b'], username: 'u', credential: 'c' }];
  const { phone } = await registered({}, { iceServers });
  assert.deepEqual(phone.call('1003').pc.config.iceServers, iceServers);
  phone.close();
  const rtc = { iceServers: [{ urls: 'stun:a' }], iceTransportPolicy: 'relay' };
  const other = await registered({ rtc }, { iceServers });
  const { config } = other.phone.call('1003').pc;
  assert.deepEqual([config.iceServers, config.iceTransportPolicy], [rtc.iceServers, 'relay']);
  other.phone.close();
});

test('codecs: PCMU and telephone-event are offered, or what the page wants; a browser without a choice offers all', async (t) => {
  const { phone } = await registered();
  const call = phone.call('1003');
  await settle();
  assert.deepEqual(call.pc.codecs.map(({ mimeType }) => mimeType), ['audio/PCMU', 'audio/telephone-event']);
  phone.close();

  const wide = await registered({ codecs: /opus/ });
  const other = wide.phone.call('1003');
  await settle();
  assert.deepEqual(other.pc.codecs, [codecs[0]]);
  wide.phone.close();

  t.mock.method(FakePeer.prototype, 'getTransceivers', () => [{}]);
  const old = await registered();
  old.phone.call('1003');
  await settle();
  assert.equal(old.socket.count('call'), 1);
  old.phone.close();
});

test('a sound that is there already is cloned for each call, and left open', async () => {
  const audio = fakeStream();
  const { phone, socket } = await registered({ audio });
  const call = await established(phone, socket);
  phone.call('1004');
  await settle();
  assert.equal(audio.clones.length, 2);
  assert.equal(call.pc.stream, audio.clones[0]);
  call.hangup();
  assert.deepEqual([audio, ...audio.clones].map(({ track }) => track.stopped), [false, true, false]);
  phone.close();
});

test('a signal that aborts takes back a call that nobody has answered, and leaves one that was answered', async () => {
  const { phone, socket } = await registered();
  const controller = new AbortController();
  const call = phone.call('1003', { signal: controller.signal });
  await settle();
  const { id, payload } = socket.find('call');
  assert.deepEqual(Object.keys(payload), ['to', 'sdp']);
  socket.say('callProgress', { callId: 'c1', state: 'ringing', request: id }, id);
  await settle();
  controller.abort();
  await settle();
  assert.equal(socket.find('hangup').payload.callId, 'c1');
  socket.say('callEnded', { callId: 'c1', reason: 'cancelled', duration: 0 }, socket.find('hangup').id);
  const end = await call.ended;
  assert.deepEqual([end.reason, end.error.details], ['cancelled', 'AbortError']);

  const late = new AbortController();
  const answered = phone.call('1003', { signal: late.signal });
  await settle();
  const second = socket.find('call').id;
  socket.say('callAccepted', { callId: 'c2', sdp: 'a' }, second);
  await settle();
  late.abort();
  await settle();
  assert.equal(answered.state, 'established');
  phone.close();
});

test('a signal that has aborted before: nothing is sent', async () => {
  const { phone, socket } = await registered();
  const end = await phone.call('1003', { signal: AbortSignal.abort() }).ended;
  assert.equal(end.error.details, 'AbortError');
  assert.equal(socket.count('call'), 0);
  phone.close();
});

test('a signal on an answer refuses the call', async () => {
  const { phone, socket } = await registered();
  const incoming = new Promise((done) => phone.on('call', done));
  socket.say('incomingCall', { callId: 'c1', from: '1003', displayName: '', sdp: 'o' }, 'evt-1');
  const call = await incoming;
  const controller = new AbortController();
  const promise = call.answer({ signal: controller.signal });
  await settle();
  controller.abort();
  await assert.rejects(promise, { name: 'RtcJsonError', details: 'AbortError' });
  await settle();
  assert.equal(socket.count('hangup'), 1);
  assert.equal(call.state, 'ending');
  phone.close();
});

test('a call without a registration ends with 401', async () => {
  const phone = newPhone();
  const end = await phone.call('1003').ended;
  assert.equal(end.code, 401);
});

test('a handler that throws stops nothing and is reported', async () => {
  const { phone, socket } = await registered();
  const reported = new Promise((done) => process.setUncaughtExceptionCaptureCallback(done));
  const call = phone.call('1003');
  call.on('state', (state) => {
    if (state === 'trying') throw new Error('fault of the page');
  });
  await settle();
  const { id } = socket.find('call');
  socket.say('callProgress', { callId: 'c1', state: 'trying', request: id }, id);
  socket.say('callAccepted', { callId: 'c1', sdp: 'a' }, id);
  assert.equal((await reported).message, 'fault of the page');
  process.setUncaughtExceptionCaptureCallback(null);
  await settle();
  assert.equal(call.state, 'established');
  phone.close();
});
