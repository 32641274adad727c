// The Debian package: installed into a Debian folder that knows nothing of this one, it is used by the Kamailio there, and goes again.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { onExit } from '../common/cleanup.mjs';

const top = fileURLToPath(new URL('../../', import.meta.url));
const name = 'kamailio-rtc-json-modules';
const script = (file, ...args) => execFileSync(path.join(top, 'scripts', file), args, { cwd: top, encoding: 'utf8' }).trim();

/** The package. */
let deb;
/** The folder that it is installed into. */
let root;
/** Files of the package, as paths in the folder. */
let files;

const inside = (...command) => execFileSync('chroot', [root, ...command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const cfg = `/usr/share/doc/${name}/examples/kamailio.cfg`;

before(() => {
  deb = path.join(top, script('deb.sh'));
  const suite = /^VERSION_CODENAME=(\w+)/m.exec(fs.readFileSync('/etc/os-release', 'utf8'))[1];
  const clean = script('kamailio-root.sh', suite);
  root = fs.mkdtempSync(path.join(path.dirname(clean), 'deb-test-'));
  onExit(() => fs.rmSync(root, { recursive: true, force: true }));
  // hard links: dpkg writes new files and renames them into place, but for its log
  execFileSync('cp', ['-al', `${clean}/.`, root]);
  fs.rmSync(path.join(root, 'var/log'), { recursive: true });
  fs.mkdirSync(path.join(root, 'var/log'));
  fs.copyFileSync(deb, path.join(root, 'package.deb'));
});

test('the folder has Kamailio, and nothing of the module', () => {
  assert.match(inside('/usr/sbin/kamailio', '-v'), /version: kamailio /);
  assert.throws(() => inside('dpkg', '-s', name), /not installed/);
});

test('dpkg installs it: all that it depends on is there', () => {
  inside('dpkg', '-i', '/package.deb');
  assert.match(inside('dpkg', '-s', name), /^Status: install ok installed$/m);
  assert.equal(inside('dpkg', '--verify', name), '');
  files = inside('dpkg', '-L', name).split('\n').filter((file) => file && fs.statSync(path.join(root, file)).isFile());
  for (const wanted of [/\/kamailio\/modules\/rtc_json\.so$/, /\/kamailio\.service\.d\/rtc_json\.conf$/, /\/copyright$/, /\/README$/, /\/changelog\.gz$/]) {
    assert.ok(files.some((file) => wanted.test(file)), String(wanted));
  }
});

test('systemd reads the drop-in without a complaint', (t) => {
  const unit = ['usr/lib/systemd/system', 'lib/systemd/system'].map((dir) => path.join(root, dir)).find((dir) => fs.existsSync(`${dir}/kamailio.service`));
  assert.ok(unit, 'kamailio.service');
  const keys = fs.readFileSync(path.join(unit, 'kamailio.service.d/rtc_json.conf'), 'utf8').split('\n').filter((line) => line && !/^[#[]/.test(line));
  assert.ok(keys.length > 3);
  let said;
  try { said = execFileSync('systemd-analyze', ['verify', path.join(unit, 'kamailio.service')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }); } catch (error) {
    if (error.code === 'ENOENT') { t.skip('no systemd on this machine'); return; }
    said = error.stderr;
  }
  assert.doesNotMatch(said, /rtc_json\.conf/);
});

test('the Kamailio there takes its example configuration', () => {
  inside('/usr/sbin/kamailio', '-c', '-f', cfg, '-A', 'MY_IP=127.0.0.1');
});

test('and runs with it: a browser registers', async () => {
  process.env.KAMAILIO_ROOT = root;
  process.env.RTC_JSON_SO = path.join(root, files.find((file) => file.endsWith('/rtc_json.so')));
  const { startKamailio, modulePath } = await import('../common/kamailio.mjs');
  const { connect } = await import('../common/client.mjs');
  assert.equal(modulePath, process.env.RTC_JSON_SO);
  const kamailio = await startKamailio({ cfg: path.join(root, cfg) });
  try {
    const maps = fs.readFileSync(`/proc/${kamailio.pids.at(-1)}/maps`, 'utf8');
    assert.ok(maps.includes(process.env.RTC_JSON_SO), 'the module is the one of the package');
    const client = await connect(kamailio.wsUrl);
    assert.equal((await client.register('5001')).dn, '5001');
    assert.equal((await kamailio.rpcRows('rtc_json.agents')).length, 1);
    await client.close();
  } finally { await kamailio.stop(); }
});

test('dpkg removes it without a trace', () => {
  fs.copyFileSync(path.join(root, cfg), path.join(root, 'kamailio.cfg'));
  inside('dpkg', '-P', name);
  assert.deepEqual(files.filter((file) => fs.existsSync(path.join(root, file))), []);
  assert.throws(() => inside('/usr/sbin/kamailio', '-c', '-f', '/kamailio.cfg', '-A', 'MY_IP=127.0.0.1'), /Can't get from cache: \$rtcj/);
});

test('two packages of one tree are the same bytes', () => {
  const first = fs.readFileSync(deb);
  assert.equal(path.join(top, script('deb.sh')), deb);
  assert.ok(first.equals(fs.readFileSync(deb)));
});

after(() => { if (root) fs.rmSync(root, { recursive: true, force: true }); });
