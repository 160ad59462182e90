/**
 * A picture to the bytes of a .gc file and back:
 *
 *     picture ─▶ encoder ─▶ nearest centers ─▶ symbols ─▶ entropy coder ─▶ container ─▶ bytes
 *     bytes ─▶ container ─▶ entropy decoder ─▶ symbols ─▶ centers, and noise ─▶ generator ─▶ picture, enlarged
 *
 * The files of some models also hold a label map and a heat map, which the generator sees beside the centers.
 */

import { codedSize, join, pack, split, unpack } from "./container.js";
import { UserError } from "./errors.js";
import { mapSymbols, oneHotBlocks } from "./label_code.js";
import { noise } from "./noise.js";
import { fromNetwork, paddedSide, resize, STRIDE, toNetwork } from "./pictures.js";

/** Values and their shape, whose first side is 1. @typedef {[values: Float32Array, shape: number[]]} Tensor */

/** From its inputs, in the graph's order, to the values of its output. @typedef {(...inputs: Tensor[]) => Promise<Float32Array>} Network */

/**
 * What makes a network of an ONNX graph and its weights, which the graph names "weights.bin".
 * @typedef {(graph: Uint8Array, weights: Uint8Array) => Promise<Network>} Runtime
 */

/**
 * What a file holds of a picture; `code` is of the label map, `mask` the heat map, for models that have these.
 * @typedef {{symbols: Uint8Array, code?: Uint8Array, mask?: Uint8Array}} Contents
 */

/** Seconds that the parts took. @typedef {{network: number, entropy: number, noise: number, resizing: number}} Seconds */

export class Codec {
  /** Made when first used. @type {Record<string, Promise<Network>>} */
  #networks = {};

  /**
   * @param {import("./checkpoint.js").Checkpoint} checkpoint
   * @param {Runtime} runtime
   */
  constructor(checkpoint, runtime) {
    this.checkpoint = checkpoint;
    this.runtime = runtime;
  }

  /** @param {import("./checkpoint.js").NetworkName} name */
  network(name) {
    const { graph, weights } = this.checkpoint;
    return (this.#networks[name] ??= graph(name).then((bytes) => this.runtime(bytes, weights)));
  }

  /**
   * @param {import("./pictures.js").Picture} picture
   * @param {Uint8Array} [map] the class of each pixel, for a model whose files have a label map. All of the picture is preserved.
   * @param {number} [scale] 0..63: the picture is coded at 2^(-scale/8) times its size. It does not go with a label map.
   * @returns {Promise<{bytes: Uint8Array, seconds: Seconds}>}
   */
  async encode(picture, map, scale = 0) {
    const { width, height } = picture;
    const size = codedSize({ width, height, scale });
    const { channels, centers, fingerprint, parts, labels } = this.checkpoint;
    const encoder = await this.network("encoder");
    const clock = new Clock();
    const small = resize(picture, size.width, size.height);
    clock.lap("resizing");
    const w = await encoder([toNetwork(small), [1, paddedSide(size.height), paddedSide(size.width), 3]]);
    clock.lap("network");
    /** @type {Contents} */
    const contents = {
      symbols: Uint8Array.from(w, (value) => nearest(centers, value)),
      mask: new Uint8Array(w.length / channels).fill(1),
      code: labels ? mapSymbols(map, size, labels) : undefined,
    };
    const sections = parts.map((part) => part.entropy.encode(contents[part.name], shapeOf(part, size)));
    clock.lap("entropy");
    const bytes = pack({ width, height, scale, channels: 0, fingerprint, payload: join(sections) });
    return { bytes, seconds: clock.seconds };
  }

  /**
   * The inverse of encode, but for the loss. Throws UserError for damage, or for another model's file.
   * @param {Uint8Array} bytes
   * @returns {Promise<{picture: import("./pictures.js").Picture, seconds: Seconds}>}
   */
  async decode(bytes) {
    const file = unpack(bytes);
    const coded = codedSize(file);
    const clock = new Clock();
    const contents = this.contents(file); // while the runtime is loaded, the first time
    clock.lap("entropy");
    const generator = await this.network("generator");
    if (this.checkpoint.noiseDim) await this.network("noise_generator");
    clock.start();
    const [height, width] = [paddedSide(coded.height) / STRIDE, paddedSide(coded.width) / STRIDE];
    const v = await this.#noise(height, width, file.crc);
    clock.lap("noise");
    const z = this.#seen(contents, coded, v);
    const x = await generator([z, [1, height, width, z.length / (height * width)]]);
    const small = fromNetwork(x, coded.width, coded.height);
    clock.lap("network");
    const picture = resize(small, file.width, file.height);
    clock.lap("resizing");
    return { picture, seconds: clock.seconds };
  }

  /**
   * What is in a file. Throws UserError for damage, or for another model's file.
   * @param {import("./container.js").GcFile} file
   * @returns {Contents}
   */
  contents(file) {
    const { channels, parts, fingerprint } = this.checkpoint;
    if (file.fingerprint !== fingerprint) throw new UserError("This .gc file was made with another model.");
    if (file.channels >= channels || (file.scale && parts.length > 1)) {
      const said = `${file.channels} channels, scale ${file.scale}`;
      throw new UserError(`This .gc file is damaged: it says ${said}, of a model of ${channels} channels.`);
    }
    const size = codedSize(file);
    const contents = {};
    split(file.payload, parts.length).forEach((section, i) => {
      const { name, entropy } = parts[i];
      const shape = shapeOf(parts[i], size);
      if (name !== "symbols") contents[name] = entropy.decode(section, shape);
      else contents.symbols = entropy.decode(section, { ...shape, channels: file.channels || channels }, contents.mask);
    });
    return /** @type {Contents} */ (contents);
  }

  /** The noise that the generator sees, by position. A network that makes it is also given a feature map, of which it sees the size alone. */
  async #noise(height, width, crc) {
    const { channels, noiseChannels, noiseDim } = this.checkpoint;
    if (!noiseDim) return noise(height * width * noiseChannels, crc);
    const network = await this.network("noise_generator");
    const shape = [1, height, width, channels];
    return network([noise(noiseDim, crc), [1, noiseDim]], [new Float32Array(height * width * channels), shape]);
  }

  /**
   * What the generator sees, position by position: the symbols' centers, the noise, the label map, the heat map.
   * @param {Contents} contents
   * @param {{width: number, height: number}} size coded
   * @param {Float32Array} v
   */
  #seen({ symbols, code, mask }, size, v) {
    const { labels, parts } = this.checkpoint;
    const positions = (paddedSide(size.height) / STRIDE) * (paddedSide(size.width) / STRIDE);
    const seen = [this.#centersOf(symbols, positions, mask), v];
    if (code) seen.push(labels.lossless ? oneHotBlocks(code, shapeOf(parts[0], size), labels) : this.#centersOf(code, positions));
    if (mask) seen.push(Float32Array.from(mask));
    return sideBySide(seen, positions);
  }

  /** The centers of symbols in all C channels: 0 for channels not sent, and where the mask is 0. */
  #centersOf(symbols, positions, mask) {
    const { channels: C, centers } = this.checkpoint;
    const K = symbols.length / positions;
    const w = new Float32Array(positions * C);
    for (let position = 0; position < positions; position++) {
      if (mask && !mask[position]) continue;
      for (let c = 0; c < K; c++) w[position * C + c] = centers[symbols[position * K + c]];
    }
    return w;
  }
}

/**
 * The shape of a section's symbols, of a picture of this size.
 * @param {import("./checkpoint.js").Part} part
 * @param {{width: number, height: number}} size
 * @returns {import("./entropy.js").Shape}
 */
function shapeOf({ side, channels }, { width, height }) {
  return { height: paddedSide(height) / side, width: paddedSide(width) / side, channels };
}

/** Arrays (positions, depth) next to one another: (positions, the sum of their depths). @param {Float32Array[]} arrays */
function sideBySide(arrays, positions) {
  const depth = arrays.reduce((sum, array) => sum + array.length, 0) / positions;
  const all = new Float32Array(positions * depth);
  let start = 0;
  for (const array of arrays) {
    const own = array.length / positions;
    for (let i = 0; i < positions; i++) all.set(array.subarray(i * own, (i + 1) * own), i * depth + start);
    start += own;
  }
  return all;
}

/** Index of the center nearest to a value; of two as near, the lower one. */
function nearest(centers, value) {
  let [best, least] = [0, Infinity];
  for (let i = 0; i < centers.length; i++) {
    const distance = Math.abs(Math.fround(value - centers[i]));
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

/** Sums up seconds by name. */
class Clock {
  /** @type {Seconds} */
  seconds = { network: 0, entropy: 0, noise: 0, resizing: 0 };
  #start = performance.now();

  /** What passed since the last lap counts for nothing. */
  start() {
    this.#start = performance.now();
  }

  /** What passed since the last lap belongs to `name`. @param {keyof Seconds} name */
  lap(name) {
    this.seconds[name] += (performance.now() - this.#start) / 1000;
    this.start();
  }
}
