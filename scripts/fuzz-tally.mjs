#!/usr/bin/env node
/** fuzz-tally.mjs FILE TARGET fast|address EXECUTIONS SECONDS EDGES: adds a run to the table that counts all of them. */
import fs from 'node:fs';

const [file, target, kind, ...numbers] = process.argv.slice(2);
const [runs, seconds, edges] = numbers.map(Number);
if (!file || !target || !['fast', 'address'].includes(kind) || ![runs, seconds, edges].every(Number.isSafeInteger)) {
  console.error('fuzz-tally.mjs FILE TARGET fast|address EXECUTIONS SECONDS EDGES');
  process.exit(2);
}

const head = `# Executions of the fuzz targets

Written by \`make fuzz\`, which adds its own. \`fast\`: short inputs, no sanitizer; \`address\`: inputs of any length under
AddressSanitizer. The hours are processor time. Edges: the most that one process saw
without the sanitizer, whose programs have others.

`;
const columns = ['target', 'fast', 'its hours', 'address', 'its hours', 'together', 'edges'];
const rows = new Map();
if (fs.existsSync(file)) {
  for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
    const [, name, ...cells] = line.split('|').map((cell) => cell.trim());
    const values = cells.map((cell) => Number(cell.replaceAll(',', '')));
    if (/^[a-z]+$/.test(name ?? '') && name !== 'target') {
      rows.set(name, { fast: [values[0], values[1] * 3600], address: [values[2], values[3] * 3600], edges: values[5] });
    }
  }
}
const row = rows.get(target) ?? { fast: [0, 0], address: [0, 0], edges: 0 };
row[kind] = [row[kind][0] + runs, row[kind][1] + seconds];
if (kind === 'fast') row.edges = Math.max(row.edges, edges);
rows.set(target, row);

const number = (n) => n.toLocaleString('en-US');
const hours = (s) => (s / 3600).toFixed(3);
const table = [columns, columns.map((c) => (c === 'target' ? '---' : '---:')), ...[...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, r]) => [
  name, number(r.fast[0]), hours(r.fast[1]), number(r.address[0]), hours(r.address[1]), number(r.fast[0] + r.address[0]), number(r.edges)])];
fs.writeFileSync(file, head + table.map((cells) => `| ${cells.join(' | ')} |`).join('\n') + '\n');
