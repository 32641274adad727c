// What the phone says, in each of its languages. A text with something to fill in is a function.
import { hint } from '../dist/full.js';

const en = {
  phone: 'Phone',
  language: 'Language',
  offline: 'Offline',
  connecting: 'Signing in…',
  registered: (dn) => `Signed in as ${dn}`,
  reconnecting: 'Connection lost. Reconnecting…',
  signIn: 'Sign in',
  signOut: 'Sign out',
  number: 'Number',
  password: 'Password',
  yourName: 'Your name (optional)',
  server: 'Server',
  serverAddress: 'Server address',
  signInAgain: 'Sign in.',
  wrongPassword: 'The number or the password is wrong.',
  signInFailed: (message, code) => `Signing in failed: ${message} (${code}).`,
  unreachable: 'The server cannot be reached.',
  elsewhere: 'Signed in on another device.',
  draining: 'This server takes no new calls. Sign out and in again to reach another one.',

  numberToCall: 'Number to call',
  enterNumber: 'Enter a number',
  allowed: 'Letters, digits and . _ + * # -',
  erase: 'Erase the last digit',
  keypad: 'Keypad',
  star: 'star',
  hash: 'hash',
  call: 'Call',
  callLabel: (name) => `Call ${name}`,

  incomingCall: 'Incoming call',
  calls: (name) => `${name} calls`,
  decline: 'Decline',
  answer: 'Answer',
  holdAndAnswer: 'Hold and answer',

  new: 'Opening the microphone…',
  trying: 'Calling…',
  ringing: 'Ringing…',
  early: 'Ringing…',
  queued: 'Waiting in a queue…',
  established: 'Connected',
  ending: 'Hanging up…',
  onHold: 'On hold',
  heldByOther: 'The other side has put you on hold',
  inTheCall: 'In the call',
  duration: 'Duration of the call',
  sentDigits: 'Digits sent',
  mute: 'Mute',
  hold: 'Hold',
  transfer: 'Transfer',
  record: 'Record',
  add: 'Add call',
  transferTo: 'Transfer to',
  addNumber: 'Call as well',
  transferNow: 'Transfer now',
  askFirst: 'Ask first',
  hangUp: 'Hang up',
  otherCalls: 'Other calls',
  waits: (name) => `On hold: ${name}`,
  switch: 'Switch',
  connectBoth: 'Connect both',
  conference: 'Conference',
  transferring: 'Transferring…',
  transferRings: 'Transferring: it rings there…',
  transferFailed: 'The transfer failed. The call goes on.',
  conferenceJoining: 'The conference is being set up…',
  conferenceActive: 'You are in a conference.',
  conferenceFailed: 'The conference could not be set up.',
  recording: 'Recording',
  recordingPaused: 'Recording paused',
  pause: 'Pause',
  resume: 'Continue',
  clickToHear: 'Click anywhere to hear the call.',

  levelOut: 'Your voice',
  levelIn: 'The other side',
  quality: 'Quality',
  quality4: 'very good',
  quality3: 'good',
  quality2: 'fair',
  quality1: 'poor',
  quality0: 'no sound arrives',
  qualityDetails: (mos, rtt, jitter, loss) => `MOS ${mos}, round trip ${rtt} ms, jitter ${jitter} ms, loss ${loss} %`,

  caller: 'Caller',
  forwardedBy: 'Forwarded by',
  lastSpoke: 'Last call',
  recent: 'Recent calls',
  noRecent: 'No calls yet.',
  clear: 'Clear',
  in: 'incoming',
  out: 'outgoing',
  missed: 'missed',

  settings: 'Settings',
  microphone: 'Microphone',
  speaker: 'Speaker',
  systemDefault: 'System default',
  device: (n) => `Device ${n}`,
  test: 'Test',
  ringtone: 'Ring aloud',
  notifications: 'Notify me when the page is in the background',
  notificationsBlocked: 'The browser blocks notifications for this page.',
  theme: 'Appearance',
  themeSystem: 'System',
  themeLight: 'Light',
  themeDark: 'Dark',
  toggleTheme: 'Switch between light and dark',
  done: 'Done',

  user_busy: 'The line is busy.',
  no_answer: 'Nobody answered.',
  call_rejected: 'The call was declined.',
  answered_elsewhere: 'Answered on another device.',
  unallocated_number: 'This number does not exist.',
  media_error: 'The sound could not be connected.',
  network_error: 'The connection was lost.',
  timeout: 'The call timed out.',
  not_acceptable: 'The other side could not take the call.',
  service_unavailable: 'The service is not available. Try again later.',
  session_expired: 'The session has expired.',
  internal_error: 'The server had a fault.',
  failed: (message, code) => `The call failed: ${message} (${code}).`,
};

/** @type {typeof en} */
const de = {
  phone: 'Telefon',
  language: 'Sprache',
  offline: 'Offline',
  connecting: 'Anmeldung läuft…',
  registered: (dn) => `Angemeldet als ${dn}`,
  reconnecting: 'Verbindung verloren. Neuer Versuch…',
  signIn: 'Anmelden',
  signOut: 'Abmelden',
  number: 'Nummer',
  password: 'Passwort',
  yourName: 'Ihr Name (freiwillig)',
  server: 'Server',
  serverAddress: 'Adresse des Servers',
  signInAgain: 'Bitte anmelden.',
  wrongPassword: 'Nummer oder Passwort ist falsch.',
  signInFailed: (message, code) => `Die Anmeldung ist fehlgeschlagen: ${message} (${code}).`,
  unreachable: 'Der Server ist nicht erreichbar.',
  elsewhere: 'Auf einem anderen Gerät angemeldet.',
  draining: 'Dieser Server nimmt keine neuen Gespräche an. Wer sich ab- und neu anmeldet, kommt zu einem anderen.',

  numberToCall: 'Zielnummer',
  enterNumber: 'Nummer eingeben',
  allowed: 'Buchstaben, Ziffern und . _ + * # -',
  erase: 'Letzte Ziffer löschen',
  keypad: 'Tasten',
  star: 'Stern',
  hash: 'Raute',
  call: 'Anrufen',
  callLabel: (name) => `${name} anrufen`,

  incomingCall: 'Eingehender Anruf',
  calls: (name) => `${name} ruft an`,
  decline: 'Ablehnen',
  answer: 'Annehmen',
  holdAndAnswer: 'Halten und annehmen',

  new: 'Mikrofon wird geöffnet…',
  trying: 'Verbindung wird aufgebaut…',
  ringing: 'Es klingelt…',
  early: 'Es klingelt…',
  queued: 'In der Warteschlange…',
  established: 'Verbunden',
  ending: 'Wird beendet…',
  onHold: 'Gehalten',
  heldByOther: 'Die Gegenseite hält das Gespräch',
  inTheCall: 'Im Gespräch',
  duration: 'Dauer des Gesprächs',
  sentDigits: 'Gesendete Ziffern',
  mute: 'Stumm',
  hold: 'Halten',
  transfer: 'Weiterleiten',
  record: 'Aufnehmen',
  add: 'Dazuholen',
  transferTo: 'Weiterleiten an',
  addNumber: 'Außerdem anrufen',
  transferNow: 'Sofort weiterleiten',
  askFirst: 'Erst fragen',
  hangUp: 'Auflegen',
  otherCalls: 'Weitere Gespräche',
  waits: (name) => `Gehalten: ${name}`,
  switch: 'Wechseln',
  connectBoth: 'Verbinden',
  conference: 'Konferenz',
  transferring: 'Wird weitergeleitet…',
  transferRings: 'Wird weitergeleitet: dort klingelt es…',
  transferFailed: 'Die Weiterleitung ist fehlgeschlagen. Das Gespräch geht weiter.',
  conferenceJoining: 'Die Konferenz wird aufgebaut…',
  conferenceActive: 'Sie sind in einer Konferenz.',
  conferenceFailed: 'Die Konferenz kam nicht zustande.',
  recording: 'Aufnahme läuft',
  recordingPaused: 'Aufnahme angehalten',
  pause: 'Anhalten',
  resume: 'Fortsetzen',
  clickToHear: 'Klicken Sie irgendwohin, um das Gespräch zu hören.',

  levelOut: 'Ihre Stimme',
  levelIn: 'Gegenseite',
  quality: 'Qualität',
  quality4: 'sehr gut',
  quality3: 'gut',
  quality2: 'mäßig',
  quality1: 'schlecht',
  quality0: 'es kommt kein Ton an',
  qualityDetails: (mos, rtt, jitter, loss) => `MOS ${mos}, Laufzeit ${rtt} ms, Jitter ${jitter} ms, Verlust ${loss} %`,

  caller: 'Anrufer',
  forwardedBy: 'Weitergeleitet von',
  lastSpoke: 'Letzter Anruf',
  recent: 'Letzte Anrufe',
  noRecent: 'Noch keine Anrufe.',
  clear: 'Leeren',
  in: 'eingehend',
  out: 'ausgehend',
  missed: 'verpasst',

  settings: 'Einstellungen',
  microphone: 'Mikrofon',
  speaker: 'Lautsprecher',
  systemDefault: 'Standard des Systems',
  device: (n) => `Gerät ${n}`,
  test: 'Testen',
  ringtone: 'Laut klingeln',
  notifications: 'Benachrichtigen, wenn die Seite im Hintergrund ist',
  notificationsBlocked: 'Der Browser verbietet dieser Seite Benachrichtigungen.',
  theme: 'Darstellung',
  themeSystem: 'System',
  themeLight: 'Hell',
  themeDark: 'Dunkel',
  toggleTheme: 'Zwischen hell und dunkel wechseln',
  done: 'Fertig',

  user_busy: 'Der Anschluss ist besetzt.',
  no_answer: 'Es hat niemand abgenommen.',
  call_rejected: 'Der Anruf wurde abgelehnt.',
  answered_elsewhere: 'Auf einem anderen Gerät angenommen.',
  unallocated_number: 'Diese Nummer gibt es nicht.',
  media_error: 'Der Ton ließ sich nicht verbinden.',
  network_error: 'Die Verbindung ging verloren.',
  timeout: 'Der Anruf dauerte zu lange.',
  not_acceptable: 'Die Gegenseite konnte den Anruf nicht annehmen.',
  service_unavailable: 'Der Dienst ist nicht verfügbar. Versuchen Sie es später.',
  session_expired: 'Die Sitzung ist abgelaufen.',
  internal_error: 'Der Server hatte einen Fehler.',
  failed: (message, code) => `Der Anruf ist fehlgeschlagen: ${message} (${code}).`,
};

/** What a person can do about an error, where the library's own (English) words are not the page's. */
const HINTS_DE = {
  NotAllowedError: 'Der Browser darf das Mikrofon nicht benutzen: Erlauben Sie es dieser Seite.',
  NotFoundError: 'Es gibt kein Mikrofon: Schließen Sie eines an.',
  NotReadableError: 'Ein anderes Programm hat das Mikrofon: Schließen Sie es.',
  OverconstrainedError: 'Das gewählte Mikrofon fehlt: Wählen Sie ein anderes.',
  TypeError: 'Das Mikrofon braucht eine sichere Seite: Öffnen Sie sie mit https.',
  401: 'Melden Sie sich an.',
  403: 'Das ist nicht erlaubt.',
  404: 'Diese Nummer oder dieses Gespräch gibt es nicht.',
  408: 'Es hat niemand abgenommen: Versuchen Sie es später.',
  429: 'Zu viel auf einmal: Warten Sie ab, was noch läuft.',
  480: 'Die Gegenseite ist nicht erreichbar: Versuchen Sie es später.',
  481: 'Das Gespräch ist beendet.',
  484: 'Die Nummer ist unvollständig.',
  486: 'Der Anschluss ist besetzt.',
  488: 'Die Gegenseite kann diesen Ton nicht annehmen.',
  491: 'Die Gegenseite ändert gerade das Gespräch: Versuchen Sie es noch einmal.',
  503: 'Der Server ist überlastet oder startet neu: Versuchen Sie es später.',
  603: 'Der Anruf wurde abgelehnt.',
};

const LANGUAGES = { en, de };

let language = 'en';

/** @param {string} [wanted] `en` or `de`; anything else: as the browser has it */
export function setLanguage(wanted) {
  language = wanted in LANGUAGES ? wanted : /^de\b/.test(navigator.language) ? 'de' : 'en';
  document.documentElement.lang = language;
  // in the page: what an element says, and what names it
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = text(element.dataset.text);
  for (const [key, attribute] of [['label', 'aria-label'], ['hint', 'placeholder'], ['title', 'title']]) {
    for (const element of document.querySelectorAll(`[data-${key}]`)) element.setAttribute(attribute, text(element.dataset[key]));
  }
}

/** @param {keyof typeof en} key */
export function text(key, ...values) {
  const found = LANGUAGES[language][key];
  return typeof found === 'function' ? found(...values) : found;
}

export const knows = (key) => Object.hasOwn(en, key);

/** What a person can do about an error. */
export const advice = (error) => (language === 'de' && HINTS_DE[error.code || error.details]) || hint(error);

/** @param {number} at milliseconds since 1970 */
export function moment(at) {
  const today = new Date(at).toDateString() === new Date().toDateString();
  return new Intl.DateTimeFormat(language, today ? { timeStyle: 'short' } : { dateStyle: 'short', timeStyle: 'short' }).format(at);
}

/** @param {number} value with `digits` after the point */
export const decimal = (value, digits) => value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
