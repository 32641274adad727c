/** JsSIP with the same handles as agent.js, as far as its tests need them. */
import { now, plainMicrophone, play, sound, watch } from './measure.js';

const { JsSIP } = window;
let ua;
/** Does a call leave with the first candidate? As JsSIP is shipped it waits until the browser has gathered everything. */
let tuned;
let iceServers = [];
const calls = [];

function follow(session) {
  const record = { session, at: { start: now() }, state: 'new' };
  calls.push(record);
  const mark = (state, end) => {
    record.state = state;
    record.at[state] ??= now();
    if (end) record.end = { reason: end.cause };
  };
  const listen = (pc) => {
    record.pc = pc;
    record.watched = watch(pc);
    pc.addEventListener('track', ({ track, streams: [stream] }) => {
      play(stream);
      track.addEventListener('unmute', () => { record.at.firstPacket ??= now(); });
    });
  };
  if (session.connection) listen(session.connection);
  else session.on('peerconnection', ({ peerconnection }) => listen(peerconnection));
  session.on('progress', () => mark('ringing'));
  session.on('accepted', () => { record.at.accepted ??= now(); });
  session.on('confirmed', () => mark('established'));
  session.on('ended', (end) => mark('ended', end));
  session.on('failed', (end) => mark('ended', end));
  if (tuned) session.on('icecandidate', ({ ready }) => ready());
  return calls.length - 1;
}

const media = () => ({ mediaConstraints: { audio: plainMicrophone, video: false }, pcConfig: { iceServers } });

window.agent = {
  /** JSON alone is written down. */
  frames: [],

  register: ({ url, dn, password, domain, ...more }) => new Promise((done, fail) => {
    const { session_timers = false } = more;
    ({ tuned = true, iceServers = [] } = more);
    ua = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(url)], uri: `sip:${dn}@${domain}`, password, register_expires: 300, session_timers,
    });
    ua.on('registered', () => done());
    ua.on('registrationFailed', ({ cause }) => fail(new Error(`registration: ${cause}`)));
    ua.on('newRTCSession', ({ session, originator }) => { if (originator === 'remote') follow(session); });
    ua.start();
  }),

  call(to) {
    let index;
    // the session is announced within call()
    ua.once('newRTCSession', ({ session }) => { index = follow(session); });
    ua.call(`sip:${to}@${ua.configuration.uri.host}`, media());
    return index;
  },

  answer: (index) => calls[index].session.answer(media()),
  hold: (index) => new Promise((done) => { calls[index].session.hold({}, done); }),
  hangup: (index) => calls[index].session.terminate(),
  sound: (index) => sound(calls[index].pc),

  about(index) {
    if (!calls[index]) return undefined;
    const { session, at, state, end, watched } = calls[index];
    return { state, at, end, watched, from: session.remote_identity.uri.user };
  },
};
