import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shareMicrophone } from '../dist/tabs.js';
import { established, registered, settle } from './fakes.mjs';

/** The Web Locks of one origin: all that `steal` needs. */
function fakeLocks() {
  let holder;
  return {
    names: new Set(),
    get taken() {
      return Boolean(holder);
    },
    request(name, { steal }, job) {
      assert.equal(steal, true);
      this.names.add(name);
      holder?.(Object.assign(new Error('stolen'), { name: 'AbortError' }));
      return new Promise((resolve, reject) => {
        const mine = (holder = reject);
        job().then((value) => {
          if (holder === mine) holder = undefined;
          resolve(value);
        });
      });
    },
  };
}

async function tab(locks) {
  const { phone, socket } = await registered();
  shareMicrophone(phone, locks);
  const call = async (callId) => {
    const made = await established(phone, socket, callId);
    await settle();
    return made;
  };
  const confirm = async (hold, callId) => {
    socket.say('callUpdated', { callId, hold, remoteHold: false }, socket.find('hold').id);
    await settle();
  };
  return { phone, socket, call, confirm };
}

test('the tab that has a call last has the microphone, the other one’s call is put on hold', async (t) => {
  const locks = fakeLocks();
  const [first, second] = [await tab(locks), await tab(locks)];
  t.after(() => [first, second].forEach(({ phone }) => phone.close()));
  const a = await first.call('c1');
  assert.deepEqual([...locks.names], ['rtc-json microphone 5001']);
  assert.equal(first.socket.count('hold'), 0);
  const b = await second.call('c2');
  assert.deepEqual(first.socket.find('hold').payload, { callId: 'c1', hold: true });
  await first.confirm(true, 'c1');
  assert.deepEqual([a.held, b.held], [true, undefined]);

  // taken back: the other way round
  a.hold(false);
  await settle();
  await first.confirm(false, 'c1');
  assert.deepEqual(second.socket.find('hold').payload, { callId: 'c2', hold: true });
  await second.confirm(true, 'c2');
  assert.deepEqual([a.held, b.held], [false, true]);
});

test('a call that ends, or is held, lets the microphone go; nothing happens to one that is over', async (t) => {
  const locks = fakeLocks();
  const [first, second] = [await tab(locks), await tab(locks)];
  t.after(() => [first, second].forEach(({ phone }) => phone.close()));
  const a = await first.call('c1');
  assert.equal(locks.taken, true);
  a.hangup();
  await settle();
  assert.equal(locks.taken, false);
  await second.call('c2');
  assert.equal(first.socket.count('hold'), 0);

  const c = [...second.phone.calls][0];
  c.hold();
  await settle();
  await second.confirm(true, 'c2');
  assert.equal(locks.taken, false);
});
