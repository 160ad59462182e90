/**
 * Does the work beside the page, so that the page stays responsive. It is asked for one job at a time:
 *
 *     {id, file, map, model}   a photo or a .gc file, a Blob; the photo's label map, if there is one; and the name of the model
 *                              to compress with
 *
 * and answers with any number of {id, status}, then {id, result} or {id, error}.
 */

import { readCheckpoint } from "./codec/checkpoint.js";
import { Codec } from "./codec/codec.js";
import { codedSize, looksLikeGc, unpack } from "./codec/container.js";
import { UserError } from "./codec/errors.js";
import { openRuntime } from "./codec/runtime.js";
import { readLabelMap, readPhoto } from "./photos.js";

const MAX_FILE = 64_000_000; // bytes
const MAX_DECODED = 4_000_000; // pixels at the coded size; the networks take about 400 bytes of memory for each
const MAX_SHOWN = 25_000_000; // pixels of the picture, as decompress.py has it

/**
 * What serve.py says of a model. label_map: its files have one; compresses: whether this page can also make its files.
 * @typedef {{name: string, folder: string, fingerprint: string, label_map: boolean, compresses: boolean}} ModelInfo
 */

/** @type {Promise<ModelInfo[]>} */
const models = fetch("models.json").then((response) => response.json());
const runtime = openRuntime();
/** Loaded when first used, by name. @type {Map<string, Promise<Codec>>} */
const codecs = new Map();

self.onmessage = async ({ data: { id, file, map, model } }) => {
  const status = (text) => self.postMessage({ id, status: text });
  try {
    const result = await work(file, map, model, status);
    self.postMessage({ id, result: { ...result, engine: (await runtime).name } });
  } catch (error) {
    if (!(error instanceof UserError)) console.error(error);
    const message = error instanceof UserError ? error.message : `That did not work: ${error.message ?? error}`;
    self.postMessage({ id, error: message });
  }
};

async function work(file, map, model, status) {
  if (file.size > MAX_FILE) {
    throw new UserError(`${file.name} has ${Math.round(file.size / 1e6)} MB; this page takes files up to ${MAX_FILE / 1e6} MB.`);
  }
  const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  return looksLikeGc(start) || /\.gc$/i.test(file.name) ? decodeFile(file, status) : compressPhoto(file, map, model, status);
}

async function compressPhoto(file, map, name, status) {
  const photo = await readPhoto(file);
  const model = (await models).find((each) => each.name === name);
  if (!model) throw new UserError("No model of this page compresses photos; it only decodes .gc files.");
  if (model.label_map && !map) throw new UserError(`${name} also needs the photo's label map; add it below.`);
  const codec = await load(model, status);
  const classes = model.label_map ? await readLabelMap(map, photo, codec.checkpoint.labels) : undefined;
  const { picture, shrunkFrom } = photo;
  await codec.network("encoder");
  status("Compressing …");
  const { bytes, seconds: encoding } = await codec.encode(picture, classes);
  await codec.network("generator");
  status("Decoding …");
  const { picture: decoded, seconds: decoding } = await codec.decode(bytes);
  return { original: picture, shrunkFrom, decoded, bytes, encoding, decoding, model: name };
}

async function decodeFile(file, status) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const header = unpack(bytes);
  const { width, height, fingerprint } = header;
  const coded = codedSize(header);
  if (coded.width * coded.height > MAX_DECODED || width * height > MAX_SHOWN) {
    throw new UserError(`This .gc file holds ${width}x${height} pixels, more than this page can decode; decompress.py can.`);
  }
  const model = (await models).find((each) => each.fingerprint === fingerprint);
  if (!model) {
    throw new UserError(`This .gc file was made with a model that this page does not have (its fingerprint is ${fingerprint}).`);
  }
  const codec = await load(model, status);
  await codec.network("generator");
  status("Decoding …");
  const { picture: decoded, seconds: decoding } = await codec.decode(bytes);
  return { decoded, coded: header.scale ? coded : undefined, bytes, decoding, model: model.name };
}

/** @param {ModelInfo} model */
async function load(model, status) {
  if (!codecs.has(model.name)) {
    status("Loading the model …");
    const checkpoint = readCheckpoint(reader(model.folder), model.fingerprint);
    const loading = Promise.all([checkpoint, runtime]).then(([files, opened]) => new Codec(files, opened.runtime));
    loading.catch(() => codecs.delete(model.name)); // so that the next try is a new one
    codecs.set(model.name, loading);
  }
  return codecs.get(model.name);
}

function reader(folder) {
  return async (file) => {
    const response = await fetch(`${folder}/${file}`).catch(() => {
      throw new UserError("The model cannot be loaded: the server does not answer, and this model was not used before.");
    });
    if (response.ok) return response.arrayBuffer();
    if (response.status === 404) return null;
    throw new UserError(`The model cannot be loaded: the server answers ${response.status} for ${file}.`);
  };
}
