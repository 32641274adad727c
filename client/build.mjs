// Bundles src/rtc-json.ts twice: as a module, and as a script that defines the global `RtcJson`.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const common = {
  absWorkingDir: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  entryPoints: ['src/rtc-json.ts'],
  bundle: true,
  minify: true,
  // names with a leading underscore are internal: they may be shortened like local variables
  mangleProps: /^_/,
  sourcemap: true,
  target: 'es2022',
};
const outputs = [
  { format: 'esm', outfile: 'dist/rtc-json.js' },
  { format: 'iife', globalName: 'RtcJson', outfile: 'dist/rtc-json.global.js' },
];
for (const output of outputs) {
  await build({ ...common, ...output });
  const code = readFileSync(new URL(output.outfile, import.meta.url));
  console.log(`${output.outfile}: ${code.length} B minified, ${gzipSync(code, { level: 9 }).length} B gzip`);
}
