// The soft phone on index-custom.html: one call at a time, and a second one that may come in meanwhile.
import { Phone } from '../dist/rtc-json.js';

/** Port of the server where the address of the page does not say. */
const DEFAULT_PORT = 8444;

const KEYS = { 1: '\u00a0', 2: 'ABC', 3: 'DEF', 4: 'GHI', 5: 'JKL', 6: 'MNO', 7: 'PQRS', 8: 'TUV', 9: 'WXYZ', '*': '', 0: '+', '#': '' };
const KEY_NAMES = { '*': 'star', '#': 'hash' };

const STATUS = {
  closed: () => 'Offline',
  connecting: () => 'Signing in…',
  registered: ({ dn }) => `Signed in as ${dn}`,
  reconnecting: () => 'Connection lost. Reconnecting…',
};

const CALL_STATE = {
  new: 'Opening the microphone…',
  trying: 'Calling…',
  ringing: 'Ringing…',
  early: 'Ringing…',
  queued: 'Waiting in a queue…',
  established: 'Connected',
  ending: 'Hanging up…',
};

const END = {
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
};

const MICROPHONE = {
  NotAllowedError: 'The browser may not use the microphone. Allow it for this page to make calls.',
  NotFoundError: 'No microphone was found. Connect one to make calls.',
  NotReadableError: 'The microphone is in use by another program.',
  // (without a secure origin the browser has no `mediaDevices` at all)
  TypeError: 'The microphone needs a secure page (https).',
};

const element = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);

/** @type {Phone | undefined} */
let phone;
/** The call in the foreground and the one that rings. */
let current;
let ringing;
let clock;
let noticeFor;

/** `ws` or `server` in the page's address: a whole address or only the port. */
function serverAddress() {
  const given = parameters.get('ws') ?? parameters.get('server') ?? `${DEFAULT_PORT}`;
  return /^\d+$/.test(given) ? `wss://${location.hostname || '127.0.0.1'}:${given}/` : given;
}

/** Shows a text until the next one; `topic` lets only the same topic take it away again. */
function notify(text, topic = 'call') {
  if (!text && topic !== noticeFor) return;
  noticeFor = topic;
  element('notice').textContent = text ?? '';
  element('notice').hidden = !text;
}

function show() {
  const { body } = document;
  const state = phone?.state ?? 'closed';
  body.dataset.state = state;
  body.dataset.view = current ? 'call' : state === 'registered' || state === 'reconnecting' ? 'dial' : 'sign-in';
  element('status').textContent = STATUS[state](phone?.registration ?? {});
  element('unregister').hidden = body.dataset.view !== 'dial';
  element('register').disabled = state === 'connecting';

  element('incoming').hidden = !ringing;
  if (ringing) {
    element('incoming-who').textContent = ringing.displayName || ringing.from;
    element('incoming-number').textContent = ringing.displayName ? ringing.from : '';
    element('answer-label').textContent = current ? 'Hang up and answer' : 'Answer';
    element('answer').title = element('answer-label').textContent;
  }

  body.dataset.call = current?.state ?? '';
  if (current) {
    const number = current.direction === 'in' ? current.from : current.to;
    const name = current.displayName || number;
    element('peer').textContent = name;
    element('peer-number').textContent = name === number ? '' : number;
    const initial = /\p{L}/u.exec(name)?.[0].toUpperCase();
    element('initial').textContent = initial ?? '';
    element('person').toggleAttribute('hidden', Boolean(initial));
    element('call-state').textContent = CALL_STATE[current.state] ?? '';
    element('hangup').disabled = current.state === 'ending';
  }
  showClock();
  document.title = ringing ? `${ringing.displayName || ringing.from} calls` : 'Phone';
}

function showClock() {
  const since = current?.answeredAt;
  element('timer').textContent = since ? duration(Math.floor((Date.now() - since) / 1000)) : '';
  if (since) clock ??= setInterval(showClock, 500);
  else clock = void clearInterval(clock);
}

function duration(seconds) {
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60].map((part) => `${part}`.padStart(2, '0'));
  return (seconds >= 3600 ? [Math.floor(seconds / 3600), ...parts] : parts).join(':');
}

/** Tells early that a call would fail for want of a microphone; nothing is asked for. */
async function checkMicrophone() {
  const devices = await navigator.mediaDevices?.enumerateDevices();
  if (!devices) notify(MICROPHONE.TypeError, 'microphone');
  else notify(devices.some(({ kind }) => kind === 'audioinput') ? '' : MICROPHONE.NotFoundError, 'microphone');
}

function signIn(event) {
  event.preventDefault();
  notify('', noticeFor);
  phone?.close();
  const mine = new Phone({
    url: element('server').value,
    dn: element('dn').value.trim(),
    password: element('password').value,
    displayName: element('display-name').value.trim() || undefined,
  });
  // for scripts that drive the page
  window.phone = phone = mine;
  const ifMine = (handler) => (value) => mine === phone && handler(value);
  mine.on('state', ifMine(show));
  mine.on('call', ifMine(ring));
  mine.on('error', ifMine((error) => notify(registrationText(error), 'registration')));
  mine.on('unregistered', ifMine(({ reason }) => reason === 'replaced' && notify('Signed in on another device.', 'registration')));
  mine.register().then(
    ifMine(() => {
      checkMicrophone();
      focusDial();
    }),
    ifMine((error) => notify(registrationText(error), 'registration')),
  );
}

function registrationText({ code, message }) {
  if (code === 401 || code === 403) return 'The number or the password is wrong.';
  return code ? `Signing in failed: ${message} (${code}).` : 'The server cannot be reached.';
}

/** Puts a call into the foreground. */
function present(call) {
  current = call;
  notify('', noticeFor);
  call.on('state', show);
  const hear = (stream) => {
    const audio = element('remote');
    audio.srcObject = stream;
    // a page that nobody has touched may not play
    audio.play().catch(({ name }) => name === 'NotAllowedError' && notify('Click anywhere to hear the call.', 'sound'));
  };
  if (call.remoteStream) hear(call.remoteStream);
  call.on('stream', hear);
  call.ended.then((end) => {
    if (current !== call) return;
    current = undefined;
    element('remote').srcObject = null;
    notify('', 'sound');
    notify(endText(end));
    show();
    focusDial();
  });
  show();
  element('hangup').focus();
}

function endText({ reason, code, error }) {
  if (error?.cause instanceof Error) return MICROPHONE[error.details] ?? error.message;
  const text = END[reason];
  // a refusal whose reason the server did not class
  return reason === 'call_rejected' && error && code !== 603 ? `The call failed: ${error.message} (${code}).` : text;
}

function dial(event) {
  event.preventDefault();
  const number = element('dial').value.trim();
  if (number && phone && !current) present(phone.call(number));
}

function ring(call) {
  // a second one that rings waits behind the first
  ringing ??= call;
  call.ended.then(() => {
    if (ringing === call) nextRinging(call);
    show();
  });
  show();
  if (ringing === call && !current) element('answer').focus();
}

function nextRinging(but) {
  ringing = [...(phone?.calls ?? [])].find((call) => call !== but && call.direction === 'in' && call.state === 'ringing');
}

function answer() {
  const call = ringing;
  current?.hangup();
  current = undefined;
  nextRinging(call);
  present(call);
  call.answer().catch((error) => {
    if (call.state !== 'ringing') return;
    // without a microphone it goes on ringing
    current = undefined;
    ringing ??= call;
    notify(MICROPHONE[error.details] ?? error.message);
    show();
  });
}

function press(key) {
  const field = element('dial');
  // where the cursor is; a field that was never touched has it at the end
  const [from, to] = [field.selectionStart ?? field.value.length, field.selectionEnd ?? field.value.length];
  field.setRangeText(key, from, to, 'end');
}

function erase() {
  const field = element('dial');
  const [from, to] = [field.selectionStart, field.selectionEnd];
  field.setRangeText('', from === to ? Math.max(0, from - 1) : from, to, 'end');
}

/** Ready for the next number; not where that would open a keyboard on the screen. */
function focusDial() {
  if (!current && !ringing && matchMedia('(pointer: fine)').matches) element('dial').focus();
}

/** Digits and Escape work wherever the focus is. */
function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === 'Escape') {
    if (ringing) ringing.hangup('declined');
    else current?.hangup();
  } else if (document.body.dataset.view === 'dial' && event.target !== element('dial')) {
    if (/^[0-9*#+]$/.test(event.key)) press(event.key);
    else if (event.key === 'Backspace') erase();
    else return;
    element('dial').focus();
    event.preventDefault();
  }
}

for (const [key, letters] of Object.entries(KEYS).sort(byKeypad)) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'key';
  button.dataset.key = key;
  button.setAttribute('aria-label', KEY_NAMES[key] ?? key);
  button.append(key, Object.assign(document.createElement('small'), { textContent: letters }));
  button.addEventListener('click', () => press(key));
  element('keypad').append(button);
}

/** 1 to 9, then star, 0, hash; objects list their whole numbers first. */
function byKeypad([a], [b]) {
  const order = '123456789*0#';
  return order.indexOf(a) - order.indexOf(b);
}

element('server').value = serverAddress();
for (const [id, name] of [['dn', 'dn'], ['password', 'password'], ['display-name', 'name']]) {
  element(id).value = parameters.get(name) ?? '';
}
element('sign-in').addEventListener('submit', signIn);
element('sign-in').addEventListener('invalid', ({ target }) => target.closest('details')?.setAttribute('open', ''), true);
element('dialer').addEventListener('submit', dial);
element('erase').addEventListener('click', erase);
element('hangup').addEventListener('click', () => current?.hangup());
element('answer').addEventListener('click', answer);
element('decline').addEventListener('click', () => ringing?.hangup('declined'));
element('unregister').addEventListener('click', () => (phone?.state === 'registered' ? phone.unregister() : phone?.close()));
document.addEventListener('keydown', onKey);
document.addEventListener('click', () => {
  const audio = element('remote');
  if (audio.srcObject && audio.paused) audio.play().then(() => notify('', 'sound'));
});
navigator.mediaDevices?.addEventListener('devicechange', () => phone?.state === 'registered' && checkMicrophone());
// (not `unload`: pages that have it are kept out of the back-forward cache)
window.addEventListener('pagehide', () => phone?.close());
checkMicrophone();
show();
