/** Programs in Python whose packages scripts/install-deps.sh puts into a folder of the tests. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const bin = fileURLToPath(new URL('../python/.venv/bin/', import.meta.url));

/** Runs a command of that folder. @returns {Promise<{ status: number, out: string }>} out: both of its streams */
export function python(command, args, { input = '', ms = 60_000, cwd, env = {} } = {}) {
  return new Promise((done, fail) => {
    const child = execFile(path.join(bin, command), args, { timeout: ms, maxBuffer: 1 << 26, cwd, env: { ...process.env, ...env } }, (error, out, err) => {
      if (error && typeof error.code !== 'number') fail(new Error(`${command}: ${error.message}\n${out}\n${err}`));
      else done({ status: error ? error.code : 0, out: out + err });
    });
    child.stdin.end(input);
  });
}

/** Runs that text as a program and reads the JSON that it prints. */
export async function pythonJson(program, input) {
  const { status, out } = await python('python', ['-c', program], { input });
  if (status !== 0) throw new Error(out);
  return JSON.parse(out);
}
