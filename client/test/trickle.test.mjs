import assert from 'node:assert/strict';
import { test } from 'node:test';
import { trickle } from '../dist/trickle.js';
import { registered, settle } from './fakes.mjs';

const placeholder = 'a=candidate:1 1 udp 1 0.0.0.0 9 typ host\r\n';
const address = 'a=candidate:2 1 udp 2113937151 192.0.2.1 50000 typ host\r\n';
const sent = (socket) => socket.sent.filter(({ type }) => type === 'iceCandidate').map(({ payload }) => payload);

test('candidates go to a far side that shows no address of its own, or to all on wish', async (t) => {
  for (const [sdp, always, count] of [
    [placeholder, undefined, 2],
    [placeholder + address, undefined, 0],
    [address, undefined, 0],
    [address, true, 2],
  ]) {
    const { phone, socket } = await registered();
    t.after(() => phone.close());
    trickle(phone, always);
    const call = phone.call('1003');
    await settle();
    call.pc.found({ candidate: 'early' });
    const { id } = socket.find('call');
    socket.say('callProgress', { callId: 'c1', state: 'trying', request: id }, id);
    socket.say('callAccepted', { callId: 'c1', sdp }, id);
    await settle();
    call.pc.found({ candidate: 'late' });
    assert.equal(sent(socket).length, count, `${sdp} ${always}`);
  }
});

test('not before the call has its name; the end of candidates, too', async () => {
  const { phone, socket } = await registered();
  trickle(phone, true);
  const call = phone.call('1003');
  await settle();
  call.pc.found({ candidate: 'a' });
  assert.deepEqual(sent(socket), []);
  const { id } = socket.find('call');
  socket.say('callProgress', { callId: 'c1', state: 'trying', request: id }, id);
  await settle();
  call.pc.found(null);
  assert.deepEqual(sent(socket), [
    { callId: 'c1', candidate: { candidate: 'a' } },
    { callId: 'c1', candidate: null },
  ]);
  phone.close();
});

test('an inbound call from a browser', async () => {
  const { phone, socket } = await registered();
  trickle(phone);
  const incoming = new Promise((done) => phone.on('call', done));
  socket.say('incomingCall', { callId: 'c1', from: '1003', displayName: '', sdp: placeholder }, 'evt-1');
  const call = await incoming;
  call.answer().catch(() => {});
  await settle();
  call.pc.found({ candidate: 'a' });
  assert.deepEqual(sent(socket), [{ callId: 'c1', candidate: { candidate: 'a' } }]);
  phone.close();
});

test('new candidates of an update go to a browser, although its own are known by now', async () => {
  const { phone, socket } = await registered();
  trickle(phone);
  const call = phone.call('1003');
  await settle();
  const { id } = socket.find('call');
  socket.say('callAccepted', { callId: 'c1', sdp: placeholder }, id);
  await settle();
  // browsers put what came by itself into the description
  call.pc.remoteDescription.sdp += address;
  call.update().catch(() => {});
  await settle();
  call.pc.found({ candidate: 'new' });
  assert.deepEqual(sent(socket), [{ callId: 'c1', candidate: { candidate: 'new' } }]);
  // now with a media server
  socket.say('callUpdated', { callId: 'c1', hold: false, remoteHold: false, sdp: placeholder + address }, socket.find('update').id);
  await settle();
  call.pc.found({ candidate: 'newer' });
  assert.equal(sent(socket).length, 1);
  phone.close();
});

test('theirs are taken, after their description; a bad one harms nothing', async () => {
  const { phone, socket } = await registered();
  trickle(phone);
  const call = phone.call('1003');
  await settle();
  const { id } = socket.find('call');
  let open;
  call.pc.remoteGate = new Promise((done) => (open = done));
  socket.say('callAccepted', { callId: 'c1', sdp: placeholder }, id);
  socket.say('iceCandidate', { callId: 'c1', candidate: { candidate: 'x' } }, 'evt-1');
  socket.say('iceCandidate', { callId: 'c1', candidate: null }, 'evt-2');
  await settle();
  assert.deepEqual(call.pc.candidates, []);
  open();
  await settle();
  assert.deepEqual(call.pc.candidates, [{ candidate: 'x' }]);
  call.pc.addIceCandidate = async () => {
    throw new Error('cannot parse');
  };
  socket.say('iceCandidate', { callId: 'c1', candidate: { candidate: 'bad' } }, 'evt-3');
  await settle();
  assert.equal(call.state, 'established');
  phone.close();
});

test('the full phone does so where it is needed, unless it must not', async () => {
  for (const [option, count] of [[undefined, 1], [false, 0], [true, 1]]) {
    const { phone, socket } = await registered({ full: true, storage: null, trickle: option });
    const call = phone.call('1003');
    await settle();
    call.pc.found({ candidate: 'a' });
    const { id } = socket.find('call');
    socket.say('callAccepted', { callId: 'c1', sdp: placeholder }, id);
    await settle();
    assert.equal(sent(socket).length, count, `${option}`);
    phone.close();
  }
});
