/**
 * A model's files, as the project ships them:
 *
 *     config.json                     the knobs
 *     model.npz                       weights, in half precision, and static tables of symbol frequencies
 *     context.npz                     the context model, where there is one
 *     encoder.onnx, generator.onnx    the networks without their weights: these are in "weights.bin", which is made here
 */

import { ContextModel, StaticTables } from "./entropy.js";
import { UserError } from "./errors.js";
import { readNpz } from "./npz.js";

/**
 * @typedef {object} Checkpoint
 * @property {string} fingerprint 8 hexadecimal digits that each of its files has
 * @property {number} channels of the feature map
 * @property {number} noiseChannels that the generator sees beside them
 * @property {Float32Array} centers of the quantizer: the values that symbols stand for
 * @property {import("./entropy.js").EntropyModel} entropy
 * @property {Uint8Array} weights "weights.bin", as the graphs know it
 * @property {(network: "encoder" | "generator") => Promise<Uint8Array>} graph
 */

/**
 * @param {(file: string) => Promise<ArrayBuffer | null>} read a file of the checkpoint; null where there is none
 * @param {string} fingerprint
 * @returns {Promise<Checkpoint>}
 */
export async function readCheckpoint(read, fingerprint) {
  /** @param {string} file */
  const required = async (file) => {
    const buffer = await read(file);
    if (!buffer) throw new UserError(`The model cannot be loaded: its file ${file} is missing.`);
    return buffer;
  };
  const [config, arrays, context] = await Promise.all([
    required("config.json").then((buffer) => JSON.parse(new TextDecoder().decode(buffer))),
    required("model.npz").then(readNpz),
    read("context.npz").then((buffer) => buffer && readNpz(buffer)),
  ]);
  if (config.use_conditional_GAN || (config.sample_noise && config.noise_mode === "dcgan")) {
    throw new UserError("This model needs a label map or a noise network, which this page does not have.");
  }
  return {
    fingerprint,
    channels: config.channel_bottleneck,
    noiseChannels: noiseChannels(config),
    centers: /** @type {Float32Array} */ (arrays.get("quantizer/Quantizer_0/centers").data),
    entropy: context ? new ContextModel(context) : new StaticTables(arrays.get("frequencies")),
    weights: concatenated(arrays),
    graph: async (network) => new Uint8Array(await required(`${network}.onnx`)),
  };
}

/** How many values of noise the generator sees at 1/16 of the size; `layers`: one for each pixel of each block's output. */
function noiseChannels(config) {
  if (!config.sample_noise) return 0;
  if (config.noise_mode === "map") return config.channel_bottleneck;
  return 1 + config.n_residual_blocks + 2 ** 2 + 4 ** 2 + 8 ** 2 + 16 ** 2;
}

/** The arrays as they are in model.npz, one after the other, sorted by name. */
function concatenated(arrays) {
  const parts = [...arrays.keys()].sort().map((name) => arrays.get(name).bytes);
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
