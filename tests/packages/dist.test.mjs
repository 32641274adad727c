// What `make dist` makes: the source as committed, a client that can be installed, a bill of materials that is complete; all of it once more
// the same.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('../../', import.meta.url));
const version = /^version = "(.*)"/m.exec(fs.readFileSync(path.join(top, 'Cargo.toml'), 'utf8'))[1];
const run = (program, args, options = {}) => execFileSync(program, args, { cwd: top, encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'inherit'], ...options });

let dir;
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-dist-'));
  run('packaging/dist.sh', [path.join(dir, 'one')]);
});
after(() => fs.rmSync(dir, { recursive: true, force: true }));

test('the checksums are right, and name each file', () => {
  const lines = run('sha256sum', ['-c', 'SHA256SUMS'], { cwd: path.join(dir, 'one') }).trim().split('\n');
  assert.deepEqual(lines.map((line) => line.replace(/: OK$/, '')).sort(), fs.readdirSync(path.join(dir, 'one')).filter((name) => name !== 'SHA256SUMS').sort());
});

test('the source release is what is committed', () => {
  const files = run('tar', ['-tzf', path.join(dir, 'one', `rtc_json-${version}.tar.gz`)]).trim().split('\n')
    .filter((name) => !name.endsWith('/')).map((name) => name.slice(`rtc_json-${version}/`.length)).sort();
  assert.deepEqual(files, run('git', ['ls-tree', '-r', '--name-only', 'HEAD']).trim().split('\n').sort());
  for (const file of ['COPYING', 'CHANGELOG.md', 'Cargo.lock', 'kamailio.cfg.example']) assert.ok(files.includes(file), file);
});

test('the npm package can be installed and imported', () => {
  const home = path.join(dir, 'page');
  fs.mkdirSync(home);
  fs.writeFileSync(path.join(home, 'package.json'), '{"type":"module"}');
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error', path.join(dir, 'one', `rtc-json-${version}.tgz`)], { cwd: home });
  assert.equal(run('node', ['-e', 'import("rtc-json").then(({ Phone }) => console.log(typeof Phone))'], { cwd: home }).trim(), 'function');
});

test('the bill of materials has each crate that is linked in, with its licence, and no path of this machine', () => {
  const text = fs.readFileSync(path.join(dir, 'one', `rtc_json-${version}.cdx.json`), 'utf8');
  const { bomFormat, components } = JSON.parse(text);
  assert.equal(bomFormat, 'CycloneDX');
  const linked = new Set(run('cargo', ['tree', '--locked', '-p', 'rtc_json', '-e', 'normal,no-proc-macro', '--prefix', 'none', '-f', '{p}'])
    .split('\n').map((line) => line.split(' ').slice(0, 2).join(' ')).filter((name) => name && !name.startsWith('rtc_json ')));
  assert.ok(linked.size > 40);
  const listed = new Map(components.map((c) => [`${c.name} v${c.version}`, c]));
  assert.deepEqual([...linked].filter((name) => !listed.has(name)), []);
  assert.deepEqual(components.filter((c) => !c.licenses?.length).map((c) => c.name), []);
  for (const place of [top, os.homedir(), os.tmpdir()]) assert.ok(!text.includes(`${place.replace(/\/$/, '')}/`), place);
});

test('made again, it is the same', () => {
  run('packaging/dist.sh', [path.join(dir, 'two')]);
  const sums = (name) => fs.readFileSync(path.join(dir, name, 'SHA256SUMS'), 'utf8');
  assert.equal(sums('two'), sums('one'));
});
