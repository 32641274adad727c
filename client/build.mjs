// Bundles every entry of the package as a module, and all of it as a script that defines the global `RtcJson`.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const common = {
  absWorkingDir: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  bundle: true,
  minify: true,
  // names with a leading underscore are internal: they may be shortened like local variables, everywhere to the same
  mangleProps: /^_/,
  sourcemap: true,
  target: 'es2022',
};
const entries = ['rtc-json', 'control', 'digest', 'full', 'hint', 'lean', 'nodes', 'session', 'stats', 'tabs', 'takeover', 'trickle'];

// an entry does not contain the others
const others = {
  name: 'others',
  setup: ({ onResolve }) => onResolve({ filter: new RegExp(`^\\./(${entries.join('|')})\\.js$`) }, ({ path }) => ({ path, external: true })),
};
const { mangleCache } = await build({
  ...common,
  format: 'esm',
  outdir: 'dist',
  entryPoints: entries.map((name) => `src/${name}.ts`),
  plugins: [others],
  mangleCache: {},
});
await build({ ...common, format: 'iife', globalName: 'RtcJson', entryPoints: ['src/full.ts'], outfile: 'dist/rtc-json.global.js', mangleCache });

for (const name of [...entries, 'rtc-json.global']) {
  const code = readFileSync(new URL(`dist/${name}.js`, import.meta.url));
  console.log(`${name}.js: ${code.length} B minified, ${gzipSync(code, { level: 9 }).length} B gzip`);
}
