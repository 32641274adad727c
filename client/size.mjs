// Prints the size of the main entry, minified and gzipped, and fails above the limit.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

export const LIMIT = 3000;

/**
 * Gzipped by Node and by gzip, whichever is more: Node 20 brings a zlib of its own, which does better by a dozen bytes.
 * @returns {[minified: number, gzipped: number]}
 */
export function size() {
  const code = readFileSync(new URL('dist/rtc-json.js', import.meta.url));
  return [code.length, Math.max(gzipSync(code, { level: 9 }).length, execFileSync('gzip', ['-9n'], { input: code }).length)];
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const [minified, gzipped] = size();
  console.log(`${minified} ${gzipped}`);
  if (gzipped > LIMIT) {
    console.error(`more than ${LIMIT} bytes`);
    process.exitCode = 1;
  }
}
