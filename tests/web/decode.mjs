/**
 * Decodes a file by the page's modules, in Node: node tests/web/decode.mjs CHECKPOINT FILE.gc FOLDER
 *
 * Writes the file's contents to the folder as raw bytes: "symbols", "code" and "mask", as far as the model has them, and
 * "picture" in RGBA. See tests/page.py, which reads them.
 */

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";

import * as ort from "../../web/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { readCheckpoint } from "../../web/codec/checkpoint.js";
import { Codec } from "../../web/codec/codec.js";
import { unpack } from "../../web/codec/container.js";
import { runtimeOf } from "../../web/codec/runtime.js";

const [folder, source, out] = process.argv.slice(2);

/** @param {string} file */
async function read(file) {
  const bytes = await readFile(path.join(folder, file)).catch(() => null);
  return bytes && new Uint8Array(bytes).buffer;
}

ort.env.wasm.numThreads = 1;
const bytes = new Uint8Array(await readFile(source));
const file = unpack(bytes);
const codec = new Codec(await readCheckpoint(read, file.fingerprint), runtimeOf(ort, "wasm"));
const { picture } = await codec.decode(bytes);
const results = { ...codec.contents(file), picture: picture.data };
for (const [name, data] of Object.entries(results)) await writeFile(path.join(out, name), data);
