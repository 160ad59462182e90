/**
 * Entropy models: what turns symbols into a payload and back. Integers only, so that every machine agrees.
 *
 * Symbols are a Uint8Array of the shape (height, width, K), channels last. A mask (height, width) leaves out positions where it is
 * 0: their symbols are not coded, and decode as 0. `StaticTables` has one table of frequencies for each channel. `ContextModel`
 * looks at what is decoded already: small dense networks, one for each channel, see the symbols of neighbouring positions (all
 * channels) and of the same position (the channels before), and give the frequencies of the next.
 */

import { UserError } from "./errors.js";
import { POWERS } from "./integers.js";
import { RangeDecoder, RangeEncoder } from "./range_coder.js";

const FREQUENCY_SUM = 65536;

/** @typedef {{height: number, width: number, channels: number}} Shape of symbols */

/**
 * @typedef {object} EntropyModel
 * @property {number} channels at most, of its symbols
 * @property {number} levels how many values a symbol can have
 * @property {(symbols: Uint8Array, shape: Shape, mask?: Uint8Array) => Uint8Array} encode
 * @property {(payload: Uint8Array, shape: Shape, mask?: Uint8Array) => Uint8Array} decode throws UserError for a payload that
 *     encode did not make
 */

/** Decodes symbols, and encodes them again on the way: a payload that does not come out was not made of them. */
class CheckedDecoder {
  #decoder;
  #encoder = new RangeEncoder();
  #payload;

  /** @param {Uint8Array} payload */
  constructor(payload) {
    this.#payload = payload;
    this.#decoder = new RangeDecoder(payload);
  }

  /** @param {ArrayLike<number>} frequencies */
  decode(frequencies) {
    const symbol = this.#decoder.decode(frequencies);
    encodeSymbol(this.#encoder, frequencies, symbol);
    return symbol;
  }

  /** To be called after the last symbol. */
  check() {
    const again = this.#encoder.payload();
    if (again.length !== this.#payload.length || again.some((byte, i) => byte !== this.#payload[i])) {
      throw new UserError("This .gc file is damaged: its payload is not that of its image size.");
    }
  }
}

/**
 * @param {RangeEncoder} coder
 * @param {ArrayLike<number>} frequencies
 * @param {number} symbol
 */
function encodeSymbol(coder, frequencies, symbol) {
  let cumulative = 0;
  for (let i = 0; i < symbol; i++) cumulative += frequencies[i];
  coder.encode(cumulative, frequencies[symbol]);
}

/** A fixed table of symbol frequencies for each channel; one channel is coded after the other. */
export class StaticTables {
  /** @param {Pick<import("./npz.js").NpyArray, "shape" | "data">} frequencies (C, L), each row with the sum 2^16 */
  constructor({ shape: [channels, levels], data }) {
    this.channels = channels;
    this.levels = levels;
    this.rows = Array.from({ length: channels }, (_, c) => [...data.subarray(c * levels, (c + 1) * levels)]);
    if (this.rows.some((row) => Math.min(...row) < 1 || row.reduce((a, b) => a + b) !== FREQUENCY_SUM)) {
      throw new UserError("The model's table of frequencies is damaged.");
    }
  }

  /** Tables of frequencies that are equal, but for the first, which gets what is missing to the sum. */
  static equal(channels, levels) {
    const row = new Array(levels).fill(Math.round(FREQUENCY_SUM / levels));
    row[0] += FREQUENCY_SUM - levels * row[0];
    const data = Uint32Array.from({ length: channels * levels }, (_, i) => row[i % levels]);
    return new StaticTables({ shape: [channels, levels], data });
  }

  /** @type {EntropyModel["encode"]} */
  encode(symbols, shape, mask) {
    const coder = new RangeEncoder();
    for (const [c, at] of channelByChannel(shape, mask)) encodeSymbol(coder, this.rows[c], symbols[at]);
    return coder.payload();
  }

  /** @type {EntropyModel["decode"]} */
  decode(payload, shape, mask) {
    const coder = new CheckedDecoder(payload);
    const symbols = new Uint8Array(shape.height * shape.width * shape.channels);
    for (const [c, at] of channelByChannel(shape, mask)) symbols[at] = coder.decode(this.rows[c]);
    coder.check();
    return symbols;
  }
}

/** The channel and the index of each symbol to code. @returns {Generator<[c: number, at: number]>} */
function* channelByChannel({ height, width, channels: K }, mask) {
  for (let c = 0; c < K; c++) {
    for (let position = 0; position < height * width; position++) {
      if (!mask || mask[position]) yield [c, position * K + c];
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Context model
// ---------------------------------------------------------------------------------------------------------------------

const NEIGHBOURS = [[0, -1], [-1, -1], [-1, 0], [-1, 1], [0, -2], [-2, 0]]; // (dy, dx), each with dx + 2 dy < 0
const MARGIN = 2; // positions that NEIGHBOURS reach beyond the feature map, above and on both sides
const WEIGHT_BITS = 10; // a weight of 1.0 is 2^10 ...
const HIDDEN_BITS = 8; // ... and a hidden value of 1.0 is 2^8
const HIDDEN_LIMIT = 4 << HIDDEN_BITS; // hidden values are clipped to [0, 4)
const LOGIT_SHIFT = HIDDEN_BITS + 6; // a weight of 1.0 of the last layer is 2^6; logits are in 1/32 of a bit, to base 2

/** The learned entropy model. One of classes, which have no order, has one channel and sees its symbols one-hot. */
export class ContextModel {
  /** @param {Map<string, import("./npz.js").NpyArray>} arrays as context.npz has them */
  constructor(arrays) {
    const [inputs, channels, hidden] = arrays.get("neighbours")?.shape ?? [];
    this.channels = channels;
    this.hidden = hidden;
    this.levels = arrays.get("logits")?.shape[2];
    const [N, C, H, L] = [inputs, channels, hidden, this.levels];
    this.oneHot = C === 1 && N === NEIGHBOURS.length * (L + 1);
    const depth = this.oneHot ? L : C;
    const shapes = { neighbours: [N, C, H], before: [C, C, H], bias1: [C, H], hidden: [C, H, H], bias2: [C, H],
      logits: [C, H, L], bias3: [C, L] };
    for (const [name, shape] of Object.entries(shapes)) {
      const array = arrays.get(name);
      const dtype = name.startsWith("bias") ? "<i4" : "<i2";
      if (array?.dtype !== dtype || String(array.shape) !== String(shape) || N !== NEIGHBOURS.length * (depth + 1)) {
        throw new UserError(`The context model is damaged, or of another version of this project (${name}).`);
      }
    }
    this.depth = depth; // values that the networks see of a position's symbols
    this.scratch = { second: new Int32Array(H), logits: new Int32Array(L) }; // of one symbol: memory for each anew takes longer
    /** @type {Record<string, Int32Array>} */
    this.weights = Object.fromEntries([...arrays].map(([name, { data }]) => [name, Int32Array.from(data)]));
  }

  /** @type {EntropyModel["encode"]} */
  encode(symbols, shape, mask) {
    const coder = new RangeEncoder();
    this.#visit(shape, mask, (at, frequencies) => {
      encodeSymbol(coder, frequencies, symbols[at]);
      return symbols[at];
    });
    return coder.payload();
  }

  /** @type {EntropyModel["decode"]} */
  decode(payload, shape, mask) {
    const coder = new CheckedDecoder(payload);
    const symbols = new Uint8Array(shape.height * shape.width * shape.channels);
    this.#visit(shape, mask, (at, frequencies) => (symbols[at] = coder.decode(frequencies)));
    coder.check();
    return symbols;
  }

  /**
   * Goes over all symbols in the order of coding: diagonals of positions with the same x + 2y; on each, channel by channel;
   * in each channel, from top to bottom.
   * @param {Shape} shape
   * @param {Uint8Array | undefined} mask
   * @param {(at: number, frequencies: Int32Array) => number} code is called with a symbol's index and its frequencies, and
   *     returns the symbol
   */
  #visit({ height, width, channels: K }, mask, code) {
    const field = new Field(height, width, this.depth, mask);
    const frequencies = new Int32Array(this.levels);
    for (const positions of diagonals(height, width)) {
      const diagonal = positions.filter(([y, x]) => !mask || mask[y * width + x]);
      const cells = diagonal.map(([y, x]) => field.cell(y, x));
      const sums = cells.map((cell) => this.#neighbourSums(field, cell, K));
      for (let c = 0; c < K; c++) {
        diagonal.forEach(([y, x], i) => {
          this.#frequencies(c, sums[i], field, cells[i], frequencies);
          const symbol = code((y * width + x) * K + c, frequencies);
          if (this.oneHot) field.values[cells[i] + symbol] = 1;
          else field.values[cells[i] + c] = 2 * symbol - (this.levels - 1);
        });
      }
    }
  }

  /** The first layer's sums from neighbours, for channels 0..K-1: (K, H). */
  #neighbourSums(field, cell, K) {
    const { weights } = this;
    const size = K * this.hidden;
    const row = this.channels * this.hidden;
    const sums = weights.bias1.slice(0, size);
    let input = 0;
    for (const offset of field.offsets) {
      for (let i = 0; i < field.depth; i++, input++) {
        const value = field.values[cell + offset + i];
        if (value === 0) continue;
        for (let j = 0, w = input * row; j < size; j++, w++) sums[j] += Math.imul(value, weights.neighbours[w]);
      }
    }
    return sums;
  }

  /** Writes channel c's table at one position: positive frequencies with the sum 2^16. */
  #frequencies(c, sums, field, cell, table) {
    const { weights, hidden: H, channels: C, levels: L } = this;
    const start = c * H; // of the sums of this channel alone, so they may be overwritten
    for (let k = 0; k < c; k++) {
      const value = field.values[cell + k];
      for (let j = 0, w = (c * C + k) * H; j < H; j++, w++) sums[start + j] += Math.imul(value, weights.before[w]);
    }
    const { second, logits } = this.scratch;
    for (let j = 0; j < H; j++) second[j] = weights.bias2[c * H + j];
    for (let i = 0; i < H; i++) addRow(second, clip(sums[start + i] >> (WEIGHT_BITS - HIDDEN_BITS)), weights.hidden, (c * H + i) * H);
    for (let j = 0; j < L; j++) logits[j] = weights.bias3[c * L + j];
    for (let i = 0; i < H; i++) addRow(logits, clip(second[i] >> WEIGHT_BITS), weights.logits, (c * H + i) * L);
    toFrequencies(logits, table);
  }
}

/** sums += value * row, of the matrix `weights` from index `at` on. */
function addRow(sums, value, weights, at) {
  if (value === 0) return;
  for (let j = 0; j < sums.length; j++) sums[j] += Math.imul(value, weights[at + j]);
}

function clip(value) {
  return value < 0 ? 0 : value < HIDDEN_LIMIT ? value : HIDDEN_LIMIT - 1;
}

/** 2^logits, scaled to whole numbers from 1 up with the sum 2^16. */
function toFrequencies(logits, table) {
  const L = logits.length;
  let most = -Infinity;
  for (let i = 0; i < L; i++) most = Math.max(most, (logits[i] >>= LOGIT_SHIFT));
  let total = 0;
  for (let i = 0; i < L; i++) total += table[i] = POWERS[Math.min(most - logits[i], POWERS.length - 1)];
  let cumulative = 0;
  let bound = 0;
  for (let i = 0; i < L; i++) {
    cumulative += table[i];
    const next = Math.floor((cumulative * (FREQUENCY_SUM - L)) / total); // exact: below 2^53, and far from the next integer
    table[i] = next - bound + 1;
    bound = next;
  }
}

/**
 * Symbols as the networks see them, in a frame of zeros: 2s - (L-1) by channel, or one-hot, and a 1 inside the map; 0 where not
 * known. What the mask leaves out is not inside.
 */
class Field {
  constructor(height, width, depth, mask) {
    this.depth = depth + 1;
    this.stride = width + 2 * MARGIN;
    this.values = new Int32Array((height + MARGIN) * this.stride * this.depth);
    this.offsets = NEIGHBOURS.map(([dy, dx]) => (dy * this.stride + dx) * this.depth);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) this.values[this.cell(y, x) + depth] = !mask || mask[y * width + x] ? 1 : 0;
    }
  }

  /** Index of a position's first value. */
  cell(y, x) {
    return ((y + MARGIN) * this.stride + x + MARGIN) * this.depth;
  }
}

/** Positions [y, x] with the same x + 2y: each sees none of its own diagonal or of a later one. */
function* diagonals(height, width) {
  for (let k = 0; k < width + 2 * height - 2; k++) {
    /** @type {[number, number][]} */
    const positions = [];
    const last = Math.min(height - 1, k >> 1);
    for (let y = Math.max(0, (k - width + 2) >> 1); y <= last; y++) positions.push([y, k - 2 * y]);
    yield positions;
  }
}
