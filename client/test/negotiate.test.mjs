// Descriptions after the first: each row of the table in docs/protocol.md, and what crosses what.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clock, established, registered, settle, tick } from './fakes.mjs';

async function talking(t) {
  clock(t);
  t.mock.method(Math, 'random', () => 0.5);
  const { phone, socket } = await registered();
  const call = await established(phone, socket);
  call.pc.log.length = 0;
  t.after(() => phone.close());
  let events = 0;
  const updated = (payload, id = `evt-${++events}`) => {
    socket.say('callUpdated', { callId: 'c1', hold: false, remoteHold: false, ...payload }, id);
    return settle();
  };
  return { phone, socket, call, updated };
}

test('an offer is taken and answered', async (t) => {
  const { call, socket, updated } = await talking(t);
  await updated({ sdp: 'theirs', answerNeeded: true });
  assert.deepEqual(call.pc.log, ['remote offer theirs', 'local answer 2 ice 0']);
  assert.deepEqual(socket.find('answer').payload, { callId: 'c1', sdp: 'answer 2 ice 0' });
  assert.equal(call.pc.transceivers.length, 1);
  assert.equal(call.state, 'established');
});

test('asked for an offer: a new one with an ICE restart, whose answer follows', async (t) => {
  const { call, socket, updated } = await talking(t);
  await updated({ answerNeeded: true });
  const { payload, id } = socket.find('answer');
  assert.deepEqual(payload, { callId: 'c1', sdp: 'offer 2 ice 1' });
  socket.say('ack', { callId: 'c1' }, id);
  await updated({ sdp: 'their answer', remote: { number: '1009', displayName: 'Dora' } });
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1', 'remote answer their answer']);
  assert.deepEqual(call.remote, { number: '1009', displayName: 'Dora' });
  await updated({});
  assert.equal(call.remote.number, '1009');
});

test('an offer that came to nothing is rolled back', async (t) => {
  const { call, updated } = await talking(t);
  await updated({ answerNeeded: true });
  await updated({ answerNeeded: false });
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1', 'rollback']);
  assert.equal(call.pc.localDescription.sdp, 'offer 1 ice 0');
  // nothing is open any more: a second word of it does nothing
  await updated({ answerNeeded: false });
  assert.equal(call.pc.log.length, 2);
  assert.equal(call.state, 'established');
});

test('an answer to no offer: one is made first, without an ICE restart', async (t) => {
  const { call, socket, updated } = await talking(t);
  await updated({ sdp: 'new answer' });
  assert.deepEqual(call.pc.log, ['local offer 2 ice 0', 'remote answer new answer']);
  assert.equal(socket.count('update') + socket.count('answer'), 0);
});

test('flags alone: told, and nothing is done to the connection', async (t) => {
  const { call, updated } = await talking(t);
  const told = [];
  call.on('callUpdated', ({ hold, remoteHold }) => told.push([hold, remoteHold]));
  await updated({ hold: true, remoteHold: true });
  assert.deepEqual([call.held, call.remoteHold], [true, true]);
  await updated({});
  assert.deepEqual([call.held, call.remoteHold], [false, false]);
  assert.deepEqual(told, [[true, true], [false, false]]);
  assert.deepEqual(call.pc.log, []);
});

test('update: an offer with an ICE restart, its answer comes back as the outcome', async (t) => {
  const { call, socket, updated } = await talking(t);
  const promise = call.update();
  await settle();
  const { payload, id } = socket.find('update');
  assert.deepEqual(payload, { callId: 'c1', sdp: 'offer 2 ice 1' });
  assert.deepEqual(call.pc.log, [], 'no check is sent before the far side knows of it');
  await updated({ sdp: 'their answer' }, id);
  assert.equal((await promise).sdp, 'their answer');
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1', 'remote answer their answer']);
});

test('update that is refused at once: nothing has happened, and the call goes on', async (t) => {
  const { call, socket } = await talking(t);
  const promise = call.update();
  await settle();
  socket.say('error', { message: 'Not Acceptable Here', code: 488, details: 'codecs', callId: 'c1' }, socket.find('update').id);
  await assert.rejects(promise, { code: 488 });
  tick(10_000);
  await settle();
  assert.deepEqual(call.pc.log, []);
  assert.equal(call.state, 'established');
  assert.equal(socket.count('update'), 1);
});

test('update whose answer takes longer: checks begin meanwhile', async (t) => {
  const { call, socket, updated } = await talking(t);
  const promise = call.update();
  await settle();
  tick(1999);
  await settle();
  assert.deepEqual(call.pc.log, []);
  tick(1);
  await settle();
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1']);
  await updated({ sdp: 'their answer' }, socket.find('update').id);
  await promise;
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1', 'remote answer their answer']);
});

test('update that is refused later: rolled back, and the call goes on', async (t) => {
  const { call, socket } = await talking(t);
  const promise = call.update();
  await settle();
  tick(2000);
  await settle();
  socket.say('error', { message: 'Not Acceptable Here', code: 488, details: 'codecs', callId: 'c1' }, socket.find('update').id);
  await assert.rejects(promise, { code: 488 });
  await settle();
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1', 'rollback']);
  assert.equal(call.state, 'established');
  tick(10_000);
  await settle();
  assert.equal(socket.count('update'), 1);
});

test('glare: our update crosses an offer of theirs. Ours is rolled back, theirs answered, ours made again', async (t) => {
  const { call, socket, updated } = await talking(t);
  const promise = call.update();
  await settle();
  const first = socket.find('update').id;
  await updated({ sdp: 'theirs', answerNeeded: true });
  // (the offer is in place before theirs is looked at)
  tick(2000);
  await settle();
  socket.say('error', { message: 'Request Pending', code: 491, details: '', callId: 'c1', retryable: true }, first);
  await settle();
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1', 'rollback', 'remote offer theirs', 'local answer 3 ice 1']);
  assert.equal(socket.find('answer').payload.sdp, 'answer 3 ice 1');
  assert.equal(socket.count('update'), 1);
  tick(999);
  await settle();
  assert.equal(socket.count('update'), 1, 'not at once');
  tick(1);
  await settle();
  const { payload, id } = socket.find('update');
  assert.notEqual(id, first);
  assert.equal(payload.sdp, 'offer 4 ice 2');
  await updated({ sdp: 'their answer' }, id);
  assert.equal((await promise).sdp, 'their answer');
  assert.equal(call.pc.signalingState, 'stable');
});

test('glare: the error is there before their offer', async (t) => {
  const { call, socket, updated } = await talking(t);
  call.update().catch(() => {});
  await settle();
  socket.say('error', { message: 'Request Pending', code: 491, callId: 'c1', retryable: true }, socket.find('update').id);
  await updated({ sdp: 'theirs', answerNeeded: true });
  assert.deepEqual(call.pc.log, ['remote offer theirs', 'local answer 2 ice 0']);
  tick(2000);
  await settle();
  assert.equal(socket.count('update'), 2);
});

test('glare: asked for an offer while an update is open. The refusal of the update leaves the newer offer alone', async (t) => {
  const { call, socket, updated } = await talking(t);
  call.update().catch(() => {});
  await settle();
  await updated({ answerNeeded: true });
  tick(2000);
  await settle();
  assert.equal(socket.find('answer').payload.sdp, 'offer 3 ice 2');
  socket.say('error', { message: 'Request Pending', code: 491, callId: 'c1', retryable: true }, socket.find('update').id);
  await settle();
  assert.equal(call.pc.log.includes('rollback'), false);
  // and it is not made again before the other exchange is over
  tick(1000);
  await settle();
  assert.equal(socket.count('update'), 1);
  await updated({ sdp: 'their answer' });
  assert.deepEqual(call.pc.log, ['local offer 2 ice 1', 'local offer 3 ice 2', 'remote answer their answer']);
  tick(1000);
  await settle();
  assert.equal(socket.find('update').payload.sdp, 'offer 4 ice 3');
});

test('two updates go one after the other', async (t) => {
  const { call, socket, updated } = await talking(t);
  call.update().catch(() => {});
  call.update().catch(() => {});
  await settle();
  assert.equal(socket.count('update'), 1);
  await updated({ sdp: 'a1' }, socket.find('update').id);
  tick(2000);
  await settle();
  assert.equal(socket.count('update'), 2);
});

test('an update that waits ends with the call', async (t) => {
  const { call, socket } = await talking(t);
  const promise = call.update();
  await settle();
  socket.say('error', { message: 'Request Pending', code: 491, callId: 'c1', retryable: true }, socket.find('update').id);
  await settle();
  call.hangup();
  tick(2000);
  await assert.rejects(promise);
  assert.equal(socket.count('update'), 1);
});

test('an offer that the browser cannot take hangs up', async (t) => {
  const { call, socket, updated } = await talking(t);
  await updated({ sdp: 'bad', answerNeeded: true });
  assert.deepEqual(socket.find('hangup').payload, { callId: 'c1', reason: 'media_error' });
  assert.equal(call.state, 'ending');
});

test('the path is lost: after a while an ICE restart, unless it comes back by itself', async (t) => {
  for (const [states, restarts] of [
    [['disconnected'], 1],
    [['failed'], 1],
    [['disconnected', 'failed'], 1],
    [['disconnected', 'connected'], 0],
    [['checking', 'connected', 'completed'], 0],
  ]) {
    await t.test(states.join(', '), async (t) => {
      const { call, socket } = await talking(t);
      for (const state of states) call.pc.ice(state);
      tick(1999);
      await settle();
      assert.equal(socket.count('update'), 0);
      tick(1);
      await settle();
      assert.equal(socket.count('update'), restarts);
    });
  }
});

test('a path that is lost before the answer, or after the end, is nobody’s concern', async (t) => {
  clock(t);
  const { phone, socket } = await registered();
  const call = phone.call('1003');
  await settle();
  call.pc.ice('failed');
  tick(5000);
  await settle();
  assert.equal(socket.count('update'), 0);
  phone.close();
  call.pc.ice('failed');
  tick(5000);
  await settle();
  assert.equal(socket.count('update'), 0);
});

test('a restart that fails for now is tried again', async (t) => {
  const { call, socket } = await talking(t);
  call.pc.ice('failed');
  tick(2000);
  await settle();
  socket.say('error', { message: 'Server Time-out', code: 504, callId: 'c1' }, socket.find('update').id);
  await settle();
  tick(2000);
  await settle();
  assert.equal(socket.count('update'), 2);
});
