// The soft phone on index-custom.html: one call in the foreground, others on hold, and what rings meanwhile.
import { hint, Phone } from '../dist/full.js';

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

const TRANSFER = {
  trying: 'Transferring…',
  ringing: 'Transferring: it rings there…',
  failed: 'The transfer failed. The call goes on.',
};

/** Where the page keeps who was signed in, until it is closed: the client keeps the session itself over a reload. */
const SIGNED_IN = 'rtc-json phone';

const element = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);

/** @type {Phone | undefined} */
let phone;
/** The call in the foreground and the one that rings. */
let current;
let ringing;
let clock;
let noticeFor;
/** Calls whose events the page follows. */
const presented = new WeakSet();

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
    element('answer-label').textContent = current ? 'Hold and answer' : 'Answer';
    element('answer').title = element('answer-label').textContent;
  }

  body.dataset.call = current?.state ?? '';
  if (current) {
    const { number, name } = farSide(current);
    element('peer').textContent = name;
    element('peer-number').textContent = name === number ? '' : number;
    const initial = /\p{L}/u.exec(name)?.[0].toUpperCase();
    element('initial').textContent = initial ?? '';
    element('person').toggleAttribute('hidden', Boolean(initial));
    const { state: stage, held, remoteHold, muted } = current;
    element('call-state').textContent = held ? 'On hold' : remoteHold ? 'The other side has put you on hold' : (CALL_STATE[stage] ?? '');
    element('hangup').disabled = stage === 'ending';
    for (const id of ['mute', 'hold', 'digits', 'transfer']) element(id).disabled = stage !== 'established';
    element('mute').setAttribute('aria-pressed', Boolean(muted));
    element('hold').setAttribute('aria-pressed', Boolean(held));
    showOthers();
  }
  showClock();
  document.title = ringing ? `${ringing.displayName || ringing.from} calls` : 'Phone';
}

/** Who is at the other end: after a transfer somebody else than at first. */
function farSide({ remote, direction, from, to, displayName }) {
  const number = remote?.number ?? (direction === 'in' ? from : to);
  return { number, name: (remote ? remote.displayName : displayName) || number };
}

/** The calls that wait: each can be taken to the foreground, or be connected with the one that is there. */
function showOthers() {
  const waiting = [...(phone?.calls ?? [])].filter((call) => call !== current && call.state === 'established');
  element('others').replaceChildren(...waiting.map((call) => {
    const row = document.createElement('li');
    const text = Object.assign(document.createElement('span'), { textContent: `On hold: ${farSide(call).name}` });
    row.append(text, tool('Switch', () => bringBack(call)), tool('Connect both', () => handOver(call)));
    return row;
  }));
}

function tool(textContent, onClick) {
  const button = Object.assign(document.createElement('button'), { type: 'button', className: 'tool', textContent });
  button.addEventListener('click', onClick);
  return button;
}

/** Shows what went wrong with something that was asked for. */
const complain = (error) => notify(hint(error));

function open(id, button, isOpen) {
  element(id).hidden = !isOpen;
  element(button).setAttribute('aria-expanded', isOpen);
}

function bringBack(call) {
  current?.hold().catch(complain);
  call.hold(false).catch(complain);
  present(call);
}

/** Connects the far side of the call in the foreground with a number, or with that of another call. */
function handOver(to) {
  const call = current;
  open('transfer-form', 'transfer', false);
  call.on('transferProgress', ({ state }) => {
    notify(TRANSFER[state]);
    if (state === 'failed' && current === call && call.held) call.hold(false).catch(complain);
  });
  call.transfer(to).catch(complain);
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
  if (!devices) notify(hint({ code: 0, details: 'TypeError' }), 'microphone');
  else notify(devices.some(({ kind }) => kind === 'audioinput') ? '' : hint({ code: 0, details: 'NotFoundError' }), 'microphone');
}

function signIn(event) {
  event?.preventDefault();
  notify('', noticeFor);
  phone?.close();
  const form = { server: element('server').value, dn: element('dn').value.trim(), name: element('display-name').value.trim() };
  const mine = new Phone({
    url: form.server,
    dn: form.dn,
    password: element('password').value || undefined,
    displayName: form.name || undefined,
  });
  // for scripts that drive the page
  window.phone = phone = mine;
  const ifMine = (handler) => (value) => mine === phone && handler(value);
  mine.on('state', ifMine(show));
  mine.on('call', ifMine(welcome));
  mine.on('error', ifMine((error) => notify(registrationText(error), 'registration')));
  mine.on('message', ifMine(({ from, text }) => notify(`${from}: ${text}`)));
  mine.on('unregistered', ifMine(({ reason }) => reason === 'replaced' && notify('Signed in on another device.', 'registration')));
  mine.register().then(
    ifMine(() => {
      remember(form);
      checkMicrophone();
      focusDial();
    }),
    ifMine((error) => notify(registrationText(error), 'registration')),
  );
}

/** Keeps who is signed in while the page is loaded anew. (A browser may forbid it; then the page asks again.) */
function remember(form) {
  try {
    if (form) sessionStorage.setItem(SIGNED_IN, JSON.stringify(form));
    else sessionStorage.removeItem(SIGNED_IN);
  } catch { /* forbidden */ }
}

function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(SIGNED_IN));
  } catch {
    return undefined;
  }
}

function registrationText({ code, message, details }) {
  // the session is over, and the page has no password (any more) to begin another
  if (details === 'TypeError') return 'Sign in.';
  if (code === 401 || code === 403) return 'The number or the password is wrong.';
  return code ? `Signing in failed: ${message} (${code}).` : 'The server cannot be reached.';
}

/** Puts a call into the foreground. */
function present(call) {
  current = call;
  notify('', noticeFor);
  open('call-keypad', 'digits', false);
  open('transfer-form', 'transfer', false);
  if (presented.has(call)) {
    element('remote').srcObject = call.remoteStream ?? null;
    return show();
  }
  presented.add(call);
  call.on('state', show);
  call.on('callUpdated', show);
  const hear = (stream) => {
    if (current !== call) return;
    const audio = element('remote');
    audio.srcObject = stream;
    // a page that nobody has touched may not play
    audio.play().catch(({ name }) => name === 'NotAllowedError' && notify('Click anywhere to hear the call.', 'sound'));
  };
  if (call.remoteStream) hear(call.remoteStream);
  call.on('stream', hear);
  call.ended.then((end) => {
    if (current !== call) return show();
    current = undefined;
    element('remote').srcObject = null;
    notify('', 'sound');
    // one that waits comes back to the foreground; taking it off hold is the person's business
    const waiting = [...phone.calls].find(({ state }) => state === 'established');
    if (waiting) present(waiting);
    notify(endText(end));
    show();
    focusDial();
  });
  show();
  element('hangup').focus();
}

function endText({ reason, code, error }) {
  if (error?.cause instanceof Error) return hint(error);
  const text = END[reason];
  // a refusal whose reason the server did not class
  return reason === 'call_rejected' && error && code !== 603 ? `The call failed: ${error.message} (${code}).` : text;
}

function dial(event) {
  event.preventDefault();
  const number = element('dial').value.trim();
  if (number && phone && !current) present(phone.call(number));
}

/** A call that has come to be: made here, one that rings, or one of the page before its reload. */
function welcome(call) {
  if (call.state === 'new') return;
  if (call.direction === 'in' && call.state === 'ringing') ring(call);
  else if (!current) present(call);
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
  const before = current;
  if (before?.state === 'established') before.hold().catch(complain);
  else before?.hangup();
  current = undefined;
  nextRinging(call);
  present(call);
  call.answer().catch((error) => {
    if (call.state !== 'ringing') return;
    // without a microphone it goes on ringing
    current = undefined;
    if (before && phone.calls.has(before)) bringBack(before);
    ringing ??= call;
    notify(hint(error));
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
  } else if (document.body.dataset.view === 'call' && event.target.tagName !== 'INPUT' && /^[0-9*#]$/.test(event.key)) {
    if (current?.state === 'established') current.dtmf(event.key).catch(complain);
  } else if (document.body.dataset.view === 'dial' && event.target !== element('dial')) {
    if (/^[0-9*#+]$/.test(event.key)) press(event.key);
    else if (event.key === 'Backspace') erase();
    else return;
    element('dial').focus();
    event.preventDefault();
  }
}

for (const [pad, onKeyPressed] of [['keypad', press], ['call-keypad', (key) => current?.dtmf(key).catch(complain)]]) {
  for (const [key, letters] of Object.entries(KEYS).sort(byKeypad)) element(pad).append(keyButton(key, letters, onKeyPressed));
}

function keyButton(key, letters, onKeyPressed) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'key';
  button.dataset.key = key;
  button.setAttribute('aria-label', KEY_NAMES[key] ?? key);
  button.append(key, Object.assign(document.createElement('small'), { textContent: letters }));
  button.addEventListener('click', () => onKeyPressed(key));
  return button;
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
element('mute').addEventListener('click', () => (current.mute(!current.muted).catch(complain), show()));
element('hold').addEventListener('click', () => (current.hold(!current.held).catch(complain).then(show), show()));
element('digits').addEventListener('click', () => open('call-keypad', 'digits', element('call-keypad').hidden));
element('transfer').addEventListener('click', () => {
  open('transfer-form', 'transfer', element('transfer-form').hidden);
  element('transfer-to').focus();
});
element('transfer-form').addEventListener('submit', (event) => {
  event.preventDefault();
  handOver(element('transfer-to').value.trim());
});
element('answer').addEventListener('click', answer);
element('decline').addEventListener('click', () => ringing?.hangup('declined'));
element('unregister').addEventListener('click', () => (remember(), phone?.state === 'registered' ? phone.unregister() : phone?.close()));
document.addEventListener('keydown', onKey);
document.addEventListener('click', () => {
  const audio = element('remote');
  if (audio.srcObject && audio.paused) audio.play().then(() => notify('', 'sound'));
});
navigator.mediaDevices?.addEventListener('devicechange', () => phone?.state === 'registered' && checkMicrophone());
checkMicrophone();
show();
// a page that was loaded anew goes on where it was
const before = recall();
if (before) {
  for (const [id, value] of [['server', before.server], ['dn', before.dn], ['display-name', before.name]]) element(id).value = value;
  signIn();
}
