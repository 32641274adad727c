import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { size } from '../size.mjs';

test('the main entry is at most 3000 bytes, minified and gzipped', () => {
  const [minified, gzipped] = size();
  assert.ok(gzipped <= 3000 && gzipped > 1000 && minified > gzipped, `${minified} ${gzipped}`);
});

test('the script version defines the global RtcJson with the names of the full entry', async () => {
  const code = readFileSync(new URL('../dist/rtc-json.global.js', import.meta.url), 'utf8');
  const global = new Function(`${code}; return RtcJson`)();
  const module = await import('../dist/full.js');
  assert.deepEqual(Object.keys(global).sort(), Object.keys(module).sort());
});

test('the main entry exports little', async () => {
  assert.deepEqual(Object.keys(await import('../dist/rtc-json.js')).sort(), ['Call', 'Phone', 'RtcJsonError']);
});
