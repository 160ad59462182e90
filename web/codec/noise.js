/**
 * The noise that the generator adds: integers of a counter-based generator, turned into values by an exact rule, so that
 * every machine draws the same. Philox4x64-10 (Salmon et al. 2011) as numpy.random.Philox(key=[crc, seed]) has it.
 */

const MASK = (1n << 64n) - 1n;
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const KEY_STEPS = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;

/**
 * One block of the generator: four words of 64 bits.
 * @param {bigint} counter below 2^64; the upper three words of the counter are 0
 * @param {[bigint, bigint]} key
 * @returns {[bigint, bigint, bigint, bigint]}
 */
export function philox(counter, [k0, k1]) {
  let [a, b, c, d] = [counter, 0n, 0n, 0n];
  for (let round = 0; round < ROUNDS; round++) {
    const first = MULTIPLIERS[0] * a;
    const second = MULTIPLIERS[1] * c;
    [a, b, c, d] = [(second >> 64n) ^ b ^ k0, second & MASK, (first >> 64n) ^ d ^ k1, first & MASK];
    k0 = (k0 + KEY_STEPS[0]) & MASK;
    k1 = (k1 + KEY_STEPS[1]) & MASK;
  }
  return [a, b, c, d];
}

/**
 * The first n values. Each comes of 32 bits, the low half of a word before the high one: its four bytes' sum, less the mean,
 * by the standard deviation.
 * @param {number} n
 * @param {number} crc of the .gc file
 * @param {number} [seed]
 * @returns {Float32Array}
 */
export function noise(n, crc, seed = 0) {
  const values = new Float32Array(n);
  const key = /** @type {[bigint, bigint]} */ ([BigInt(crc), BigInt(seed)]);
  for (let i = 0, counter = 1n; i < n; counter++) {
    for (const word of philox(counter, key)) {
      values[i++] = value(Number(word & 0xffffffffn));
      values[i++] = value(Number(word >> 32n)); // past the end, a typed array ignores it
    }
  }
  return values;
}

/** @param {number} bits 32 of them */
function value(bits) {
  return ((bits & 255) + ((bits >>> 8) & 255) + ((bits >>> 16) & 255) + (bits >>> 24) - 510) / 148;
}
