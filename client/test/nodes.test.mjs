import assert from 'node:assert/strict';
import { test } from 'node:test';
import { anyNode } from '../dist/nodes.js';
import { accept, clock, established, FakeSocket, newPhone, reconnected, settle, tick } from './fakes.mjs';

const [a, b, c] = ['wss://a.example', 'wss://b.example', 'wss://c.example'];

async function agent(urls) {
  const phone = newPhone();
  anyNode(phone, urls);
  const registering = phone.register();
  const socket = await accept();
  await registering;
  return { phone, socket };
}

test('a lost connection is tried once more where it was, then at the others in turn; the call goes on there', async (t) => {
  clock(t);
  const { phone, socket } = await agent([a, b, c]);
  assert.equal(socket.url, a);
  const call = await established(phone, socket);
  const tried = [];
  for (let last = socket; tried.length < 5; ) {
    last.drop();
    last = reconnected(t);
    tried.push(last.url);
  }
  assert.deepEqual(tried, [a, b, c, a, b]);
  const next = await accept({ calls: [{ callId: 'c1', direction: 'out', state: 'established', from: '5001', to: '1003', hold: false, remoteHold: false, since: 7 }] });
  assert.equal(next.url, b);
  assert.equal(next.find('register').payload.resume, 'token-1');
  assert.deepEqual([phone.state, call.state], ['registered', 'established']);
  // it stays where it has found a place
  next.drop();
  assert.equal(reconnected(t).url, b);
  phone.close();
});

test('a server that is silent is given up after four seconds', async (t) => {
  clock(t);
  const { phone, socket } = await agent([a, b]);
  socket.drop();
  const silent = reconnected(t);
  assert.equal(silent.url, a);
  tick(3999);
  assert.equal(silent.closed, false);
  tick(1);
  assert.equal(silent.closed, true);
  assert.equal(reconnected(t).url, b);
  // one that has taken the connection is not hurried
  const taken = FakeSocket.last;
  taken.open();
  await settle();
  tick(9000);
  assert.equal(taken.closed, false);
  phone.close();
  const { length } = FakeSocket.all;
  tick(60_000);
  assert.equal(FakeSocket.all.length, length);
});

test('a server that is to become empty is left as soon as the others know what has happened here, if there is another', async (t) => {
  clock(t);
  const { phone, socket } = await agent([a, b]);
  socket.say('notice', { reason: 'maintenance' }, 'evt-1');
  await settle();
  assert.equal(phone.state, 'registered');
  socket.say('notice', { reason: 'draining' }, 'evt-2');
  await settle();
  assert.equal(phone.state, 'registered');
  tick(500);
  assert.equal(phone.state, 'reconnecting');
  assert.equal(reconnected(t).url, b);
  phone.close();
  const alone = await agent([a]);
  alone.socket.say('notice', { reason: 'draining' }, 'evt-1');
  await settle();
  tick(500);
  assert.equal(alone.phone.state, 'registered');
  alone.phone.close();
});

test('the first connection fails: the next try is at another server, and the options of the page stay as they are', async () => {
  const options = { url: a, dn: '5001', password: 'pw5001' };
  const phone = newPhone(options);
  anyNode(phone, [a, b]);
  const failed = phone.register();
  FakeSocket.last.drop();
  await assert.rejects(failed, { name: 'RtcJsonError' });
  const registering = phone.register();
  const socket = await accept();
  assert.equal(socket.url, b);
  await registering;
  assert.equal(options.url, a);
  phone.close();
});

test('a server that is to become empty is left when the call that is being set up is answered, or is over', async (t) => {
  clock(t);
  for (const [type, payload, id] of [
    ['callAccepted', { callId: 'c1', sdp: 'answer' }, true], ['callEnded', { callId: 'c1', reason: 'rejected', duration: 0 }, false],
  ]) {
    const { phone, socket } = await agent([a, b]);
    const call = phone.call('1003');
    await settle();
    const request = socket.find('call');
    socket.say('callProgress', { callId: 'c1', state: 'ringing', request: request.id }, request.id);
    socket.say('notice', { reason: 'draining' }, 'evt-1');
    await settle();
    tick(500);
    assert.deepEqual([phone.state, call.state], ['registered', 'ringing']);
    socket.say(type, payload, id ? request.id : 'evt-2');
    await settle();
    assert.equal(phone.state, 'registered');
    tick(500);
    assert.equal(phone.state, 'reconnecting', type);
    assert.equal(reconnected(t).url, b);
    phone.close();
  }
});
