/**
 * Whatever a test file started is ended with it: after a failure, an exception, Ctrl-C or a time-out too.
 *
 * Every function given to `onExit` must be synchronous, because it may run inside 'exit'.
 */

/** @type {Set<() => void>} */
const jobs = new Set();

/**
 * Runs `job` when this process ends. The returned function takes it off the list, for those who have cleaned up already.
 * @param {() => void} job
 * @returns {() => void}
 */
export function onExit(job) {
  jobs.add(job);
  return () => jobs.delete(job);
}

function runAll() {
  for (const job of [...jobs].reverse()) {
    jobs.delete(job);
    try { job(); } catch (error) { console.error(`cleanup: ${error}`); }
  }
}

process.on('exit', runAll);
for (const [signal, number] of [['SIGINT', 2], ['SIGTERM', 15], ['SIGHUP', 1]]) {
  process.on(signal, () => { runAll(); process.exit(128 + number); });
}

/** @param {number} ms */
export const sleep = (ms) => new Promise((done) => { setTimeout(done, ms); });

/**
 * Polls until `probe` gives something true, and returns that.
 * @template T
 * @param {() => T | Promise<T>} probe
 * @param {{ ms?: number, every?: number, what?: string }} [options]
 * @returns {Promise<T>}
 */
export async function until(probe, { ms = 5000, every = 20, what = 'the condition' } = {}) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() >= end) throw new Error(`${what}: not within ${ms} ms`);
    await sleep(every);
  }
}

/**
 * Sends a signal; a process (or group, when negative) that is gone already is no error.
 * @param {number} pid
 * @param {NodeJS.Signals | 0} signal
 * @returns {boolean} whether it was there
 */
export function signal(pid, signal) {
  try { process.kill(pid, signal); return true; } catch (error) {
    if (error.code === 'ESRCH') return false;
    throw error;
  }
}
