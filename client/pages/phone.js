// The soft phone on index-custom.html: one call in the foreground, others on hold, and what rings meanwhile.
import { Phone, shareMicrophone } from '../dist/full.js';
import { serverAddress } from './address.js';
import { askToNotify, microphone, notifyOutside, setUpSettings } from './devices.js';
import { audioContext, meter, play, playKey } from './sounds.js';
import { addToHistory, clearHistory, history, read, settings, write } from './store.js';
import { advice, decimal, knows, moment, text } from './texts.js';

const KEYS = { 1: '\u00a0', 2: 'ABC', 3: 'DEF', 4: 'GHI', 5: 'JKL', 6: 'MNO', 7: 'PQRS', 8: 'TUV', 9: 'WXYZ', '*': '', 0: '+', '#': '' };
const KEY_NAMES = { '*': 'star', '#': 'hash' };

const TRANSFER = { trying: 'transferring', ringing: 'transferRings', failed: 'transferFailed' };
const CONFERENCE = { joining: 'conferenceJoining', active: 'conferenceActive', failed: 'conferenceFailed' };

/** What opens below the tools of a call, by the button that opens it. */
const DRAWERS = { digits: 'call-keypad', transfer: 'transfer-form', add: 'add-form' };

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
/** Is the SIP server behind ours silent? */
let networkSilent = false;
/** Calls whose events the page follows. */
const presented = new WeakSet();
/** What is recorded, and which digits were sent, by call. */
const recordings = new WeakMap();
const sentDigits = new WeakMap();
/** How the call in the foreground sounds, and what measures it. */
let quality;
let measured;
let endMeasuring;
let notification;

/** Shows a text until the next one; `topic` lets only the same topic take it away again. */
function notify(text, topic = 'call') {
  if (!text && topic !== noticeFor) return;
  noticeFor = topic;
  element('notice').textContent = text ?? '';
  element('notice').hidden = !text;
}

function setNetworkSilent(silent) {
  networkSilent = silent;
  notify(silent ? text('networkSilentAdvice') : undefined, 'network');
  show();
}

function show() {
  const { body } = document;
  const state = phone?.state ?? 'closed';
  body.dataset.state = state;
  const silent = networkSilent && state === 'registered';
  body.dataset.network = silent ? 'silent' : '';
  body.dataset.view = current ? 'call' : state === 'registered' || state === 'reconnecting' ? 'dial' : 'sign-in';
  element('status').textContent = text(state === 'closed' ? 'offline' : silent ? 'networkSilent' : state, phone?.registration?.dn);
  element('unregister').hidden = body.dataset.view !== 'dial';
  element('register').disabled = state === 'connecting';

  element('incoming').hidden = !ringing;
  if (ringing) {
    element('incoming-who').textContent = ringing.displayName || ringing.from;
    element('incoming-number').textContent = ringing.displayName ? ringing.from : '';
    element('answer-label').textContent = text(current ? 'holdAndAnswer' : 'answer');
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
    element('call-state').textContent = held ? text('onHold') : remoteHold ? text('heldByOther') : knows(stage) ? text(stage) : '';
    element('hangup').disabled = stage === 'ending';
    for (const id of ['mute', 'hold', 'digits', 'transfer', 'record', 'add']) element(id).disabled = stage !== 'established';
    element('mute').setAttribute('aria-pressed', Boolean(muted));
    element('hold').setAttribute('aria-pressed', Boolean(held));
    element('sent').textContent = sentDigits.get(current) ?? '';
    showRecording();
    showOthers();
  }
  showClock();
  showCaller();
  showHistory();
  measure();
  play(tone());
  document.title = ringing ? text('calls', ringing.displayName || ringing.from) : text('phone');
}

/** Which tone belongs to what goes on. */
function tone() {
  if (ringing) return settings.silent ? undefined : current ? 'waiting' : 'ring';
  // (with `early` the far side sends its own)
  return current?.direction === 'out' && current.state === 'ringing' ? 'ringback' : undefined;
}

function showRecording() {
  const state = recordings.get(current);
  const running = state === 'recording' || state === 'paused';
  element('record').setAttribute('aria-pressed', running);
  element('recording-line').hidden = !running;
  element('recording-line').dataset.recording = state ?? '';
  element('recording-text').textContent = running ? text(state === 'paused' ? 'recordingPaused' : 'recording') : '';
  element('pause-recording').textContent = text(state === 'paused' ? 'resume' : 'pause');
}

function record(action) {
  const call = current;
  call.recording(action).then(({ state }) => {
    recordings.set(call, state);
    show();
  }, complain);
}

/** What is known of the far side: the header fields that the server lets through, who forwarded, when one spoke last. */
function showCaller() {
  const call = ringing ?? current;
  // (who asserts what identity is in the name and the number already)
  const told = Object.entries(call?.headers ?? {}).filter(([name]) => !/^P-(Asserted|Preferred)-Identity$/i.test(name));
  const rows = told.map(([name, value]) => [name.replace(/^X-/i, '').replaceAll('-', ' '), value]);
  if (call?.diversion) rows.unshift([text('forwardedBy'), call.diversion]);
  const earlier = call && recent().find(({ number }) => number === farSide(call).number);
  if (earlier) rows.push([text('lastSpoke'), moment(earlier.at)]);
  element('caller').hidden = !rows.length;
  element('caller-data').replaceChildren(...rows.flatMap(([name, value]) => [make('dt', { textContent: name }), make('dd', { textContent: value })]));
}

const recent = () => history(phone?.registration?.dn);

let shownHistory;
function showHistory() {
  const list = recent();
  element('no-recent').hidden = list.length > 0;
  element('clear-history').hidden = !list.length;
  // (its buttons keep the focus as long as nothing has changed)
  const state = JSON.stringify([list, document.documentElement.lang]);
  if (state === shownHistory) return;
  shownHistory = state;
  element('history').replaceChildren(...list.map(({ number, name, direction, at, seconds, missed }) => {
    const kind = text(missed ? 'missed' : direction);
    const button = make('button', { type: 'button', className: missed ? 'missed' : '', title: text('callLabel', number) });
    const details = [name === number ? '' : number, kind, seconds ? duration(seconds) : ''].filter(Boolean).join(' · ');
    button.append(icon(direction), make('strong', { textContent: name }), ' ', make('time', { textContent: moment(at), dateTime: new Date(at).toISOString() }), ' ',
      make('small', { textContent: details }));
    button.addEventListener('click', () => callNumber(number));
    const row = make('li');
    row.append(button);
    return row;
  }));
}

/** Keeps a call that is over. */
function remember(call, { reason }) {
  const { number, name } = farSide(call);
  if (!number) return;
  const { direction, answeredAt } = call;
  const refused = call.refused || reason === 'answered_elsewhere';
  addToHistory(phone.registration?.dn, {
    number, name, direction,
    at: answeredAt ?? Date.now(),
    seconds: answeredAt ? Math.round((Date.now() - answeredAt) / 1000) : 0,
    missed: direction === 'in' && !answeredAt && !refused,
  });
}

function make(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#icon-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  return svg;
}

/** Measures the call in the foreground as long as there is sound in it: quality every two seconds, levels all the time. */
function measure() {
  const call = current?.state === 'established' && current.remoteStream ? current : undefined;
  element('sound').hidden = !call;
  const [sender] = call?.pc.getSenders() ?? [];
  const tracks = call && `${call.id} ${call.remoteStream.id} ${sender?.track?.id}`;
  if (tracks === measured) return;
  measured = tracks;
  endMeasuring?.();
  endMeasuring = undefined;
  quality = undefined;
  showQuality();
  if (!call) return;
  const ends = [meter(element('level-in'), call.remoteStream)];
  if (sender?.track) ends.push(meter(element('level-out'), new MediaStream([sender.track])));
  let packets = 0;
  const timer = setInterval(async () => {
    const now = await call.stats().catch(() => undefined);
    if (tracks !== measured) return;
    quality = now && { ...now, silent: now.packetsReceived === packets };
    packets = now?.packetsReceived ?? 0;
    showQuality();
    // (another microphone has taken the place of this one)
    measure();
  }, 2000);
  endMeasuring = () => {
    clearInterval(timer);
    for (const end of ends) end();
  };
}

/** Four bars, in the steps of a mean opinion score that people give a telephone (ITU-T G.107, annex B). */
function showQuality() {
  // (who waits on hold hears nothing, and that is as it should be)
  const silent = quality?.silent && !current?.held && !current?.remoteHold;
  const grade = !quality ? '' : silent ? 0 : quality.mos >= 4.03 ? 4 : quality.mos >= 3.6 ? 3 : quality.mos >= 3.1 ? 2 : 1;
  const words = quality ? text(`quality${grade}`) : '';
  const { mos = 0, roundTripTime = 0, jitter = 0, loss = 0 } = quality ?? {};
  element('quality').dataset.grade = grade;
  element('quality').ariaLabel = `${text('quality')}: ${words || '–'}`;
  element('quality-text').textContent = words && grade ? `${words} · ${decimal(mos, 1)}` : words;
  element('sound').title = quality
    ? text('qualityDetails', decimal(mos, 1), decimal(roundTripTime * 1000, 0), decimal(jitter * 1000, 0), decimal(loss * 100, 1)) : '';
}

/** Who is at the other end: after a transfer somebody else than at first. */
function farSide({ remote, direction, from, to, displayName }) {
  const number = remote?.number ?? (direction === 'in' ? from : to);
  const told = remote ? remote.displayName : displayName;
  // (who is called tells no name, but may have called before)
  return { number, name: told || recent().find((entry) => entry.number === number && entry.name !== number)?.name || number };
}

/** The calls that wait: each can be taken to the foreground, or be connected with the one that is there. */
function showOthers() {
  const waiting = [...(phone?.calls ?? [])].filter((call) => call !== current && call.state === 'established');
  element('others').replaceChildren(...waiting.map((call) => {
    const row = make('li', { textContent: text('waits', farSide(call).name) });
    const actions = make('div', { className: 'actions' });
    actions.append(action('switch', () => bringBack(call)), action('connectBoth', () => handOver(call)), action('conference', () => confer(call)));
    row.append(actions);
    return row;
  }));
}

function action(name, onClick) {
  const button = make('button', { type: 'button', className: 'text', textContent: text(name) });
  button.addEventListener('click', onClick);
  return button;
}

/** Shows what went wrong with something that was asked for. */
const complain = (error) => notify(advice(error));

/** Opens one of the drawers of a call, or none. @param {keyof DRAWERS} [name] */
function open(name) {
  for (const [button, drawer] of Object.entries(DRAWERS)) {
    element(drawer).hidden = button !== name;
    element(button).setAttribute('aria-expanded', button === name);
  }
  if (name) element(DRAWERS[name]).querySelector('input, button').focus();
}

const isOpen = () => Object.values(DRAWERS).some((drawer) => !element(drawer).hidden);

function bringBack(call) {
  current?.hold().catch(complain);
  call.hold(false).catch(complain);
  present(call);
}

/** Connects the far side of the call in the foreground with a number, or with that of another call. */
function handOver(to) {
  const call = current;
  open();
  call.on('transferProgress', ({ state }) => {
    if (TRANSFER[state]) notify(text(TRANSFER[state]));
    if (state === 'failed' && current === call && call.held) call.hold(false).catch(complain);
  });
  call.transfer(to).catch(complain);
}

function confer(other) {
  phone.conference([current, other]).catch(complain);
}

/** One more call: the one in the foreground waits meanwhile. */
function callNumber(number) {
  if (!number || phone?.state !== 'registered') return;
  // (one call at a time is set up; two wait for nobody)
  if (current && current.state !== 'established') return;
  if (current && !current.held) current.hold().catch(complain);
  current = undefined;
  present(phone.call(number));
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
  if (!devices) notify(advice({ code: 0, details: 'TypeError' }), 'microphone');
  else notify(devices.some(({ kind }) => kind === 'audioinput') ? '' : advice({ code: 0, details: 'NotFoundError' }), 'microphone');
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
    audio: microphone,
  });
  // (the browser lets a page sound and notify only after somebody has touched it)
  if (event) {
    audioContext();
    askToNotify().catch(() => {});
  }
  // (a page that is not secure has no locks, and no microphone either)
  if (navigator.locks) shareMicrophone(mine);
  // for scripts that drive the page
  window.phone = phone = mine;
  const ifMine = (handler) => (value) => mine === phone && handler(value);
  mine.on('state', ifMine(() => {
    // (where it is still so, the server says it again)
    setNetworkSilent(false);
  }));
  mine.on('call', ifMine(welcome));
  mine.on('error', ifMine((error) => notify(registrationText(error), 'registration')));
  mine.on('message', ifMine((message) => notify(`${message.from}: ${message.text}`)));
  mine.on('unregistered', ifMine(({ reason }) => reason === 'replaced' && notify(text('elsewhere'), 'registration')));
  mine.on('notice', ifMine(({ reason }) => {
    if (reason === 'draining') return notify(text('draining'), 'server');
    setNetworkSilent(reason === 'unreachable');
  }));
  mine.on('conferenceUpdated', ifMine(({ state }) => CONFERENCE[state] && notify(text(CONFERENCE[state]), 'conference')));
  mine.register().then(
    ifMine(() => {
      write('sessionStorage', SIGNED_IN, form);
      checkMicrophone();
      focusDial();
    }),
    ifMine((error) => notify(registrationText(error), 'registration')),
  );
}

function registrationText({ code, message, details }) {
  // the session is over, and the page has no password (any more) to begin another
  if (details === 'TypeError') return text('signInAgain');
  if (code === 401 || code === 403) return text('wrongPassword');
  return code ? text('signInFailed', message, code) : text('unreachable');
}

/** Puts a call into the foreground. */
function present(call) {
  current = call;
  notify('', noticeFor);
  open();
  if (presented.has(call)) {
    element('remote').srcObject = call.remoteStream ?? null;
    return show();
  }
  presented.add(call);
  call.on('state', show);
  call.on('callUpdated', show);
  call.on('recordingUpdated', ({ state }) => {
    recordings.set(call, state);
    show();
  });
  const hear = (stream) => {
    if (current !== call) return;
    const audio = element('remote');
    audio.srcObject = stream;
    show();
    // a page that nobody has touched may not play
    audio.play().catch(({ name }) => name === 'NotAllowedError' && notify(text('clickToHear'), 'sound'));
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
    if (end.reason === 'user_busy') play('busy');
    focusDial();
  });
  show();
  element('hangup').focus();
}

function endText({ reason, code, error }) {
  if (error?.cause instanceof Error) return advice(error);
  // a refusal whose reason the server did not class
  if (reason === 'call_rejected' && error && code !== 603) return text('failed', error.message, code);
  return knows(reason) ? text(reason) : '';
}

function dial(event) {
  event.preventDefault();
  if (current) return;
  callNumber(element('dial').value.trim());
  // (the list of recent calls has it)
  element('dial').value = '';
}

/** A call that has come to be: made here, one that rings, or one of the page before its reload. */
function welcome(call) {
  const mine = phone;
  call.ended.then((end) => {
    // (what ends because the page goes is not over: the next one has it again)
    if (mine === phone) remember(call, end);
    show();
  });
  const snapshot = phone.registration?.calls.find(({ callId }) => callId === call.id);
  if (snapshot?.recording) recordings.set(call, snapshot.recording);
  if (call.state === 'new') return;
  if (call.direction === 'in' && call.state === 'ringing') ring(call);
  else if (!current) present(call);
}

function ring(call) {
  // a second one that rings waits behind the first
  ringing ??= call;
  const { number, name } = farSide(call);
  notification = notifyOutside(text('calls', name), number);
  call.on('state', (state) => state !== 'ringing' && notification?.close());
  call.ended.then(() => {
    if (ringing === call) nextRinging(call);
    show();
  });
  // (what lies over the page would hide it)
  element('settings').close();
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
    notify(advice(error));
    show();
  });
}

function decline() {
  // (not missed: refused)
  if (ringing) ringing.refused = true;
  ringing?.hangup('declined');
}

function sendDigit(key) {
  const call = current;
  if (call?.state !== 'established') return;
  playKey(key);
  sentDigits.set(call, `${sentDigits.get(call) ?? ''}${key}`);
  element('sent').textContent = sentDigits.get(call);
  call.dtmf(key).catch(complain);
}

function press(key) {
  playKey(key);
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
  if (event.ctrlKey || event.altKey || event.metaKey || element('settings').open) return;
  const { view } = document.body.dataset;
  if (event.key === 'Escape') {
    if (ringing) decline();
    else if (isOpen()) open();
    else current?.hangup();
  } else if (view === 'call' && event.target.tagName !== 'INPUT' && /^[0-9*#]$/.test(event.key)) {
    sendDigit(event.key);
  } else if (view === 'dial' && event.target !== element('dial')) {
    if (/^[0-9*#+]$/.test(event.key)) press(event.key);
    else if (event.key === 'Backspace') erase();
    else return;
    element('dial').focus();
    event.preventDefault();
  }
}

for (const [pad, onKeyPressed] of [['#keypad', press], ['#call-keypad .keypad', sendDigit]]) {
  for (const [key, letters] of Object.entries(KEYS).sort(byKeypad)) document.querySelector(pad).append(keyButton(key, letters, onKeyPressed));
}

function keyButton(key, letters, onKeyPressed) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'key';
  button.dataset.key = key;
  if (KEY_NAMES[key]) button.dataset.label = KEY_NAMES[key];
  else button.setAttribute('aria-label', key);
  // (the letters are decoration: the style sheet writes them)
  const decoration = make('small');
  decoration.dataset.letters = letters;
  button.append(key, decoration);
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
for (const button of Object.keys(DRAWERS)) {
  element(button).addEventListener('click', () => open(element(DRAWERS[button]).hidden ? button : undefined));
}
element('transfer-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const number = element('transfer-to').value.trim();
  // asked first: a call of its own, and the two are connected when both want it
  if (event.submitter?.value === 'ask') callNumber(number);
  else handOver(number);
});
element('add-form').addEventListener('submit', (event) => {
  event.preventDefault();
  callNumber(element('add-number').value.trim());
});
element('record').addEventListener('click', () => record(element('record').ariaPressed === 'true' ? 'stop' : 'start'));
element('pause-recording').addEventListener('click', () => record(recordings.get(current) === 'paused' ? 'resume' : 'pause'));
element('clear-history').addEventListener('click', () => (clearHistory(phone?.registration?.dn), show()));
element('answer').addEventListener('click', answer);
element('decline').addEventListener('click', decline);
element('unregister').addEventListener('click', () => (write('sessionStorage', SIGNED_IN), phone?.state === 'registered' ? phone.unregister() : phone?.close()));
document.addEventListener('keydown', onKey);
document.addEventListener('click', () => {
  const audio = element('remote');
  if (audio.srcObject && audio.paused) audio.play().then(() => notify('', 'sound'));
});
setUpSettings({
  onMicrophone: () => phone?.calls.forEach((call) => call.state === 'established' && call.replaceMicrophone().then(measure, complain)),
  onLanguage: show,
  onError: (words) => notify(words, 'microphone'),
});
navigator.mediaDevices?.addEventListener('devicechange', () => phone?.state === 'registered' && checkMicrophone());
checkMicrophone();
show();
// a page that was loaded anew goes on where it was
const before = read('sessionStorage', SIGNED_IN);
if (before) {
  for (const [id, value] of [['server', before.server], ['dn', before.dn], ['display-name', before.name]]) element(id).value = value;
  signIn();
}
