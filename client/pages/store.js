// What the browser keeps for the phone: settings for every visit, recent calls of each number. (A browser may forbid it: then
// nothing is kept, and the phone works all the same.)

const SETTINGS = 'rtc-json phone settings';
const MOST = 50;

const key = (dn) => `rtc-json phone history ${dn}`;

/** @param {'localStorage' | 'sessionStorage'} storage */
export function read(storage, name, otherwise) {
  try {
    return JSON.parse(globalThis[storage].getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** @param {'localStorage' | 'sessionStorage'} storage @param {unknown} [value] none: nothing is kept any more */
export function write(storage, name, value) {
  try {
    if (value === undefined) globalThis[storage].removeItem(name);
    else globalThis[storage].setItem(name, JSON.stringify(value));
  } catch { /* forbidden, or full */ }
}

/** @type {{ microphone?: string, speaker?: string, theme?: string, language?: string, silent?: boolean, quiet?: boolean }} */
export const settings = read('localStorage', SETTINGS, {});

export function change(name, value) {
  settings[name] = value;
  write('localStorage', SETTINGS, settings);
}

/** @returns {{ number: string, name: string, direction: 'in' | 'out', at: number, seconds: number, missed: boolean }[]} newest first */
export const history = (dn) => read('localStorage', key(dn), []);

export const addToHistory = (dn, entry) => write('localStorage', key(dn), [entry, ...history(dn)].slice(0, MOST));

export const clearHistory = (dn) => write('localStorage', key(dn), undefined);
