// Messages recorded from real runs (tests/samples) have the types that src/messages.ts gives them.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Recorded messages by direction and type. @returns {Record<string, Record<string, any[]>>} */
const samples = Object.fromEntries(['client', 'server'].map((direction) => {
  const dir = here(`../../tests/samples/${direction}`);
  return [direction, Object.fromEntries(readdirSync(dir).map((file) => [path.parse(file).name, JSON.parse(readFileSync(path.join(dir, file), 'utf8'))]))];
}));
// a client may tell which ICE servers it has; this one does not, and its types know nothing of it
for (const { payload } of samples.client.call) delete payload.iceServers;

/** The compiler's complaints about the payloads as values of their types. A key that the type has not is one, too. */
function complaints(found) {
  const lines = [`import type { ClientMessages, ServerMessages } from '${here('../src/messages.ts')}';`];
  for (const [direction, types] of Object.entries(found)) {
    const all = direction === 'client' ? 'ClientMessages' : 'ServerMessages';
    for (const [type, messages] of Object.entries(types)) {
      lines.push(`export const ${direction}_${type}: ${all}['${type}'][] = [`);
      for (const { payload } of messages) lines.push(`  ${JSON.stringify(payload)},`);
      lines.push('];');
    }
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'rtc-json-samples-'));
  try {
    const file = path.join(folder, 'samples.ts');
    writeFileSync(file, `${lines.join('\n')}\n`);
    const options = ['--ignoreConfig', '--noEmit', '--strict', '--skipLibCheck', '--allowImportingTsExtensions', '--module', 'esnext', '--moduleResolution', 'bundler', '--target', 'es2022', '--types', ''];
    execFileSync(process.execPath, [here('../node_modules/typescript/bin/tsc'), ...options, file], { encoding: 'utf8', cwd: here('..') });
    return '';
  } catch (error) {
    return error.stdout.replace(/^.*samples\.ts[(:](\d+).*$/gm, (line, number) => `${lines[number - 1].slice(0, 300)}\n  ${line.slice(-400)}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('every recorded message has its type', () => {
  assert.ok(Object.keys(samples.client).length >= 16 && Object.keys(samples.server).length >= 17);
  assert.equal(complaints(samples), '');
});

test('a key too many, one too few, a wrong word are seen', () => {
  const bent = (direction, type, change) => {
    const message = structuredClone(samples[direction][type][0]);
    change(message.payload);
    return complaints({ [direction]: { [type]: [message] } });
  };
  assert.match(bent('server', 'callEnded', (payload) => { payload.reason = 'bored'; }), /bored/);
  assert.match(bent('server', 'registered', (payload) => { delete payload.session; }), /session/);
  assert.match(bent('server', 'callAccepted', (payload) => { payload.colour = 'red'; }), /colour/);
  assert.match(bent('client', 'hold', (payload) => { payload.hold = 'yes'; }), /hold/);
});
