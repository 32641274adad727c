import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { lean } from '../dist/lean.js';
import { registered } from './fakes.mjs';

test('a description goes without what no telephone needs, and all else as it is', async (t) => {
  const offer = fs.readFileSync(new URL('../../tests/common/sdp/chromium-offer.sdp', import.meta.url), 'latin1');
  const { phone, socket } = await registered();
  t.after(() => phone.close());
  lean(phone);
  phone.request('update', { callId: 'c1', sdp: offer }).catch(() => {});
  const { sdp } = socket.find('update').payload;
  const lines = sdp.split('\r\n');
  assert.ok(offer.length - sdp.length > 500, `${offer.length - sdp.length} bytes less`);
  assert.deepEqual(lines.filter((line) => /^a=(extmap|msid|ssrc|rtcp:|rtcp-rsize|rtcp-xr|rtcp-fb)/.test(line)), []);
  for (const needed of ['a=ice-ufrag:', 'a=ice-pwd:', 'a=fingerprint:', 'a=setup:', 'a=mid:', 'a=rtcp-mux', 'a=sendrecv', 'a=group:BUNDLE', 'a=rtpmap:111', 'a=fmtp:111']) {
    assert.ok(lines.some((line) => line.startsWith(needed)), needed);
  }
  assert.equal(lines.at(-1), '');
  assert.deepEqual(lines, offer.split('\r\n').filter((line) => lines.includes(line)));

  phone.request('hold', { callId: 'c1', hold: true }).catch(() => {});
  assert.deepEqual(socket.find('hold').payload, { callId: 'c1', hold: true });
});
