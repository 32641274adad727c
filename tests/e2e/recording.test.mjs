/** Recording by Asterisk: what is in the file, and what is not. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { note, refused, sleep, startBench, talk } from './fixture.mjs';
import { pieces, readWav } from './pages/spectrum.js';

const tones = { 5001: 420, 5002: 1000 };
const [first, second] = Object.values(tones);
// what is said in the pause
const secret = 1800;
let bench;
let a;
let b;
before(async () => {
  bench = await startBench(tones);
  [a, b] = [bench.agents[5001], bench.agents[5002]];
});
afterEach(async () => {
  await a.run('changeTone', first);
  await bench.hangUpAll();
});
after(() => bench?.stop());

/** Where the recording of this call is: by the SIP Call-ID (tests/asterisk/extensions.conf). */
async function fileOf(agent, index) {
  const { id } = await agent.about(index);
  const { sipCallId } = (await bench.kamailio.rpcRows('rtc_json.calls')).find(({ callId }) => callId === id);
  return path.join(bench.asterisk.workdir, 'spool/monitor', `${sipCallId}.wav`);
}

/** How many seconds of a file have each of these tones, and how long it is. */
function contents(file) {
  const wav = readWav(fs.readFileSync(file));
  const list = pieces(wav, [first, second, secret]);
  const seconds = (i) => list.filter((piece) => piece[i] > 0.05).length / 10;
  return { total: wav.seconds, first: seconds(0), second: seconds(1), secret: seconds(2) };
}

const recording = async (agent, index, action, state) => {
  const outcome = await agent.run('recording', index, action);
  assert.equal(outcome.state, state);
  assert.equal(outcome.callId, (await agent.about(index)).id);
  // Asterisk begins and ends it a quarter of a second after it has answered
  await sleep(500);
};

test('start, pause, resume, stop: both sides are in the file, what was said in the pause is not', async () => {
  const [ours] = await talk(a, b);
  const file = await fileOf(a, ours);
  await recording(a, ours, 'start', 'recording');
  await sleep(2500);
  await recording(a, ours, 'pause', 'paused');
  const { size } = fs.statSync(file);
  await a.run('changeTone', secret);
  await sleep(2000);
  assert.equal(fs.statSync(file).size, size, 'the file does not grow in a pause');
  await a.run('changeTone', first);
  await sleep(500);
  await recording(a, ours, 'resume', 'recording');
  await sleep(1500);
  await recording(a, ours, 'stop', 'stopped');
  const after = contents(file);
  await sleep(1000);
  assert.deepEqual(contents(file), after, 'nothing is added after the end');
  note(`in the file: ${JSON.stringify(after)}`);
  // 3 s and 2 s, give or take what the features' digits take
  assert.ok(after.total > 4.2 && after.total < 6.2, JSON.stringify(after));
  assert.ok(after.first > after.total * 0.85 && after.second > after.total * 0.85, JSON.stringify(after));
  assert.equal(after.secret, 0);
  await a.run('hangup', ours);
  await bench.quiet();
  assert.deepEqual(contents(file), after);
});

test('a call that is hung up while it is recorded has its file', async () => {
  const [ours] = await talk(a, b);
  const file = await fileOf(a, ours);
  await recording(a, ours, 'start', 'recording');
  await sleep(1500);
  await a.run('hangup', ours);
  await bench.quiet();
  const { total, first: one, second: other } = contents(file);
  assert.ok(total > 1.5 && total < 4, `${total} s`);
  assert.ok(one > total * 0.8 && other > total * 0.8, `${one}, ${other} of ${total} s`);
});

test('the called side records', async () => {
  const [theirs, ours] = await talk(b, a);
  const file = await fileOf(a, ours);
  assert.notEqual(file, await fileOf(b, theirs));
  await recording(a, ours, 'start', 'recording');
  await sleep(1500);
  await recording(a, ours, 'stop', 'stopped');
  const { total, first: one, second: other } = contents(file);
  assert.ok(total > 1.5 && one > total * 0.8 && other > total * 0.8, JSON.stringify({ total, one, other }));
});

test('on hold the recording goes on: the other party is in it, the own microphone is not', async () => {
  const [ours] = await talk(a, b);
  const file = await fileOf(a, ours);
  await a.run('hold', ours, true);
  await recording(a, ours, 'start', 'recording');
  await sleep(2000);
  await recording(a, ours, 'stop', 'stopped');
  const found = contents(file);
  note(`on hold: ${JSON.stringify(found)}`);
  assert.equal(found.first, 0);
  assert.ok(found.second > 2, JSON.stringify(found));
});

test('what Asterisk cannot record is refused, and the call goes on', async () => {
  const ours = await a.callAndWait('600');
  const files = bench.asterisk.recordings();
  await refused(a, 'recording', { callId: (await a.about(ours)).id, action: 'start' }, 403);
  await sleep(1000);
  assert.deepEqual(bench.asterisk.recordings(), files);
  assert.equal((await a.about(ours)).state, 'established');
});

test('unknown actions and calls are refused', async () => {
  const [ours] = await talk(a, b);
  const { id } = await a.about(ours);
  await refused(a, 'recording', { callId: id, action: 'rewind' }, 400);
  await refused(a, 'recording', { callId: 'nobody', action: 'start' }, 404);
  assert.equal((await a.about(ours)).state, 'established');
});

test('nothing went wrong that nobody saw', () => bench.clean());
