/**
 * The noise that the generator adds: integers of a counter-based generator, turned into values by an exact rule, so that
 * every machine draws the same. Philox4x64-10 (Salmon et al. 2011) as numpy.random.Philox(key=[crc, seed]) has it.
 *
 * Its words have 64 bits. Here they are pairs of 32-bit numbers, the low one first: BigInt would take three times as long.
 */

const MULTIPLIERS = [Uint32Array.of(0xe14c6c93, 0xd2e7470e), Uint32Array.of(0x95121157, 0xca5a8263)];
const KEY_STEPS = [Uint32Array.of(0x7f4a7c15, 0x9e3779b9), Uint32Array.of(0x84caa73b, 0xbb67ae85)];
const ROUNDS = 10;

/**
 * One block of the generator: four words of 64 bits, as eight numbers.
 * @param {number} counter below 2^32; the rest of the counter is 0
 * @param {[number, number]} key two words, each below 2^32
 * @param {Uint32Array} block (8) where to write it
 */
export function philox(counter, key, block) {
  block.fill(0);
  block[0] = counter;
  KEY.fill(0);
  [KEY[0], KEY[2]] = key;
  for (let round = 0; round < ROUNDS; round++) {
    multiply(MULTIPLIERS[0], block[0], block[1], FIRST);
    multiply(MULTIPLIERS[1], block[4], block[5], SECOND);
    block[0] = SECOND[2] ^ block[2] ^ KEY[0];
    block[1] = SECOND[3] ^ block[3] ^ KEY[1];
    block[4] = FIRST[2] ^ block[6] ^ KEY[2];
    block[5] = FIRST[3] ^ block[7] ^ KEY[3];
    block[2] = SECOND[0];
    block[3] = SECOND[1];
    block[6] = FIRST[0];
    block[7] = FIRST[1];
    add(KEY, 0, KEY_STEPS[0]);
    add(KEY, 2, KEY_STEPS[1]);
  }
}

const KEY = new Uint32Array(4);
const FIRST = new Uint32Array(4); // a product of 128 bits
const SECOND = new Uint32Array(4);

/** product = a * (low, high). */
function multiply(a, low, high, product) {
  const a0 = a[0];
  const a1 = a[1];
  const middle = high32(a0, low) + (Math.imul(a0, high) >>> 0) + (Math.imul(a1, low) >>> 0);
  product[0] = Math.imul(a0, low);
  product[1] = middle;
  const upper = high32(a0, high) + high32(a1, low) + (Math.imul(a1, high) >>> 0) + Math.floor(middle / 2 ** 32);
  product[2] = upper;
  product[3] = high32(a1, high) + Math.floor(upper / 2 ** 32);
}

/** The upper 32 of the 64 bits of a * b. */
function high32(a, b) {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16); // below 2^32
  return (Math.imul(a1, b1) + (middle >>> 16) + ((a0 * b1 + (middle & 0xffff)) >>> 16)) >>> 0;
}

/** words[at], words[at + 1] += step, modulo 2^64. */
function add(words, at, step) {
  const low = words[at] + step[0];
  words[at] = low;
  words[at + 1] += step[1] + (low >= 2 ** 32 ? 1 : 0);
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
  const block = new Uint32Array(8);
  for (let i = 0, counter = 1; i < n; counter++) {
    philox(counter, [crc, seed], block);
    for (const bits of block) values[i++] = value(bits); // past the end, a typed array ignores it
  }
  return values;
}

/** @param {number} bits 32 of them */
function value(bits) {
  return ((bits & 255) + ((bits >>> 8) & 255) + ((bits >>> 16) & 255) + (bits >>> 24) - 510) / 148;
}
