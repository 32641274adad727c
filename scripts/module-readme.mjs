// module-readme.mjs: prints the module's README, plain text as Kamailio's own modules have it, made from docs/module.md.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const { marked } = createRequire(new URL('../tests/package.json', import.meta.url))('marked');
const WIDTH = 72;

const escapes = { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'", '&amp;': '&' };

/** Text without its marks; a link that leads out of the page keeps its address. */
function plain(tokens) {
  return tokens.map((token) => {
    if (token.type === 'link' && token.href !== token.text) return `${plain(token.tokens)} (docs/${token.href})`;
    if (token.tokens) return plain(token.tokens);
    return token.text ?? token.raw;
  }).join('').replace(/&(?:lt|gt|quot|amp|#39);/g, (name) => escapes[name]);
}

/** Lines of at most WIDTH, the first behind `first`, the others behind blanks of the same length. */
function fill(text, first) {
  const blank = ' '.repeat(first.length);
  const lines = [];
  let line = first;
  let empty = true;
  for (const word of text.split(/\s+/).filter(Boolean)) {
    if (!empty && line.length + 1 + word.length > WIDTH) { lines.push(line); line = blank; empty = true; }
    line += empty ? word : ` ${word}`;
    empty = false;
  }
  return [...lines, line];
}

function block(token) {
  switch (token.type) {
    case 'heading': return [plain(token.tokens), ...(token.depth < 3 ? ['-'.repeat(plain(token.tokens).length)] : [])];
    case 'paragraph': return fill(plain(token.tokens), '   ');
    case 'code': return token.text.split('\n').map((line) => (line ? `     ${line.replaceAll('\t', '    ')}` : ''));
    case 'list':
      return token.items.flatMap((item, i) => fill(plain(item.tokens), token.ordered ? `   ${i + 1}. ` : '     * '));
    case 'table':
      return token.rows.flatMap((row) => {
        const [name, ...rest] = row.map((cell) => plain(cell.tokens));
        return fill(`${name}: ${rest.filter(Boolean).join('; ')}`, '     * ');
      });
    default: throw new Error(`docs/module.md: the README has no form for a ${token.type}`);
  }
}

/** The README of this text. @param {string} markdown */
export function moduleReadme(markdown) {
  const tokens = marked.lexer(markdown).filter((token) => token.type !== 'space');
  const [title, ...rest] = tokens;
  const contents = rest.filter((token) => token.type === 'heading')
    .map((token) => `${' '.repeat(3 + 3 * (token.depth - 2))}${plain(token.tokens)}`);
  return [
    plain(title.tokens), '', 'Made from docs/module.md by "make docs": change that one.', '', 'Table of Contents', '', ...contents, '',
    ...rest.flatMap((token) => [...block(token), '']),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(moduleReadme(readFileSync(new URL('../docs/module.md', import.meta.url), 'utf8')));
}
