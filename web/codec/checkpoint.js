/**
 * A model's files, as the project ships them:
 *
 *     config.json                     the knobs
 *     model.npz                       weights, in half precision, and static tables of symbol frequencies
 *     context.npz                     the context model of the symbols, where there is one
 *     context_code.npz                that of label maps, context_mask.npz that of heat maps
 *     encoder.onnx, generator.onnx    the networks without their weights: these are in "weights.bin", which is made here
 *     noise_generator.onnx            the network that makes the noise of some models
 */

import { ContextModel, StaticTables } from "./entropy.js";
import { UserError } from "./errors.js";
import { labelCode } from "./label_code.js";
import { NpyArray, readNpz } from "./npz.js";
import { STRIDE } from "./pictures.js";

/**
 * A section of a file: "symbols" of the feature map, the "code" of a label map, or the heat map, "mask", which is 1 where the
 * picture is preserved.
 * @typedef {object} Part
 * @property {"code" | "mask" | "symbols"} name
 * @property {number} side pixels a side of one of its positions
 * @property {number} channels
 * @property {import("./entropy.js").EntropyModel} entropy
 */

/**
 * All arrays of model.npz, one after the other and sorted by name, as the graphs want them, and where each is.
 * @typedef {{index: {name: string, dtype: string, shape: number[], offset: number, length: number}[], bytes: Uint8Array}} Weights
 */

/**
 * Where weights are kept, by fingerprint, so that they need not be unpacked again.
 * @typedef {{get: (fingerprint: string) => Promise<Weights | null>, put: (fingerprint: string, weights: Weights) => Promise<void>}} WeightStore
 */

/** @typedef {"encoder" | "generator" | "noise_generator"} NetworkName */

/**
 * @typedef {object} Checkpoint
 * @property {string} fingerprint 8 hexadecimal digits that each of its files has
 * @property {number} channels of the feature map
 * @property {number} noiseChannels that the generator sees beside them
 * @property {number} noiseDim how many values the network takes that makes these; 0 for a model without such a network
 * @property {Float32Array} centers of the quantizer: the values that symbols stand for
 * @property {Part[]} parts the sections of a file, in their order; the symbols come last
 * @property {import("./label_code.js").LabelCode | null} labels null for a model whose files have no label map
 * @property {Uint8Array} weights "weights.bin", as the graphs know it
 * @property {(network: NetworkName) => Promise<Uint8Array>} graph
 */

/**
 * @param {(file: string) => Promise<ArrayBuffer | null>} read a file of the checkpoint; null where there is none
 * @param {string} fingerprint
 * @param {WeightStore} [store] of weights that were read before
 * @returns {Promise<Checkpoint>}
 */
export async function readCheckpoint(read, fingerprint, store) {
  /** @param {string} file */
  const required = async (file) => {
    const buffer = await read(file);
    if (!buffer) throw new UserError(`The model cannot be loaded: its file ${file} is missing.`);
    return buffer;
  };
  const [json, weights] = await Promise.all([required("config.json"), readWeights(() => required("model.npz"), fingerprint, store)]);
  const config = JSON.parse(new TextDecoder().decode(json));
  const arrays = arraysOf(weights);
  return {
    fingerprint,
    channels: config.channel_bottleneck,
    noiseChannels: noiseChannels(config),
    noiseDim: config.sample_noise && config.noise_mode === "dcgan" ? config.noise_dim : 0,
    centers: /** @type {Float32Array} */ (arrays.get("quantizer/Quantizer_0/centers").data),
    parts: await readParts(read, config, arrays),
    labels: labelCode(config),
    weights: weights.bytes,
    graph: async (network) => new Uint8Array(await required(`${network}.onnx`)),
  };
}

/** @param {Map<string, NpyArray>} arrays @returns {Promise<Part[]>} */
async function readParts(read, config, arrays) {
  const labels = labelCode(config);
  const [channels, levels] = arrays.get("frequencies").shape;
  const described = [{ name: "symbols", file: "context.npz", side: STRIDE, channels, levels }];
  if (config.selective) described.unshift({ name: "mask", file: "context_mask.npz", side: STRIDE, channels: 1, levels: 2 });
  if (labels) {
    const symbols = labels.lossless ? { channels: 1, levels: labels.classes * (labels.boundaries ? 2 : 1) } : { channels, levels };
    described.unshift({ name: "code", file: "context_code.npz", side: labels.side, ...symbols });
  }
  return Promise.all(described.map(async ({ name, file, side, channels, levels }) => {
    const context = await read(file);
    const tables = () => (name === "symbols" ? new StaticTables(arrays.get("frequencies")) : StaticTables.equal(channels, levels));
    const entropy = context ? new ContextModel(await readNpz(context)) : tables();
    if (entropy.channels !== channels || entropy.levels !== levels) {
      throw new UserError(`The model cannot be loaded: its file ${file} is of another model.`);
    }
    return /** @type {Part} */ ({ name, side, channels, entropy });
  }));
}

/** How many values of noise the generator sees at 1/16 of the size; `layers`: one for each pixel of each block's output. */
function noiseChannels(config) {
  if (!config.sample_noise) return 0;
  if (config.noise_mode !== "layers") return config.channel_bottleneck;
  const upsampling = [2, 4, 8, 16].filter((scale) => scale <= (config.noise_finest ?? 16));
  return upsampling.reduce((sum, scale) => sum + scale ** 2, 1 + config.n_residual_blocks);
}

/** @returns {Promise<Weights>} */
async function readWeights(readModel, fingerprint, store) {
  const kept = await store?.get(fingerprint);
  if (kept) return kept;
  const weights = concatenated(await readNpz(await readModel()));
  store?.put(fingerprint, weights); // which nothing waits for
  return weights;
}

/** @param {Map<string, NpyArray>} arrays @returns {Weights} */
function concatenated(arrays) {
  const index = [];
  let end = 0;
  for (const name of [...arrays.keys()].sort()) {
    const { dtype, shape, bytes } = arrays.get(name);
    index.push({ name, dtype, shape, offset: end, length: bytes.length });
    end += bytes.length;
  }
  const all = new Uint8Array(end);
  for (const { name, offset } of index) all.set(arrays.get(name).bytes, offset);
  return { index, bytes: all };
}

/** @param {Weights} weights */
function arraysOf({ index, bytes }) {
  return new Map(index.map(({ name, dtype, shape, offset, length }) => [name, new NpyArray(dtype, shape, bytes.subarray(offset, offset + length))]));
}
