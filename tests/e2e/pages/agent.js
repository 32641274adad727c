/** An agent with the project's own client, driven from a test through `window.agent`. */
import { digest, hint, Phone, shareMicrophone } from '/dist/full.js';
import { frames, LoggedWebSocket, now, plainMicrophone, play, sound, spectrum, tone, watch } from './measure.js';

/** @type {Phone} */
let phone;
/** Every call of this page, in order: the call itself, and `at`, the times of what happened to it. */
const calls = [];
const states = [];
/** What the phone told beside its states and calls. */
const events = [];
/** The tone that is sent in place of the microphone. */
let ownTone;

function follow(call, start) {
  const record = { call, at: { start, [call.state]: now() }, candidates: [], watched: watch(call.pc) };
  const { pc } = call;
  calls.push(record);
  call.on('state', (state) => { record.at[state] ??= now(); });
  call.on('callAccepted', () => {
    record.at.accepted ??= now();
    record.gatheringAtAnswer ??= pc.iceGatheringState;
  });
  call.on('stream', (stream) => {
    play(stream);
    for (const track of stream.getTracks()) track.addEventListener('unmute', () => { record.at.firstPacket ??= now(); });
  });
  call.on('ended', ({ reason, duration, code, error }) => {
    record.end = { reason, duration, code, error: error && String(error) };
  });
  pc.addEventListener('icecandidate', ({ candidate }) => { if (candidate?.candidate) record.candidates.push(candidate.candidate); });
  pc.addEventListener('icegatheringstatechange', () => { record.at[`gathering ${pc.iceGatheringState}`] ??= now(); });
  pc.addEventListener('connectionstatechange', () => { record.at[pc.connectionState] ??= now(); });
  return calls.length - 1;
}

// (the client uses the browser's own)
window.WebSocket = LoggedWebSocket;

window.agent = {
  frames,
  states,
  events,

  /**
   * Registers. `options` are those of the client; `tone`: send that many hertz in place of the microphone; `secret`: answer challenges
   * with this password; `share`: one tab at a time has the microphone.
   */
  async register({ tone: hertz, secret, share, ...options }) {
    if (hertz) ownTone = tone(hertz);
    const audio = ownTone?.stream ?? plainMicrophone;
    phone = new Phone({ audio, digest: secret && digest(options.dn, secret), ...options });
    if (share) shareMicrophone(phone);
    phone.on('state', (state) => states.push({ at: now(), state }));
    for (const name of ['message', 'notice', 'conferenceUpdated']) phone.on(name, (payload) => events.push({ name, payload }));
    phone.on('error', (error) => events.push({ name: 'error', payload: { message: error.message, code: error.code, hint: hint(error) } }));
    // (those that this page makes are followed already)
    phone.on('call', (call) => { if (!calls.some((record) => record.call === call)) follow(call, now()); });
    return phone.register();
  },

  /** Calls a number and gives the index of the call. */
  call(to) {
    const start = now();
    return follow(phone.call(to), start);
  },

  answer: (index) => calls[index].call.answer(),

  /** Hangs up and gives how the call ended. */
  async hangup(index, reason) {
    await calls[index].call.hangup(reason);
    return calls[index].end;
  },

  mute: (index, muted) => calls[index].call.mute(muted),

  /** Another tone from now on. */
  changeTone: (hertz) => ownTone.change(hertz),

  /** Sends a request as it is and gives its outcome. */
  request: (type, payload) => phone.request(type, payload),

  hold: (index, hold) => calls[index].call.hold(hold),
  dtmf: (index, digit, duration) => calls[index].call.dtmf(digit, duration),
  update: (index) => calls[index].call.update(),
  transfer: (index, to) => calls[index].call.transfer(to),
  /** Hands the far side of one call on to that of another. */
  attended: (index, other) => calls[index].call.transfer(calls[other].call),
  conference: (indices, room) => phone.conference(indices.map((i) => calls[i].call), room),
  recording: (index, action) => calls[index].call.recording(action),
  message: (to, text) => phone.message(to, text),
  replaceTone: (index, hertz) => calls[index].call.replaceMicrophone(tone(hertz).stream),

  /** Mean amplitude of each of these frequencies in what a call hears. */
  spectrum: (index, frequencies, ms) => spectrum(calls[index].call.remoteStream, frequencies, ms),

  /** How many calls there were so far: the index of the next one. */
  count: () => calls.length,

  /** What is known of a call, without what cannot leave the page. */
  about(index) {
    const record = calls[index];
    if (!record) return undefined;
    const { call, at, end, candidates, watched, gatheringAtAnswer } = record;
    const { id, state, direction, from, to, displayName, remote, held, remoteHold, muted } = call;
    return { id, state, direction, from, to, displayName, remote, held, remoteHold, muted, at, end, candidates, watched, gatheringAtAnswer };
  },

  /** Begins to measure the longest silence anew. */
  watchAgain(index) { calls[index].watched = watch(calls[index].call.pc); },

  stats: (index) => calls[index].call.stats(),
  sound: (index) => sound(calls[index].call.pc),
  phoneState: () => phone?.state,
  unregister: () => phone.unregister(),
};
