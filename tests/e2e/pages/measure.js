/**
 * What a test wants to know of the inside of a page: frames on the WebSocket, and the sound of a connection.
 *
 * All times are in milliseconds of one clock that two pages of one machine share.
 */
import { amplitude } from './spectrum.js';

export const now = () => performance.timeOrigin + performance.now();

/** Every frame of every WebSocket of this page, in order. `at` is the time, `dir` `in` or `out`. */
export const frames = [];

/** The browser's WebSocket, written down. */
export class LoggedWebSocket extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener('message', ({ data }) => frames.push({ at: now(), dir: 'in', data }));
  }

  send(data) {
    frames.push({ at: now(), dir: 'out', data });
    super.send(data);
  }
}

/** Echo cancellation and its like would take one page's beeps out of the other's. */
export const plainMicrophone = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/**
 * A sound without a microphone: for pages that have no leave to open one, and to tell pages apart. Three of them together stay below
 * full scale.
 * @returns {{ stream: MediaStream, change(hertz: number): void }}
 */
export function tone(hertz = 440) {
  const context = new AudioContext();
  const source = new OscillatorNode(context, { frequency: hertz });
  const sink = context.createMediaStreamDestination();
  source.connect(new GainNode(context, { gain: 0.25 })).connect(sink);
  source.start();
  return { stream: sink.stream, change: (next) => { source.frequency.value = next; } };
}

/** One for the whole page: a browser allows only some of them. */
let context;

/**
 * Listens to a stream and gives the mean amplitude of each of these frequencies. (One that sounds for a third of the time has a
 * third.)
 * @param {MediaStream} stream
 * @param {number[]} frequencies
 * @param {number} ms
 */
export async function spectrum(stream, frequencies, ms = 2000) {
  context ??= new AudioContext();
  await context.resume();
  const source = context.createMediaStreamSource(stream);
  const analyser = new AnalyserNode(context, { fftSize: 8192 });
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const step = (analyser.fftSize / context.sampleRate) * 1000;
  const sums = frequencies.map(() => 0);
  let count = 0;
  // until the buffer holds this stream alone
  await sleep(2 * step);
  for (const end = now() + ms; now() < end; count += 1) {
    analyser.getFloatTimeDomainData(samples);
    frequencies.forEach((hertz, i) => { sums[i] += amplitude(samples, context.sampleRate, hertz); });
    await sleep(step);
  }
  source.disconnect();
  return sums.map((sum) => sum / count);
}

const sleep = (ms) => new Promise((done) => { setTimeout(done, ms); });

/** Plays a stream. A track that nobody plays is not decoded, and its energy does not grow. */
export function play(stream) {
  const audio = document.createElement('audio');
  audio.autoplay = true;
  audio.srcObject = stream;
  document.body.append(audio);
}

/** The counters of a connection's sound: packets, `energy` of what was heard (W3C webrtc-stats), who talks to whom. */
export async function sound(pc) {
  const stats = await pc.getStats();
  const found = { at: now(), packets: 0, energy: 0, sent: 0 };
  for (const entry of stats.values()) {
    if (entry.type === 'inbound-rtp') {
      found.packets = entry.packetsReceived;
      found.energy = entry.totalAudioEnergy;
      found.codec = stats.get(entry.codecId)?.mimeType;
    }
    if (entry.type === 'outbound-rtp') found.sent = entry.packetsSent;
    if (entry.type === 'candidate-pair' && entry.nominated) {
      const [near, far] = [stats.get(entry.localCandidateId), stats.get(entry.remoteCandidateId)];
      found.pair = `${near?.candidateType} to ${far?.candidateType}`;
    }
  }
  const transport = [...stats.values()].find(({ type }) => type === 'transport');
  // of the pair that carries the sound now: after an ICE restart there may be an older one
  found.ufrag = stats.get(stats.get(transport?.selectedCandidatePairId)?.localCandidateId)?.usernameFragment;
  return found;
}

/** Watches a connection: `longest` is the longest time, in ms, in which no packet arrived. */
export function watch(pc) {
  const watched = { longest: 0, packets: 0 };
  let last;
  const look = async () => {
    const { at, packets } = await sound(pc);
    if (packets !== watched.packets) {
      last = at;
      watched.packets = packets;
    } else if (last) watched.longest = Math.max(watched.longest, at - last);
  };
  const timer = setInterval(() => (pc.signalingState === 'closed' ? clearInterval(timer) : look()), 50);
  return watched;
}
