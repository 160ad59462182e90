/**
 * Does the work beside the page, so that the page stays responsive. It is asked for one job at a time:
 *
 *     {id, file, map, models, model, target}   a photo or a .gc file, a Blob; the photo's label map, if there is one; what
 *                                              models.json says; and for a photo, the name of the model to compress with, or
 *                                              how many bytes its file may have, by any of the photo models
 *
 * and answers with any number of {id, status}, then {id, result} or {id, error, again}. A job is given up by ending the worker.
 */

import { bestFile } from "./codec/best_file.js";
import { readCheckpoint } from "./codec/checkpoint.js";
import { Codec } from "./codec/codec.js";
import { codedSize, looksLikeGc, unpack } from "./codec/container.js";
import { UserError } from "./codec/errors.js";
import { openRuntime } from "./codec/runtime.js";
import { measured, noted } from "./measure.js";
import { readLabelMap, readPhoto, toPng } from "./photos.js";
import { keepOnly, weightStore } from "./weight_store.js";

const MAX_FILE = 64_000_000; // bytes
const MAX_DECODED = 4_000_000; // pixels at the coded size; the networks take about 400 bytes of memory for each
const MAX_SHOWN = 25_000_000; // pixels of the picture, as decompress.py has it

/** @typedef {import("./state.js").ModelInfo} ModelInfo */

/**
 * What became of a file; pictures are PNG files. original: of a photo; coded: the size at which the picture was coded, if that is
 * not its own; encoding: seconds, of a photo.
 * @typedef {{original?: Blob, decoded: Blob, width: number, height: number, coded?: {width: number, height: number},
 *     shrunkFrom?: {width: number, height: number}, bytes: Uint8Array, encoding?: number, decoding: number, model: string,
 *     engine: string}} Result
 */

/** Another try may help, as when the network comes back. */
class NetworkError extends UserError {}

const runtime = measured("runtime", openRuntime).catch((error) => {
  throw new NetworkError(`ONNX Runtime, which runs the networks, does not start (${error.message}).`);
});
/** Loaded when first used, by name. @type {Map<string, Promise<Codec>>} */
const codecs = new Map();

self.onmessage = async ({ data: { id, ...job } }) => {
  const status = (text) => self.postMessage({ id, status: text });
  try {
    const result = await work(job, status);
    self.postMessage({ id, result: { ...result, engine: (await runtime).name } });
  } catch (error) {
    if (!(error instanceof UserError)) console.error(error);
    const message = error instanceof UserError ? error.message : `That did not work: ${error.message ?? error}`;
    self.postMessage({ id, error: message, again: !(error instanceof UserError) || error instanceof NetworkError });
  }
  keepOnly(job.models.map(({ fingerprint }) => fingerprint)).catch(() => {}); // a browser may allow no storage
};

async function work(job, status) {
  const { file } = job;
  if (file.size > MAX_FILE) {
    throw new UserError(`This file has ${Math.round(file.size / 1e6)} MB; this page takes files up to ${MAX_FILE / 1e6} MB.`);
  }
  const content = await file.arrayBuffer().catch(() => {
    throw new UserError("This cannot be read: it is a folder, or was moved or changed since it was chosen.");
  });
  const bytes = new Uint8Array(content);
  if (looksLikeGc(bytes) || /\.gc$/i.test(file.name)) return decodeFile(bytes, job, status);
  const photo = await readPhoto(file);
  const { picture, shrunkFrom } = photo;
  const { width, height } = picture;
  const original = toPng(picture); // beside the networks, on another thread
  const made = await (job.target ? fitPhoto(photo, job, status) : compressPhoto(photo, job, status));
  return { ...made, original: await original, decoded: await toPng(made.decoded), width, height, shrunkFrom };
}

/** By one model, at the photo's own size. */
async function compressPhoto(photo, { map, models, model: name }, status) {
  const model = models.find((each) => each.name === name);
  if (!model) throw new UserError("No model of this page compresses photos; it only decodes .gc files.");
  const codec = await load(model, status);
  const classes = model.label_map ? await readLabelMap(map, photo, codec.checkpoint.labels) : undefined;
  await codec.network("encoder");
  status(`Compressing by ${name} …`);
  const { bytes, seconds: encoding } = await codec.encode(photo.picture, classes);
  await codec.network("generator");
  status("Decoding …");
  const { picture: decoded, seconds: decoding } = await codec.decode(bytes);
  return { decoded, bytes, encoding: sum(encoding), decoding: sum(decoding), model: name };
}

/** Into so many bytes, by the model and at the size that look best. */
async function fitPhoto({ picture }, { models, target }, status) {
  const known = models.filter(({ compresses, label_map: labelMap }) => compresses && !labelMap);
  if (!known.length) throw new UserError("No model of this page compresses photos; it only decodes .gc files.");
  const loaded = [];
  for (const model of known) loaded.push(await load(model, status));
  await runtime; // whose arrival is no part of a try
  const tell = (i, { width, height }) => status(`Trying ${known[i].name} at ${width} × ${height} pixels …`);
  const { codec, bytes, picture: decoded, encoding, decoding } = await bestFile(picture, loaded, target, tell);
  return { decoded, bytes, encoding, decoding, coded: codedSize(unpack(bytes)), model: known[codec].name };
}

async function decodeFile(bytes, { models }, status) {
  const header = unpack(bytes);
  const { width, height, fingerprint } = header;
  const coded = codedSize(header);
  if (width * height > MAX_SHOWN) {
    throw new UserError(`This .gc file holds ${width} × ${height} pixels, more than this page shows (${MAX_SHOWN / 1e6} million).`);
  }
  if (coded.width * coded.height > MAX_DECODED) {
    throw new UserError(`This .gc file holds ${width} × ${height} pixels, more than this page can decode; decompress.py can.`);
  }
  const model = models.find((each) => each.fingerprint === fingerprint);
  if (!model) {
    throw new UserError(`This .gc file was made with a model that this page does not have (its fingerprint is ${fingerprint}).`);
  }
  const codec = await load(model, status);
  runtime.then(() => status("Decoding …"), () => {}); // where it fails, decoding says so
  const { picture, seconds } = await measured("decoding", () => codec.decode(bytes));
  noted("decoding", seconds);
  const decoded = await measured("PNG", () => toPng(picture));
  return { decoded, width, height, coded: header.scale ? coded : undefined, bytes, decoding: sum(seconds), model: model.name };
}

const sum = (seconds) => Object.values(seconds).reduce((a, b) => a + b);

/** @param {ModelInfo} model */
async function load(model, status) {
  if (!codecs.has(model.name)) {
    status(`Loading the model ${model.name} …`);
    const checkpoint = measured("weights", () => readCheckpoint(reader(model.folder), model.fingerprint, weightStore));
    codecs.set(model.name, checkpoint.then((files) => new Codec(files, makeNetwork)));
  }
  return codecs.get(model.name);
}

/** @type {import("./codec/codec.js").Runtime} */
async function makeNetwork(graph, weights) {
  const opened = await runtime;
  return measured("making a network", () => opened.runtime(graph, weights));
}

function reader(folder) {
  return async (file) => {
    const response = await fetch(`${folder}/${file}`).catch(() => {
      throw new NetworkError("The model cannot be loaded: the server does not answer, and this model was not used before.");
    });
    if (response.ok) return response.arrayBuffer();
    if (response.status === 404) return null;
    throw new NetworkError(`The model cannot be loaded: the server answers ${response.status} for ${file}.`);
  };
}
