// The worked example of the developer's guide is a patch that fits the source as it is; files and functions that it names are there.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('../../', import.meta.url));
const guide = fs.readFileSync(path.join(top, 'docs/developers-guide.md'), 'utf8');
const patch = [...guide.matchAll(/^```diff\n([\s\S]*?)^```$/gm)].map((match) => match[1]).join('');

/** git with a patch on its standard input; outside of a repository, too. @param {string} text */
const applies = (text) => execFileSync('git', ['apply', '--check', '-C1', '-'], { cwd: top, input: text, stdio: ['pipe', 'ignore', 'pipe'] });

test('the worked example applies', () => {
  assert.equal(patch.match(/^--- a\//gm)?.length, 6);
  applies(patch);
});

test('one that does not fit is seen', () => {
  assert.throws(() => applies(patch.replace('ClientMessage::Mute {', 'ClientMessage::Muted {')), /patch/);
});

test('the way of a message: each function is where the guide says', () => {
  const rows = [...guide.slice(guide.indexOf('## 2.'), guide.indexOf('## 3.')).matchAll(/^\| `(?:\w+::)*(\w+)`.*?\(`([\w/.-]+\.(?:rs|c))`/gm)];
  assert.ok(rows.length >= 4, rows.join('\n'));
  for (const [, name, file] of rows) assert.match(fs.readFileSync(path.join(top, file), 'utf8'), new RegExp(`\\b${name}\\(`), `${name} in ${file}`);
});
