import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

test('the client is at most 3000 bytes, minified and gzipped', () => {
  const size = gzipSync(readFileSync(new URL('../dist/rtc-json.js', import.meta.url)), { level: 9 }).length;
  assert.ok(size <= 3000, `${size} bytes`);
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
