#!/usr/bin/env node
/**
 * JsSIP from npm as one script for pages (it comes as CommonJS modules), which defines the global `JsSIP`.
 *
 *     node scripts/jssip-bundle.mjs DIR     writes DIR/jssip.bundle.js
 */
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const tests = fileURLToPath(new URL('../tests/', import.meta.url));
const { build } = createRequire(path.join(tests, 'package.json'))('esbuild');

/** @param {string} dir */
export const bundleJssip = (dir) => build({
  stdin: { contents: "window.JsSIP = require('jssip')", resolveDir: tests },
  bundle: true, minify: true, platform: 'browser', format: 'iife', outfile: path.join(dir, 'jssip.bundle.js'), logLevel: 'error',
});

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (!process.argv[2]) throw new Error('usage: jssip-bundle.mjs DIR');
  await bundleJssip(process.argv[2]);
}
