/** Texts between agents, through the dialplan of Asterisk. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { note, refused, sleep, startBench } from './fixture.mjs';

let bench;
let a;
let b;
before(async () => {
  bench = await startBench({ 5001: 420, 5002: 1000 });
  [a, b] = [bench.agents[5001], bench.agents[5002]];
});
after(() => bench?.stop());

const texts = async (agent) => (await agent.got('message')).map(({ from, text }) => [from, text]);

test('texts arrive as they were written, in order', async () => {
  // (Asterisk loses texts over 1024 bytes, and line ends at the end)
  const list = ['Hello', 'Grüße, 你好 🎉', 'two\nlines', 'a\r\nb', '{"type":"hangup","payload":{},"id":"1"}', '\r\nBYE sip:5001@rtc.local SIP/2.0\r\n\r\nx', 'x'.repeat(1000)];
  for (const text of list) {
    const start = performance.now();
    await a.run('message', '5002', text);
    await b.gets('message', (p) => p.text === text, 3000).catch((error) => { throw new Error(`${JSON.stringify(text)}: ${error.message}`); });
    note(`${text.length} characters: there after ${Math.round(performance.now() - start)} ms`);
  }
  assert.deepEqual(await texts(b), list.map((text) => ['5001', text]));
  assert.deepEqual(await texts(a), [], 'the sender gets nothing');
});

test('and back', async () => {
  await b.run('message', '5001', 'Hello yourself');
  await a.gets('message', (p) => p.text === 'Hello yourself');
  assert.deepEqual(await texts(a), [['5002', 'Hello yourself']]);
});

test('both pages of a DN get a text', async () => {
  const second = await bench.open('5002', { tone: 1400 });
  await a.run('message', '5002', 'to all of you');
  for (const page of [b, second]) assert.equal((await page.gets('message', (p) => p.text === 'to all of you')).from, '5001');
  await second.page.close();
});

test('during a call a text goes the same way, and the call goes on', async () => {
  const call = await a.callAndWait('600');
  await a.run('message', '5002', 'while I talk');
  await b.gets('message', (p) => p.text === 'while I talk');
  assert.equal((await a.about(call)).state, 'established');
  await a.run('hangup', call);
  await bench.quiet();
});

test('to a number that Asterisk does not know: error 404; what cannot be sent is refused', async () => {
  await refused(a, 'message', { to: '9999', text: 'x' }, 404);
  for (const bad of [{ to: '5002' }, { to: '', text: 'x' }, { to: '5002\r\nX: y', text: 'x' }]) await refused(a, 'message', bad, 400);
  await sleep(300);
  assert.equal((await texts(b)).filter(([, text]) => text === 'x').length, 0);
});

test('nothing went wrong that nobody saw', () => bench.clean());
