// Each line that the module can write into the log stands in the operator's guide, and no line stands there that it cannot write.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('../../', import.meta.url));
const read = (file) => fs.readFileSync(path.join(top, file), 'utf8');
const sources = (folder, ext) => fs.readdirSync(path.join(top, folder)).filter((name) => name.endsWith(ext)).map((name) => read(`${folder}/${name}`));

/** A format of C or Rust as the guide writes it. */
const shape = (text) => text.replace(/%(?:\.\*)?[a-z]+|(?<!\{)\{[^{}]*\}/g, '...').replaceAll('\\n', '').replaceAll('\\"', '"').replace(/(?:\.\.\.){2,}/g, '...').trim();
/** Only what an error says, behind whatever stands for the rest. */
const bare = (line) => /^[.: ]*$/.test(line);

/** @returns {Set<string>} */
export function logged({ c, rust, store }) {
  const lines = new Set();
  for (const text of c) {
    for (const [, strings] of text.matchAll(/\bLM_(?:ERR|WARN|NOTICE|INFO|CRIT)\(((?:\s*"(?:[^"\\]|\\.)*")+)/g)) {
      lines.add(shape([...strings.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map((match) => match[1]).join('')));
    }
  }
  for (const text of rust) {
    for (const [, line] of text.matchAll(/\.log\(\s*Level::\w+,\s*(?:&format!\(\s*)?"((?:[^"\\]|\\.)*)"/g)) lines.add(shape(line));
  }
  // "DN: ERROR", where the error is one of a record
  for (const [, line] of store.matchAll(/#\[error\("((?:the|a) record (?:is|was) (?:[^"\\]|\\.)*)"\)\]/g)) {
    if (!/in this process/.test(line)) lines.add(`...: ${shape(line)}`);
  }
  // what init returns is put into one line by C
  lines.add('arena_path: ... cannot be used: ...');
  return new Set([...lines].filter((line) => !bare(line)));
}

const source = {
  c: sources('kamailio-module', '.c'),
  rust: sources('crates/ffi/src', '.rs'),
  store: read('crates/store/src/error.rs'),
};
const guide = read('docs/operators-guide.md');
const section = guide.slice(guide.indexOf('## 12. '), guide.indexOf('## 13. '));
const explained = new Set([...section.matchAll(/^\| `(.+?)` \| (?:info|notice|warning|error) \| \S.*\|$/gm)].map((match) => match[1]));

/** A line with a word in place of what differs counts as the same. */
const fits = (known, line) => known.has(line) || [...known].some((k) => new RegExp(`^${k.split('...').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`).test(line));

test('every line of the log is explained', () => {
  const lines = logged(source);
  assert.ok(lines.size > 30, [...lines].join('\n'));
  assert.deepEqual([...lines].filter((line) => !fits(explained, line)), []);
});

test('every line that is explained can be written', () => {
  const lines = logged(source);
  assert.deepEqual([...explained].filter((line) => !fits(lines, line) && ![...lines].some((k) => fits(new Set([line]), k))), []);
});

test('a new line, and one that is gone, are seen', () => {
  const more = logged({ ...source, c: [...source.c, 'LM_ERR("a line of %.*s that nobody"\n" knows\\n", 1);'] });
  assert.deepEqual([...more].filter((line) => !fits(explained, line)), ['a line of ... that nobody knows']);
  const rust = logged({ ...source, rust: [...source.rust, 'host.log(\n Level::Error,\n &format!("{dn}: another {error:?} line"))'] });
  assert.ok([...rust].some((line) => line === '...: another ... line' && !fits(explained, line)));
  const less = logged({ ...source, c: source.c.map((text) => text.replace('cannot register the RPC commands', 'x')) });
  assert.ok(!fits(less, 'cannot register the RPC commands'));
});
