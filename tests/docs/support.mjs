/** Runs a text as a configuration through `kamailio -c`. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { kamailioCommand, modulePathList } from '../common/kamailio.mjs';

export const exampleFile = fileURLToPath(new URL('../../kamailio.cfg.example', import.meta.url));
export const example = fs.readFileSync(exampleFile, 'utf8');

/**
 * Fails with Kamailio's words when it takes exception to the config.
 * @param {string} text
 * @param {string[]} defines as after -A: NAME or NAME=VALUE
 */
export function checkConfig(text, defines) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtc-json-docs-'));
  try {
    const file = path.join(dir, 'kamailio.cfg');
    fs.writeFileSync(file, text);
    const [program, ...args] = [...kamailioCommand(), '-c', '-E', '-f', file, '-Y', dir, '-L', modulePathList(),
      // an address that this machine has
      ...['MY_IP=127.0.0.1', ...defines].flatMap((define) => ['-A', define])];
    execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 });
  } catch (error) {
    throw new Error(`kamailio -c ${defines.join(' ')}: ${error.stderr || error.message}`);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}
