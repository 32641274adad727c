// The package as it is packed: what is in it, its types, and that nothing comes into a page that it does not use.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const client = fileURLToPath(new URL('..', import.meta.url));
const { exports } = JSON.parse(readFileSync(path.join(client, 'package.json'), 'utf8'));
const entries = Object.keys(exports).filter((name) => !/\.js(on)?$/.test(name));
let folder;
let files;
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'rtc-json-package-'));
  // (`dist` is built already, and tests of other files read it)
  const [{ filename, files: packed }] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd: client, encoding: 'utf8' }),
  );
  files = packed.map((file) => file.path);
  const target = path.join(folder, 'node_modules', 'rtc-json');
  mkdirSync(target, { recursive: true });
  execFileSync('tar', ['-xzf', path.join(folder, filename), '-C', target, '--strip-components', '1']);
});
after(() => rmSync(folder, { recursive: true, force: true }));

const write = (name, text) => {
  const file = path.join(folder, name);
  writeFileSync(file, text);
  return file;
};
const bundle = async (text) => {
  const { outputFiles } = await build({ stdin: { contents: text, resolveDir: folder }, bundle: true, minify: true, format: 'esm', write: false, logLevel: 'error' });
  return outputFiles[0].text;
};

test('every entry is in it, with its types and a source map; neither tests nor pages are', () => {
  for (const name of entries) {
    const { types, default: code } = exports[name];
    for (const file of [types, code, `${code}.map`]) assert.ok(files.includes(file.slice(2)), `${file} of ${name}`);
  }
  assert.ok(files.includes('README.md'));
  assert.ok(files.includes('dist/rtc-json.global.js'));
  assert.deepEqual(files.filter((file) => !/^(dist|src)\/|^(README\.md|package\.json)$/.test(file)), []);
});

test('source maps name the sources, which are there', () => {
  const map = JSON.parse(readFileSync(path.join(client, 'dist/rtc-json.js.map'), 'utf8'));
  assert.deepEqual(map.sources.map((source) => path.posix.join('dist', source)).sort(), ['src/call.ts', 'src/emitter.ts', 'src/error.ts', 'src/rtc-json.ts']);
  for (const source of map.sources) assert.ok(files.includes(path.posix.join('dist', source)), source);
});

test('every entry can be imported by its name', async () => {
  const file = write('all.mjs', `${entries.map((name, i) => `export * as e${i} from 'rtc-json${name.slice(1)}';`).join('\n')}\n`);
  const modules = await import(pathToFileURL(file));
  for (const i of entries.keys()) assert.ok(Object.keys(modules[`e${i}`]).length > 0, entries[i]);
});

test('an import does nothing: no listener, no timer, no global, in a page or out of one', () => {
  const file = write('nothing.mjs', `
    for (const name of ['addEventListener', 'setTimeout', 'setInterval', 'WebSocket', 'RTCPeerConnection', 'queueMicrotask']) {
      globalThis[name] = () => { throw new Error(name + ' was used'); };
    }
    const before = Object.getOwnPropertyNames(globalThis).join();
    ${entries.map((name) => `await import('rtc-json${name.slice(1)}');`).join('\n')}
    if (Object.getOwnPropertyNames(globalThis).join() !== before) throw new Error('a global is new');
    console.log('done');
  `);
  assert.equal(execFileSync(process.execPath, [file], { encoding: 'utf8' }), 'done\n');
});

test('a bundle has only what is used', async () => {
  for (const name of entries) assert.equal((await bundle(`import 'rtc-json${name.slice(1)}'`)).trim(), '', name);
  assert.ok(!(await bundle(`import { stats } from 'rtc-json/full'; console.log(stats)`)).includes('WebSocket'));
  const all = await bundle(`import { Phone } from 'rtc-json/full'; console.log(Phone)`);
  assert.ok(all.includes('getStats') && !all.includes('getRandomValues') && !all.includes('OverconstrainedError'));
  const { length } = await bundle(`import { Phone } from 'rtc-json'; console.log(Phone)`);
  assert.ok(length < 7500, `${length} bytes`);
});

test('the types say what is allowed, and what is not', () => {
  const file = write('page.ts', `
import { Phone, RtcJsonError, type Call, type CallEnd } from 'rtc-json';
import { conference, recording, transfer } from 'rtc-json/control';
import { digest } from 'rtc-json/digest';
import { Phone as FullPhone } from 'rtc-json/full';
import { stats } from 'rtc-json/stats';

const phone = new Phone({ url: 'wss://x', dn: '5001', token: async () => 'jwt', digest: digest('5001', 'pw'), codecs: /PCMU/ });
phone.on('call', (call) => {
  call.on('callUpdated', ({ hold, remoteHold, remote }) => console.log(hold && remoteHold, remote?.number));
  call.on('transferProgress', ({ state }) => console.log(state === 'completed'));
  call.on('recordingUpdated', ({ state }) => console.log(state === 'paused'));
  call.on('ended', ({ reason, error }: CallEnd) => console.log(reason === 'user_busy', error?.retryable));
});
phone.on('conferenceUpdated', ({ callIds }) => callIds.length);
phone.on('message', ({ from, text }) => console.log(from, text));
const call: Call = phone.call('1003', { signal: AbortSignal.timeout(1000), headers: { 'X-A': 'b' } });
const { mode } = await call.request('dtmf', { digit: '1' });
await phone.request('message', { to: '1003', text: 'x' }, { signal: AbortSignal.timeout(1) });
console.log(mode, (await stats(call))?.mos.toFixed(1), (await call.hold()).remoteHold);
await transfer(call, call); await recording(call, 'pause'); await conference(phone, [call]);
const error = new RtcJsonError('x', { code: 486 });
console.log(error.code + 1, error.retryable === true);
const full = new FullPhone({ url: 'wss://x', dn: '5001', storage: null });
full.on('call', (call) => call.transfer('1003').then(() => call.stats()));
await full.call('1003').replaceMicrophone({ deviceId: 'x' });

// @ts-expect-error
phone.on('nothing', () => {});
// @ts-expect-error
phone.request('dtmf', { digit: 1 });
// @ts-expect-error
call.request('recording', { action: 'begin' });
// @ts-expect-error
call.request('ping', {});
// @ts-expect-error
new Phone({ url: 'wss://x' });
// @ts-expect-error
phone._options;
// @ts-expect-error
call.transfer('1003');
`);
  const options = ['--ignoreConfig', '--noEmit', '--strict', '--module', 'esnext', '--moduleResolution', 'bundler', '--target', 'es2022', '--lib', 'es2023,dom', '--types', ''];
  try {
    execFileSync(process.execPath, [path.join(client, 'node_modules/typescript/bin/tsc'), ...options, file], { encoding: 'utf8', cwd: folder });
  } catch ({ stdout }) {
    assert.fail(stdout);
  }
});
