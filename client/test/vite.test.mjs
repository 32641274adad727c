// The package as somebody installs it: into a fresh Vite project, whose build runs.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const client = fileURLToPath(new URL('..', import.meta.url));
let project;
const run = (command, ...args) => execFileSync(command, args, { cwd: project, encoding: 'utf8', timeout: 240_000, stdio: ['ignore', 'pipe', 'pipe'] });
const write = (name, text) => {
  mkdirSync(path.dirname(path.join(project, name)), { recursive: true });
  writeFileSync(path.join(project, name), text);
};

before(() => {
  project = mkdtempSync(path.join(tmpdir(), 'rtc-json-vite-'));
  // (`dist` is built already, and tests of other files read it)
  const [{ filename }] = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', project], { cwd: client, encoding: 'utf8' }));
  write('package.json', JSON.stringify({ name: 'fresh', private: true, type: 'module' }));
  run('npm', 'install', '--no-fund', '--no-audit', '--loglevel=error', '--save-dev', 'vite@^7', `./${filename}`);
  write('index.html', '<!doctype html><title>Fresh</title><script type="module" src="/src/main.js"></script>');
});
after(() => rmSync(project, { recursive: true, force: true }));

/** Builds a page with this script and gives what the browser would get. */
function build(main) {
  write('src/main.js', main);
  run('npx', '--no-install', 'vite', 'build', '--logLevel', 'error');
  const [name] = readdirSync(path.join(project, 'dist/assets')).filter((file) => file.endsWith('.js'));
  return readFileSync(path.join(project, 'dist/assets', name));
}

test('a page with the whole phone is built, and its script does what it says', async () => {
  const code = build(`
    import { Phone, RtcJsonError } from 'rtc-json/full';
    globalThis.phone = new Phone({ url: 'ws://127.0.0.1:9/', dn: '5001', storage: null });
    globalThis.isError = (error) => error instanceof RtcJsonError;
  `).toString();
  assert.ok(code.length > 5000);
  const file = path.join(project, 'built.mjs');
  // what Vite puts before it for old browsers looks for a document
  writeFileSync(file, `globalThis.document ??= { createElement: () => ({ relList: { supports: () => true } }) };\n${code}`);
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', `
    await import(${JSON.stringify(file)});
    const { phone } = globalThis;
    const states = [];
    let opened;
    phone.on('state', (state) => states.push(state));
    globalThis.WebSocket = class { constructor(...given) { opened = given; setTimeout(() => this.onclose?.({})); } close() {} };
    const error = await phone.register().catch((reason) => reason);
    console.log(JSON.stringify({ states, opened, isError: globalThis.isError(error) }));
  `], { encoding: 'utf8', timeout: 20_000 });
  const { states, opened, isError } = JSON.parse(said);
  assert.ok(isError);
  assert.deepEqual(states, ['connecting', 'closed']);
  assert.equal(opened[0], 'ws://127.0.0.1:9/');
  assert.ok(opened[1].includes('rtc-json'));
});

test('a page with the main entry alone gets little more than that', () => {
  const code = build(`import { Phone } from 'rtc-json'; globalThis.phone = Phone;`);
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`# ${code.length} B, ${size} B gzip by Vite`);
  // Vite adds its own preload of modules, some 400 bytes
  assert.ok(size < 3600, `${size} B gzip`);
});
