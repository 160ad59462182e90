/**
 * A picture to the bytes of a .gc file and back:
 *
 *     picture ─▶ encoder ─▶ nearest centers ─▶ symbols ─▶ entropy coder ─▶ container ─▶ bytes
 *     bytes ─▶ container ─▶ entropy decoder ─▶ symbols ─▶ centers, and noise ─▶ generator ─▶ picture, enlarged
 */

import { codedSize, pack, unpack } from "./container.js";
import { UserError } from "./errors.js";
import { noise } from "./noise.js";
import { enlarge, fromNetwork, paddedSide, STRIDE, toNetwork } from "./pictures.js";

/** Values of a shape (1, height, width, depth) to values. @typedef {(values: Float32Array, shape: number[]) => Promise<Float32Array>} Network */

/**
 * What makes a network of an ONNX graph and its weights, which the graph names "weights.bin".
 * @typedef {(graph: Uint8Array, weights: Uint8Array) => Promise<Network>} Runtime
 */

/** Seconds that the parts took. @typedef {{network: number, entropy: number, noise: number, enlarging: number}} Seconds */

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

  /** @param {"encoder" | "generator"} name */
  network(name) {
    const { graph, weights } = this.checkpoint;
    return (this.#networks[name] ??= graph(name).then((bytes) => this.runtime(bytes, weights)));
  }

  /**
   * @param {import("./pictures.js").Picture} picture
   * @returns {Promise<{bytes: Uint8Array, seconds: Seconds}>}
   */
  async encode(picture) {
    const { width, height } = picture;
    const { channels, centers, entropy, fingerprint } = this.checkpoint;
    const encoder = await this.network("encoder");
    const clock = new Clock();
    const w = await encoder(toNetwork(picture), [1, paddedSide(height), paddedSide(width), 3]);
    const symbols = Uint8Array.from(w, (value) => nearest(centers, value));
    clock.lap("network");
    const payload = entropy.encode(symbols, shapeOf(width, height, channels));
    clock.lap("entropy");
    return { bytes: pack({ width, height, scale: 0, channels: 0, fingerprint, payload }), seconds: clock.seconds };
  }

  /**
   * The inverse of encode, but for the loss. Throws UserError for damage, or for another model's file.
   * @param {Uint8Array} bytes
   * @returns {Promise<{picture: import("./pictures.js").Picture, seconds: Seconds}>}
   */
  async decode(bytes) {
    const file = unpack(bytes);
    const { channels, noiseChannels, entropy, fingerprint } = this.checkpoint;
    if (file.fingerprint !== fingerprint) throw new UserError("This .gc file was made with another model.");
    if (file.channels >= channels) {
      throw new UserError(`This .gc file is damaged: it says ${file.channels} channels, of a model of ${channels}.`);
    }
    const coded = codedSize(file);
    const generator = await this.network("generator");
    const clock = new Clock();
    const shape = shapeOf(coded.width, coded.height, file.channels || channels);
    const symbols = entropy.decode(file.payload, shape);
    clock.lap("entropy");
    const v = noise(shape.height * shape.width * noiseChannels, file.crc);
    clock.lap("noise");
    const x = await generator(this.#seen(symbols, shape, v), [1, shape.height, shape.width, channels + noiseChannels]);
    const small = fromNetwork(x, coded.width, coded.height);
    clock.lap("network");
    const picture = enlarge(small, file.width, file.height);
    clock.lap("enlarging");
    return { picture, seconds: clock.seconds };
  }

  /**
   * What the generator sees, position by position: the symbols' centers, 0 for channels not sent, and the noise.
   * @param {Uint8Array} symbols
   * @param {import("./entropy.js").Shape} shape
   * @param {Float32Array} v
   */
  #seen(symbols, { height, width, channels: K }, v) {
    const { channels, noiseChannels, centers } = this.checkpoint;
    const depth = channels + noiseChannels;
    const z = new Float32Array(height * width * depth);
    for (let position = 0; position < height * width; position++) {
      for (let c = 0; c < K; c++) z[position * depth + c] = centers[symbols[position * K + c]];
      z.set(v.subarray(position * noiseChannels, (position + 1) * noiseChannels), position * depth + channels);
    }
    return z;
  }
}

/**
 * The shape of the symbols of a picture of this size.
 * @returns {import("./entropy.js").Shape}
 */
function shapeOf(width, height, channels) {
  return { height: paddedSide(height) / STRIDE, width: paddedSide(width) / STRIDE, channels };
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
  seconds = { network: 0, entropy: 0, noise: 0, enlarging: 0 };
  #start = performance.now();

  /** What passed since the last lap belongs to `name`. @param {keyof Seconds} name */
  lap(name) {
    const now = performance.now();
    this.seconds[name] += (now - this.#start) / 1000;
    this.#start = now;
  }
}
