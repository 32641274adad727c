// notices.mjs: prints the licences of all third-party code that is linked into the module, with their texts.
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

const top = path.join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '..');
const host = /^host: (.*)$/m.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))[1];
const metadata = JSON.parse(execFileSync('cargo', ['metadata', '--format-version=1', '--locked', '--filter-platform', host], {
  cwd: top, encoding: 'utf8', maxBuffer: 1 << 28,
}));
const packages = new Map(metadata.packages.map((each) => [each.id, each]));
const nodes = new Map(metadata.resolve.nodes.map((node) => [node.id, node]));

// what is linked: normal dependencies of the root package, and theirs; neither build scripts' nor tests'
const linked = new Set();
const visit = (id) => {
  if (linked.has(id)) return;
  linked.add(id);
  for (const { pkg, dep_kinds: kinds } of nodes.get(id).deps) if (kinds.some(({ kind }) => kind === null)) visit(pkg);
};
visit(metadata.resolve.root);

const own = new Set(metadata.workspace_members);
const others = [...linked].filter((id) => !own.has(id)).map((id) => packages.get(id))
  .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.version < b.version ? -1 : 1));

/** Text of a licence file, and the packages that bring it. */
const texts = new Map();
const lines = [];
for (const each of others) {
  if (!each.license) throw new Error(`${each.name} ${each.version} names no licence`);
  lines.push(`${each.name} ${each.version}: ${each.license}`);
  const dir = path.dirname(each.manifest_path);
  for (const name of readdirSync(dir).filter((file) => /^(licen[cs]e|copying|notice|unlicense|copyright)/i.test(file)).sort()) {
    let text;
    try { text = readFileSync(path.join(dir, name), 'utf8').replace(/\r/g, '').trim(); } catch { continue; } // a folder
    texts.set(text, [...(texts.get(text) ?? []), `${each.name} ${each.version} (${name})`]);
  }
}
const rule = '-'.repeat(78);
process.stdout.write([
  'rtc_json contains the following third-party code, under the licences named beside it. Where a package offers several, the one',
  'that goes with the GNU General Public License, version 2 or later, is taken.', '', ...lines, '',
  ...[...texts].flatMap(([text, from]) => [rule, ...from, rule, '', text, '']),
].join('\n'));
