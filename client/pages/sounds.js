// The tones of the phone, made by the browser: no file has to be loaded before it can ring.

/** Hertz together, seconds on, seconds off, … and how loud. */
const TONES = {
  // two short rings and a pause, in two tones that carry across a room
  ring: { hertz: [440, 554], pattern: [0.4, 0.2, 0.4, 2], loud: 0.22 },
  // softly, beside a conversation
  waiting: { hertz: [425], pattern: [0.2, 0.2, 0.2, 5], loud: 0.05 },
  // what a caller in Germany hears (ITU-T E.180)
  ringback: { hertz: [425], pattern: [1, 4], loud: 0.06 },
  busy: { hertz: [425], pattern: [0.48, 0.48], loud: 0.06, times: 3 },
  test: { hertz: [440, 554], pattern: [0.4, 0.2], loud: 0.15, times: 2 },
};

const ROWS = [697, 770, 852, 941];
const COLUMNS = [1209, 1336, 1477];

let context;
let sink = '';
let playing;
let stopPlaying;

/** The one audio context of the page; asleep until somebody has touched the page. */
export function audioContext() {
  if (!context) {
    context = new AudioContext();
    applySink();
  }
  if (context.state === 'suspended') context.resume().catch(() => {});
  return context;
}

/** @param {string} device id of the speaker that plays; '' as the system has it */
export function setTonesSink(device) {
  sink = device;
  applySink();
}

// (a speaker that is gone: the system's)
const applySink = () => context?.setSinkId?.(sink).catch(() => context.setSinkId('').catch(() => {}));

/** Plays one of the tones, over and over unless it says how often; another name, or none, ends what plays. @param {keyof TONES} [name] */
export function play(name) {
  if (name === playing) return;
  playing = name;
  stopPlaying?.();
  stopPlaying = undefined;
  if (!name) return;
  const { hertz, pattern, loud, times = Infinity } = TONES[name];
  const volume = tone(hertz);
  const length = pattern.reduce((sum, seconds) => sum + seconds);
  let count = 0;
  const round = () => {
    if (count++ >= times) return play();
    let at = volume.context.currentTime + 0.02;
    for (const [i, seconds] of pattern.entries()) {
      // (a ramp of some milliseconds, so that nothing clicks)
      volume.gain.setTargetAtTime(i % 2 ? 0 : loud, at, 0.006);
      at += seconds;
    }
  };
  round();
  const timer = setInterval(round, length * 1000);
  stopPlaying = () => {
    clearInterval(timer);
    volume.end();
  };
}

/** The tone that plays now. */
export const playingTone = () => playing;

/** A short tone of a key, so that a finger knows that it was felt. */
export function playKey(key) {
  const place = '123456789*0#'.indexOf(key);
  if (place < 0) return;
  const volume = tone([ROWS[Math.floor(place / 3)], COLUMNS[place % 3]]);
  volume.gain.setTargetAtTime(0.04, volume.context.currentTime, 0.005);
  setTimeout(volume.end, 110);
}

function tone(hertz) {
  const audio = audioContext();
  const node = audio.createGain();
  node.gain.value = 0;
  node.connect(audio.destination);
  const sources = hertz.map((frequency) => {
    const source = new OscillatorNode(audio, { frequency });
    source.connect(node);
    source.start();
    return source;
  });
  const end = () => {
    node.gain.cancelScheduledValues(audio.currentTime);
    node.gain.setTargetAtTime(0, audio.currentTime, 0.006);
    setTimeout(() => {
      for (const source of sources) source.stop();
      node.disconnect();
    }, 60);
  };
  return { gain: node.gain, context: audio, end };
}

/**
 * Shows how loud a stream is, in an element with the role `meter`, until told to end.
 * @param {HTMLElement} element
 * @param {MediaStream} stream
 */
export function meter(element, stream) {
  const audio = audioContext();
  const source = audio.createMediaStreamSource(stream);
  const analyser = new AnalyserNode(audio, { fftSize: 1024 });
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let shown = 0;
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    // from -60 dB to full scale; falls slower than it rises, as an eye expects
    const level = Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-9) / 6));
    shown = Math.max(level, shown * 0.8);
    setLevel(element, shown);
  }, 60);
  return () => {
    clearInterval(timer);
    source.disconnect();
    setLevel(element, 0);
  };
}

function setLevel(element, level) {
  element.style.setProperty('--level', level.toFixed(3));
  const percent = `${Math.round(level * 10) * 10}`;
  if (element.ariaValueNow !== percent) element.ariaValueNow = percent;
}
