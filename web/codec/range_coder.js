/**
 * The range coder: the queue coder of the library `constriction`, with words of 32 bits and a state of 64.
 *
 * Both sides keep a range, at least 2^32 wide. A symbol with the frequency f out of 2^16, after symbols with the cumulative
 * frequency c, narrows it to [c, c + f) / 2^16 of itself; when it is narrower than 2^32, its top word is known, and
 * encoder and decoder go on with the next. The library works with frequencies out of 2^24; ours are 256 times smaller.
 */

import { UserError } from "./errors.js";

const WORD = 32n;
const SMALLEST_RANGE = 1n << WORD;
const MASK = (1n << 64n) - 1n;
const PRECISION = 24n; // bits of the library's frequencies ...
const SCALE = 8n; // ... which are ours shifted by so many
const FREQUENCY_SUM = 65536;
const MOST_BITS_BEYOND = 32; // of information that symbols have beyond their payload: the range is never narrower, of 2^64

/** Symbols to bytes. */
export class RangeEncoder {
  #lower = 0n;
  #range = MASK;
  /** @type {number[]} */
  #words = [];

  /**
   * @param {number} cumulative the sum of the frequencies of the symbols before this one
   * @param {number} frequency its own, of 2^16
   */
  encode(cumulative, frequency) {
    const unit = (this.#range >> PRECISION) << SCALE;
    this.#lower += unit * BigInt(cumulative);
    this.#range = unit * BigInt(frequency);
    if (this.#lower > MASK) {
      this.#lower &= MASK;
      this.#carry();
    }
    if (this.#range < SMALLEST_RANGE) {
      this.#words.push(Number(this.#lower >> WORD));
      this.#lower = (this.#lower << WORD) & MASK;
      this.#range <<= WORD;
    }
  }

  /**
   * The payload: all words that are complete, and so many bytes of the state as tell the symbols from all others. To be called
   * once, at the end.
   *
   * Any number from `lower` up, and below `lower + range`, stands for the symbols. The one that is taken has as few bytes as
   * possible, when zeros follow them, and is the smallest of these.
   * @returns {Uint8Array}
   */
  payload() {
    let count = 0; // bytes of the state
    let number = this.#numberOf(count);
    while (number >= this.#lower + this.#range) number = this.#numberOf(++count);
    if (number > MASK) this.#carry();
    const bytes = new DataView(new ArrayBuffer(4 * this.#words.length + 8));
    this.#words.forEach((word, i) => bytes.setUint32(4 * i, word));
    bytes.setBigUint64(4 * this.#words.length, number & MASK);
    return new Uint8Array(bytes.buffer, 0, 4 * this.#words.length + count);
  }

  /** The smallest number from `lower` up whose bytes are all 0 but for the highest `count` of 8. */
  #numberOf(count) {
    const zeros = BigInt(64 - 8 * count);
    return ((this.#lower + (1n << zeros) - 1n) >> zeros) << zeros;
  }

  /** Adds one to what was written, as a number whose digits are words. */
  #carry() {
    let i = this.#words.length - 1;
    while (this.#words[i] === 0xffffffff) this.#words[i--] = 0;
    this.#words[i]++;
  }
}

/** Bytes to symbols. */
export class RangeDecoder {
  #offset = 0n; // of the coded point from the range's lower end
  #range = MASK;
  #words;
  #next = 0;
  #bitsLeft;

  /** @param {Uint8Array} payload */
  constructor(payload) {
    const words = Math.ceil(payload.length / 4);
    this.#words = new DataView(new ArrayBuffer(4 * words));
    new Uint8Array(this.#words.buffer).set(payload);
    this.#bitsLeft = 8 * payload.length + MOST_BITS_BEYOND;
    this.#offset = (this.#word() << WORD) | this.#word();
  }

  /**
   * The next symbol.
   * @param {ArrayLike<number>} frequencies of all symbols, at least 1 each, with the sum 2^16
   * @returns {number}
   */
  decode(frequencies) {
    const unit = (this.#range >> PRECISION) << SCALE;
    const quantile = Number(this.#offset / unit);
    if (quantile >= FREQUENCY_SUM) throw new UserError("This .gc file is damaged: its payload cannot be decoded.");
    let symbol = 0;
    let cumulative = 0;
    while (cumulative + frequencies[symbol] <= quantile) cumulative += frequencies[symbol++];
    this.#account(frequencies[symbol]);
    this.#offset -= unit * BigInt(cumulative);
    this.#range = unit * BigInt(frequencies[symbol]);
    if (this.#range < SMALLEST_RANGE) {
      this.#offset = (this.#offset << WORD) | this.#word();
      this.#range <<= WORD;
    }
    return symbol;
  }

  /** The next word; past the end, zeros. */
  #word() {
    const at = 4 * this.#next++;
    return at < this.#words.byteLength ? BigInt(this.#words.getUint32(at)) : 0n;
  }

  /** A payload holds little more information than it has bits: stops a forged size from being decoded to its end. */
  #account(frequency) {
    this.#bitsLeft -= Math.log2(FREQUENCY_SUM / frequency);
    if (this.#bitsLeft < 0) throw new UserError("This .gc file is damaged: its payload is too short for its image size.");
  }
}
