/**
 * Reporter for node:test: one line per test, and the counts into the file that RTC_JSON_TEST_COUNTS names and
 * the names of the failed tests into that of RTC_JSON_TEST_FAILURES, for tests/run.
 * The built-in reporters differ between Node 18 and later ones in what they count.
 */
import fs from 'node:fs';
import path from 'node:path';
import { inspect } from 'node:util';

/** The stack, and what an assertion compared where its own message hides it. */
function describe(error) {
  let text = error?.stack ?? error?.message ?? String(error);
  if (error?.code === 'ERR_ASSERTION' && !error.generatedMessage && 'actual' in error) {
    text += `\n${inspect({ actual: error.actual, expected: error.expected }, { depth: 4 })}`;
  }
  return text;
}

export default async function* reporter(source) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const failures = [];
  for await (const { type, data } of source) {
    if (type === 'test:diagnostic' && data.nesting > 0) yield `# ${data.message}\n`;
    if (type === 'test:stdout' || type === 'test:stderr') yield data.message;
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.details?.type === 'suite' && type === 'test:pass') continue;

    const name = data.name;
    const error = data.details?.error;
    // A suite or file that fails only because of a test in it adds nothing; one that fails by itself (a hook, a crash) counts.
    const byChildren = error?.failureType === 'subtestsFailed';
    // Node 18 reports a file as a test of its own.
    const isFile = path.isAbsolute(name) || /\.test\.m?js$/.test(name);
    if (type === 'test:pass' && isFile) continue;
    if (type === 'test:fail' && byChildren) continue;
    if (type === 'test:fail' && isFile && counts.failed > 0 && error?.failureType === 'testCodeFailure') continue;

    const time = data.details?.duration_ms === undefined ? '' : ` (${Math.round(data.details.duration_ms)} ms)`;
    if (data.skip !== undefined && data.skip !== false) {
      counts.skipped += 1;
      yield `skip ${name}${typeof data.skip === 'string' ? `: ${data.skip}` : ''}\n`;
    } else if (type === 'test:pass') {
      counts.passed += 1;
      yield `ok   ${name}${time}\n`;
    } else {
      counts.failed += 1;
      failures.push(`${name}\n`);
      const cause = error?.cause ?? error;
      const text = describe(cause).replaceAll(/^/gm, '     ');
      yield `FAIL ${name}${time}\n${data.file ? `     in ${data.file}\n` : ''}${text}\n`;
    }
  }
  if (process.env.RTC_JSON_TEST_COUNTS) {
    fs.writeFileSync(process.env.RTC_JSON_TEST_COUNTS, `${counts.passed} ${counts.failed} ${counts.skipped}\n`);
  }
  if (process.env.RTC_JSON_TEST_FAILURES) fs.writeFileSync(process.env.RTC_JSON_TEST_FAILURES, failures.join(''));
}
