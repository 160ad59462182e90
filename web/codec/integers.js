/** Integers that every machine computes alike: powers of two with fractions in the exponent, and variable-length integers. */

import { UserError } from "./errors.js";

const STEPS = 32; // of the exponent, for each factor of two

/** floor(2^(16 - d/32)) for d = 0..511, then 0. */
export const POWERS = powersOfTwo();

/** By integer square roots: the 32nd root is five of them. */
function powersOfTwo() {
  const powers = new Int32Array(16 * STEPS + 1);
  for (let d = 0; d < 16 * STEPS; d++) {
    let power = 1n << BigInt(16 * STEPS - d);
    for (let i = 0; i < Math.log2(STEPS); i++) power = squareRoot(power);
    powers[d] = Number(power);
  }
  return powers;
}

/** floor(sqrt(n)), by Newton's method. @param {bigint} n from 1 up */
function squareRoot(n) {
  let root = 1n << BigInt((n.toString(2).length + 1) >> 1); // not below the root
  for (;;) {
    const next = (root + n / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/**
 * A number as bytes of 7 bits, the lowest first; all but the last have their highest bit set (LEB128).
 * @param {number} number 0 .. 2^28 - 1
 * @returns {number[]}
 */
export function varint(number) {
  const bytes = [];
  for (; number > 127; number >>= 7) bytes.push((number & 127) | 128);
  return [...bytes, number];
}

/**
 * The number that `varint` wrote at an offset of the data, and the offset behind it. Throws UserError where the data ends, and
 * for a number that is longer than it needs to be or has more than 28 bits.
 * @param {Uint8Array} data
 * @param {number} start
 * @returns {[number: number, end: number]}
 */
export function readVarint(data, start) {
  let number = 0;
  for (let i = 0; i < 4; i++) {
    if (start + i >= data.length) throw new UserError("This .gc file is damaged: it ends within a number.");
    const byte = data[start + i];
    number |= (byte & 127) << (7 * i);
    if (byte < 128) {
      if (i && !byte) break;
      return [number, start + i + 1];
    }
  }
  throw new UserError("This .gc file is damaged: a number in it is too long.");
}
