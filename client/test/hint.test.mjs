import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hint } from '../dist/hint.js';
import { RtcJsonError } from '../dist/rtc-json.js';

const of = (info) => hint(new RtcJsonError('x', info));

test('what can be done: by code, by the browser’s own error, else by whether it may work later', () => {
  assert.match(of({ code: 401 }), /password/);
  assert.match(of({ details: 'NotAllowedError' }), /allow/);
  assert.match(of({ details: 'TypeError' }), /https/);
  assert.match(of({ code: 599 }), /later/);
  assert.match(of({ code: 499 }), /rights/);
  assert.match(of({}), /network/);
  // a code says more than details of the same name would
  assert.match(of({ code: 403, details: 'NotAllowedError' }), /rights/);
});
