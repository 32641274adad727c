// Stand-ins for the browser's WebSocket, RTCPeerConnection and microphone, and the server's side of a conversation.
import { Phone } from '../dist/rtc-json.js';
import { Phone as FullPhone } from '../dist/full.js';

/** Lets everything run that waits for nothing but promises. */
export const settle = () => new Promise((done) => setImmediate(done));

/** A WebSocket whose far end is the test: what the client sent stands in `sent`, the test says the rest. */
export class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }
  sent = [];
  closed = false;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.all.push(this);
  }
  get readyState() {
    if (this.closed) return 3;
    return this.opened ? 1 : 0;
  }
  send(frame) {
    if (!this.opened || this.closed) throw new Error('sent on a socket that is not open');
    this.sent.push(JSON.parse(frame));
  }
  close() {
    this.closed = true;
  }
  open() {
    this.opened = true;
    this.onopen?.({});
  }
  say(type, payload, id) {
    this.onmessage?.({ data: JSON.stringify({ type, payload, id }) });
  }
  drop() {
    this.closed = true;
    this.onclose?.({});
  }
  /** The last message of that type. */
  find(type) {
    return this.sent.findLast((message) => message.type === type);
  }
  count(type) {
    return this.sent.filter((message) => message.type === type).length;
  }
}

const invalid = (what) => Object.assign(new Error(what), { name: 'InvalidStateError' });

/**
 * A connection that never ends gathering (nor begins), and applies a remote description when the test allows it. Its
 * descriptions tell which they are, and how many ICE restarts there were: `offer 2 ice 1`.
 */
export class FakePeer {
  static all = [];
  static get last() {
    return FakePeer.all.at(-1);
  }
  iceGatheringState = 'gathering';
  iceConnectionState = 'new';
  signalingState = 'stable';
  localDescription = null;
  remoteDescription = null;
  log = [];
  transceivers = [];
  candidates = [];
  descriptions = 0;
  restarts = 0;
  /** The local end of the path along which sound comes. */
  path = 'candidate:1';
  /** Replaced by a test that wants the next remote description to take its time. */
  remoteGate = Promise.resolve();

  packets = 0;
  constructor(config) {
    this.config = config;
    FakePeer.all.push(this);
  }
  addTrack(track, stream) {
    if (this.signalingState === 'closed') throw invalid('closed');
    const sender = {
      track,
      replaced: [],
      async replaceTrack(next) {
        sender.track = next;
        sender.replaced.push(next);
      },
      dtmf: { toneBuffer: '', played: [], insertDTMF: (...args) => sender.dtmf.played.push(args) },
    };
    this.stream = stream;
    this.transceivers.push({ sender, setCodecPreferences: (codecs) => (this.codecs = codecs) });
    return sender;
  }
  getTransceivers() {
    return this.transceivers;
  }
  getReceivers() {
    const iceTransport = { getSelectedCandidatePair: () => ({ local: { candidate: this.path } }) };
    const getStats = async () => new Map([['a', { type: 'codec' }], ['b', { type: 'inbound-rtp', packetsReceived: this.packets }]]);
    return [{ getStats, transport: { iceTransport } }];
  }
  getSenders() {
    return this.transceivers.map(({ sender }) => sender);
  }
  async createOffer({ iceRestart } = {}) {
    // (nothing is there yet that could begin anew)
    this.restart = Boolean(iceRestart && this.localDescription);
    return this.#describe('offer');
  }
  async createAnswer() {
    if (this.signalingState !== 'have-remote-offer') throw invalid('nothing to answer');
    return this.#describe('answer');
  }
  #describe(type) {
    if (this.signalingState === 'closed') throw invalid('closed');
    const restarts = this.restarts + (type === 'offer' && this.restart ? 1 : 0);
    return { type, sdp: `${type} ${this.descriptions + 1} ice ${restarts}` };
  }
  async setLocalDescription(description) {
    if (this.signalingState === 'closed') throw invalid('closed');
    if (description?.type === 'rollback') {
      if (this.signalingState !== 'have-local-offer') throw invalid('nothing to roll back');
      this.#rollback();
      return;
    }
    if (!description) this.restart = false;
    const next = this.#describe(this.signalingState === 'have-remote-offer' ? 'answer' : 'offer');
    // (a browser takes only what it has made last)
    if (description && description.sdp !== next.sdp) throw Object.assign(new Error('another description'), { name: 'InvalidModificationError' });
    const { type } = next;
    if (type === 'offer' && this.restart) {
      this.restarts++;
      this.restart = false;
    }
    this.descriptions++;
    this.before = this.localDescription;
    this.localDescription = next;
    this.signalingState = type === 'offer' ? 'have-local-offer' : 'stable';
    this.log.push(`local ${this.localDescription.sdp}`);
  }
  #rollback() {
    this.signalingState = 'stable';
    this.localDescription = this.before;
    this.log.push('rollback');
  }
  async setRemoteDescription(description) {
    await this.remoteGate;
    if (this.signalingState === 'closed') throw invalid('closed');
    if (description.sdp === 'bad') throw new Error('cannot parse');
    if (description.type === 'offer') {
      if (this.signalingState === 'have-local-offer') this.#rollback();
      this.signalingState = 'have-remote-offer';
    } else {
      if (this.signalingState !== 'have-local-offer') throw invalid(`an answer while ${this.signalingState}`);
      this.signalingState = 'stable';
    }
    this.remoteDescription = description;
    this.log.push(`remote ${description.type} ${description.sdp}`);
  }
  async addIceCandidate(candidate) {
    if (!this.remoteDescription) throw new Error('no remote description');
    this.candidates.push(candidate);
  }
  /** As the browser tells it. */
  ice(state) {
    this.iceConnectionState = state;
    this.oniceconnectionstatechange?.({});
  }
  found(candidate) {
    this.onicecandidate?.({ candidate });
  }
  close() {
    this.signalingState = 'closed';
  }
}

/** A stream of one track; its clones are in `clones`. */
export function fakeStream() {
  const track = { kind: 'audio', enabled: true, stopped: false, stop: () => (track.stopped = true) };
  const stream = {
    track,
    clones: [],
    getTracks: () => [track],
    getAudioTracks: () => [track],
    clone: () => (stream.clones.push(fakeStream()), stream.clones.at(-1)),
  };
  return stream;
}

export const codecs = ['audio/opus', 'audio/G722', 'audio/PCMU', 'audio/PCMA', 'audio/telephone-event'].map((mimeType) => ({ mimeType }));

/** What `getUserMedia` of the fake browser gives. */
export function microphone(getUserMedia) {
  Object.defineProperty(globalThis, 'navigator', { value: { mediaDevices: { getUserMedia } }, configurable: true });
}

Object.assign(globalThis, {
  WebSocket: FakeSocket,
  RTCPeerConnection: FakePeer,
  RTCRtpReceiver: { getCapabilities: () => ({ codecs }) },
  MediaStream: class {
    constructor(tracks) {
      this.tracks = tracks;
    }
  },
});

/** Listeners of the page, which a test can call. */
export function fakeWindow(t) {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  t.after(() => delete globalThis.addEventListener);
  return (name) => listeners.get(name)?.({ type: name });
}

export class FakeStorage {
  items = new Map();
  getItem = (key) => this.items.get(key) ?? null;
  setItem = (key, value) => void this.items.set(key, value);
  removeItem = (key) => void this.items.delete(key);
}

export function newPhone({ full, ...options } = {}) {
  return new (full ? FullPhone : Phone)({
    url: 'wss://server.example/ws',
    dn: '5001',
    password: 'pw5001',
    displayName: 'Alice',
    audio: fakeStream(),
    ...options,
  });
}

/** Answers the `register` of the newest socket. */
export async function accept(payload = {}) {
  const socket = FakeSocket.last;
  socket.open();
  await settle();
  const fields = { dn: '5001', expires: 300, server: 'fake', session: 'token-1', protocol: 1, iceServers: [], calls: [], ...payload };
  socket.say('registered', fields, socket.find('register').id);
  await settle();
  return socket;
}

export async function registered(options, payload) {
  const phone = newPhone(options);
  const promise = phone.register();
  const socket = await accept(payload);
  await promise;
  return { phone, socket };
}

/** The next socket that the client opens after it lost one. The clock must be a fake one. */
export function reconnected(t) {
  const before = FakeSocket.all.length;
  for (let i = 0; i < 10_000 && FakeSocket.all.length === before; i++) tick(1);
  return FakeSocket.last;
}

/** When it is, and what is to come, by the number that `setTimeout` gave. */
let now = 0;
const timers = new Map();
let number = 0;

/** Timers that the test moves by `tick`. (Those of node:test do not work in Debian 12's Node, 18.) */
export function clock(t) {
  const add = (repeats) => (run, ms = 0, ...given) => {
    number += 1;
    timers.set(number, { id: number, at: now + ms, every: repeats && ms, run: () => run(...given) });
    return number;
  };
  const remove = (id) => timers.delete(id);
  const fakes = { setTimeout: add(false), setInterval: add(true), clearTimeout: remove, clearInterval: remove };
  const real = Object.fromEntries(Object.keys(fakes).map((name) => [name, globalThis[name]]));
  Object.assign(globalThis, fakes);
  t.after(() => {
    Object.assign(globalThis, real);
    timers.clear();
  });
}

/** So many milliseconds go by: what is due runs, one after the other. */
export function tick(ms) {
  const end = now + ms;
  for (;;) {
    const [next] = [...timers.values()].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at || a.id - b.id);
    if (!next) break;
    now = next.at;
    if (next.every) next.at += next.every;
    else timers.delete(next.id);
    next.run();
  }
  now = end;
}

/** A call that the server has named and that is answered. */
export async function established(phone, socket, callId = 'c1') {
  const call = phone.call('1003');
  await settle();
  const { id } = socket.find('call');
  socket.say('callProgress', { callId, state: 'trying', request: id }, id);
  socket.say('callAccepted', { callId, sdp: 'answer of 1003' }, id);
  await settle();
  return call;
}

export const snapshot = (fields) => ({ direction: 'out', state: 'established', from: '5001', to: '1003', hold: false, remoteHold: false, since: 7, ...fields });
