// Stand-ins for the browser's WebSocket, RTCPeerConnection and microphone, and the server's side of a conversation.
import { Phone } from '../dist/rtc-json.js';

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
  send(frame) {
    if (this.closed) throw new Error('sent on a closed socket');
    this.sent.push(JSON.parse(frame));
  }
  close() {
    this.closed = true;
  }
  open() {
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

/** A connection that never ends gathering (nor begins), and applies a remote description when the test allows it. */
export class FakePeer {
  static all = [];
  static get last() {
    return FakePeer.all.at(-1);
  }
  iceGatheringState = 'gathering';
  signalingState = 'stable';
  localDescription = null;
  remoteDescription = null;
  log = [];
  tracks = [];
  transceivers = [];
  candidates = [];
  /** Replaced by a test that wants the next remote description to take its time. */
  remoteGate = Promise.resolve();

  constructor(config) {
    this.config = config;
    FakePeer.all.push(this);
  }
  addTrack(track) {
    this.tracks.push(track);
    this.transceivers.push({ setCodecPreferences: (codecs) => (this.codecs = codecs) });
  }
  getTransceivers() {
    return this.transceivers;
  }
  async setLocalDescription() {
    const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer';
    this.localDescription = { type, sdp: `${type} of the browser` };
    this.signalingState = type === 'offer' ? 'have-local-offer' : 'stable';
    this.log.push(`local ${type}`);
  }
  async setRemoteDescription(description) {
    await this.remoteGate;
    if (description.sdp === 'bad') throw new Error('cannot parse');
    this.remoteDescription = description;
    this.signalingState =
      { offer: 'have-remote-offer', pranswer: 'have-remote-pranswer' }[description.type] ?? 'stable';
    this.log.push(`remote ${description.type} ${description.sdp}`);
  }
  async addIceCandidate(candidate) {
    if (!this.remoteDescription) throw new Error('no remote description');
    this.candidates.push(candidate);
  }
  close() {
    this.signalingState = 'closed';
  }
}

export function fakeStream() {
  const track = { kind: 'audio', stopped: false, stop: () => (track.stopped = true) };
  return { track, getTracks: () => [track], getAudioTracks: () => [track] };
}

export function newPhone(options = {}) {
  return new Phone({
    url: 'wss://server.example/ws',
    dn: '5001',
    password: 'pw5001',
    displayName: 'Alice',
    audio: fakeStream(),
    backoff: [1, 4],
    WebSocket: FakeSocket,
    RTCPeerConnection: FakePeer,
    ...options,
  });
}

/** Answers the `register` of the newest socket. */
export function accept(payload = {}) {
  const socket = FakeSocket.last;
  socket.open();
  const fields = { dn: '5001', expires: 300, server: 'fake', session: 'token-1', calls: [], ...payload };
  socket.say('registered', fields, socket.find('register').id);
  return socket;
}

export async function registered(options) {
  const phone = newPhone(options);
  const promise = phone.register();
  const socket = accept();
  await promise;
  return { phone, socket };
}

/** The next socket that the client opens after it lost one. */
export async function reconnected() {
  const before = FakeSocket.all.length;
  for (let i = 0; i < 200 && FakeSocket.all.length === before; i++) await new Promise((done) => setTimeout(done, 1));
  return FakeSocket.last;
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
