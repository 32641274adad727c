/**
 * Keeps samples of what clients and servers really say to each other: with RTC_JSON_RECORD=FOLDER, every message that comes by
 * in a test and was taken by the other side ends in FOLDER/client/TYPE.json or FOLDER/server/TYPE.json, a few of each type that
 * differ in their keys.
 */
import fs from 'node:fs';
import path from 'node:path';
import { onExit } from './cleanup.mjs';

const folder = process.env.RTC_JSON_RECORD;
const enough = 6;

/** The keys at every depth and the kinds of their values: two messages of one shape show the same. */
export function shape(value) {
  if (Array.isArray(value)) return value.length ? [shape(value[0])] : [];
  if (value && typeof value === 'object') return Object.fromEntries(Object.keys(value).sort().map((key) => [key, shape(value[key])]));
  return value === null ? 'null' : typeof value;
}

/** @param {{ dir: 'in' | 'out', message?: any }[]} log of one connection */
function samplesOf(log) {
  const messages = log.filter(({ message }) => message && typeof message === 'object');
  const answers = new Map();
  for (const { dir, message } of messages) if (dir === 'in') answers.set(message.id, [...(answers.get(message.id) ?? []), message]);
  return messages.filter(({ dir, message }) => {
    if (dir === 'in') return true;
    const own = answers.get(message.id) ?? [];
    // a candidate has no outcome when all is well
    return own.length ? !own.some((answer) => answer.type === 'error') : message.type === 'iceCandidate';
  });
}

/** Records what this log holds when the process ends. @param {{ dir: 'in' | 'out', message?: any }[]} log */
export function recordLog(log) {
  if (!folder) return;
  onExit(() => {
    for (const { dir, message } of samplesOf(log)) {
      const file = path.join(folder, dir === 'in' ? 'server' : 'client', `${message.type}.json`);
      const known = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : [];
      const shapes = known.map((each) => JSON.stringify(shape(each)));
      if (known.length >= enough || shapes.includes(JSON.stringify(shape(message)))) continue;
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, `${JSON.stringify([...known, message], null, 1)}\n`);
    }
  });
}
