/** Which tones are in a sound. For pages and for the tests themselves. */

/**
 * Amplitude of one frequency (Goertzel, with a Hann window): 1 for a tone of full scale.
 * @param {ArrayLike<number>} samples -1 to 1
 * @param {number} rate samples per second
 * @param {number} hertz
 */
export function amplitude(samples, rate, hertz) {
  const step = (2 * Math.PI * hertz) / rate;
  const k = 2 * Math.cos(step);
  let [a, b] = [0, 0];
  for (let i = 0; i < samples.length; i += 1) {
    const hann = 1 - Math.cos((2 * Math.PI * i) / samples.length);
    [a, b] = [samples[i] * hann + k * a - b, a];
  }
  return (2 * Math.sqrt(Math.max(a * a + b * b - k * a * b, 0))) / samples.length;
}

/** Of a mono or stereo WAV file with 16 bits: rate and samples. @param {Buffer} file */
export function readWav(file) {
  const rate = file.readUInt32LE(24);
  const data = file.indexOf('data') + 8;
  const samples = new Float32Array(Math.floor((file.length - data) / 2));
  for (let i = 0; i < samples.length; i += 1) samples[i] = file.readInt16LE(data + 2 * i) / 32768;
  return { rate, samples, seconds: samples.length / rate };
}

/**
 * The same over time: for each piece of `ms` milliseconds one amplitude per frequency.
 * @returns {number[][]}
 */
export function pieces({ samples, rate }, frequencies, ms = 100) {
  const length = Math.round((rate * ms) / 1000);
  const found = [];
  for (let i = 0; i + length <= samples.length; i += length) {
    const piece = samples.subarray(i, i + length);
    found.push(frequencies.map((hertz) => amplitude(piece, rate, hertz)));
  }
  return found;
}
