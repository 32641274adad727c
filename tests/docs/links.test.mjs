// Whatever a page of the documentation points to is there: files, headings, targets of make.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('../../', import.meta.url));
const pages = ['README.md', 'CHANGELOG.md', 'client/README.md', ...fs.readdirSync(path.join(top, 'docs')).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)];
const text = (page) => fs.readFileSync(path.join(top, page), 'utf8');
const slug = (heading) => heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').trim().replace(/\s/g, '-');

/** Links that lead nowhere. */
function broken(page, content) {
  const found = [];
  for (const [, target] of content.replace(/^```[\s\S]*?^```/gm, '').matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [file, anchor] = target.split('#');
    const place = file ? path.join(path.dirname(page), file) : page;
    if (!fs.existsSync(path.join(top, place))) found.push(target);
    else if (anchor && ![...text(place).matchAll(/^#+ (.*)$/gm)].some(([, heading]) => slug(heading) === anchor)) found.push(target);
  }
  return found;
}

test('links', () => {
  assert.ok(pages.length >= 8);
  for (const page of pages) assert.deepEqual(broken(page, text(page)), [], page);
  assert.deepEqual(broken('README.md', '[a](docs/none.md) [b](docs/module.md#none) [c](docs/module.md#1-overview)'), ['docs/none.md', 'docs/module.md#none']);
});

test('targets of make', () => {
  const known = new Set(execFileSync('make', ['help'], { cwd: top, encoding: 'utf8' }).split('\n').map((line) => line.split(' ')[0]));
  const named = pages.flatMap((page) => [...text(page).matchAll(/(?:`|^ {4}|&& (?:sudo )?)make ((?:[a-z][a-z0-9-]*)(?: [a-z][a-z0-9-]*)*)/gm)].flatMap(([, list]) => list.split(' ').map((name) => [page, name])));
  assert.ok(named.length > 15);
  assert.deepEqual(named.filter(([, name]) => !known.has(name)), []);
});
