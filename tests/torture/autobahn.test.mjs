/**
 * Cases 1 to 7 of the Autobahn test suite against Kamailio's own WebSocket, with a module that sends each message back. rtc_json is not
 * there: what is not OK here is Kamailio's, and each such case has its reason in `known`.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { onExit, signal } from '../common/cleanup.mjs';
import { startKamailio } from '../common/kamailio.mjs';

const top = fileURLToPath(new URL('../..', import.meta.url));
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-autobahn-'));
onExit(() => fs.rmSync(dir, { recursive: true, force: true }));

/** Why a case is not OK, by its number. All in src/modules/websocket/ws_frame.c of Kamailio. */
const known = [
  [/^1\.[12]\.[678]$/, 'a frame of 65,535 bytes or more is refused with 1009: BUF_SIZE'],
  [/^1\.2\.1$/, 'whether a message was text or binary is not told: what goes out is text where it is UTF-8, also an empty one'],
  [/^2\.5$/, 'no limit for the payload of control frames'],
  [/^4\.[12]\.[1-5]$/, 'a reserved opcode is refused with 1008 in place of 1002'],
  [/^5\.2$/, 'FIN of control frames is not looked at'],
  [/^5\.(9|1[0-7])$/, 'a continuation is taken whether a message has begun or not'],
  [/^5\.18$/, 'a text with FIN is delivered at once, whatever has begun before'],
  [/^6\.(3\.[12]|4\.[1-4]|6\.|8\.|10\.|11\.|12\.|13\.|14\.|15\.|16\.|17\.|18\.|19\.|2[01]\.)/, 'text is not checked for UTF-8 (rtc_json itself refuses it)'],
  [/^7\.(3\.[26]|5\.1|9\.\d+)$/, 'code and reason of a close frame are not checked; the answer is 1000'],
];

/** @type {{ python: string, home: string } | undefined} */
const suite = (() => {
  try {
    const [python, home] = execFileSync(path.join(top, 'scripts/autobahn.sh'), ['path'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim().split('\n');
    return { python, home };
  } catch { return undefined; }
})();
const skip = suite ? false : 'the Autobahn test suite is not there (scripts/autobahn.sh get; it wants Python 2.7)';

/** Kamailio's own modules. */
const modules = () => {
  const place = execFileSync('find', ['/usr/lib', '-path', '*/kamailio/modules/tm.so', '-print', '-quit'], { encoding: 'utf8' }).trim();
  return path.dirname(place);
};

let kamailio;
let pids;
before(async () => {
  if (skip) return;
  kamailio = await startKamailio({
    cfg: path.join(top, 'tests/torture/autobahn.cfg'), debug: -1, users: [], args: ['-L', `${path.join(top, 'run/torture')}:${modules()}`],
  });
  pids = kamailio.pids;
});
after(() => kamailio?.stop());

test('cases 1 to 7', { skip, timeout: 580_000 }, async () => {
  const spec = path.join(dir, 'spec.json');
  const out = path.join(dir, 'out');
  fs.writeFileSync(spec, JSON.stringify({
    outdir: out, servers: [{ agent: 'kamailio', url: kamailio.wsUrl.replace(/\/$/, ''), protocols: ['sip'] }],
    cases: [1, 2, 3, 4, 5, 6, 7].map((n) => `${n}.*`), 'exclude-cases': [], 'exclude-agent-cases': {},
  }));
  const main = 'import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite.wstest import run; run()';
  const log = fs.openSync(path.join(dir, 'log'), 'a');
  const child = spawn(suite.python, ['-c', main, suite.home, '-m', 'fuzzingclient', '-s', spec], { cwd: dir, stdio: ['ignore', log, log] });
  const forget = onExit(() => signal(child.pid, 'SIGKILL'));
  const code = await new Promise((done) => { child.once('exit', done); child.once('error', () => done(-1)); });
  forget();
  assert.equal(code, 0, fs.readFileSync(path.join(dir, 'log'), 'utf8').slice(-2000));

  const { kamailio: cases } = JSON.parse(fs.readFileSync(path.join(out, 'index.json'), 'utf8'));
  const numbers = Object.keys(cases).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const good = (word) => ['OK', 'NON-STRICT', 'INFORMATIONAL'].includes(word);
  const wrong = numbers.filter((number) => !good(cases[number].behavior) || !good(cases[number].behaviorClose));
  const reasons = new Map();
  const news = [];
  for (const number of wrong) {
    const reason = known.find(([pattern]) => pattern.test(number))?.[1];
    if (reason) reasons.set(reason, [...(reasons.get(reason) ?? []), number]);
    else news.push(`${number}: ${cases[number].behavior}, close ${cases[number].behaviorClose}`);
  }
  console.log(`# ${numbers.length} cases, ${numbers.length - wrong.length} of them OK`);
  const table = ['| cases | why |', '|---|---|', ...[...reasons].map(([reason, list]) => `| ${list.join(', ')} | ${reason} |`)].join('\n');
  fs.mkdirSync(path.join(top, 'run'), { recursive: true });
  fs.writeFileSync(path.join(top, 'run/autobahn.md'), `${table}\n`);
  assert.deepEqual(news, [], 'a case is not OK, and nobody knows why');
  assert.ok(numbers.length > 240, `${numbers.length} cases`);
  assert.deepEqual(kamailio.pids, pids, 'no process of Kamailio has ended');
});
