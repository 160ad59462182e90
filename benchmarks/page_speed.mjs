/**
 * The CPU time that the page takes to decode a file, in Node, by WebAssembly on one thread:
 *
 *     python3 compress.py -i images/kodim21.png -o kodim21.gc
 *     node benchmarks/page_speed.mjs checkpoints/photo_c8 kodim21.gc [REPETITIONS]    # needs `npm ci` in web/
 *
 * CPU time is that of the whole process, and differs less than the clock's on a machine that is shared. The last line is the
 * least of some repetitions (3); the line before it, the first decoding, when the network has just been made.
 */

import { readFile } from "node:fs/promises";
import path from "node:path";

import { readCheckpoint } from "../web/codec/checkpoint.js";
import { Codec } from "../web/codec/codec.js";
import { unpack } from "../web/codec/container.js";
import { runtimeOf } from "../web/codec/runtime.js";
import * as ort from "../web/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const [folder, source, repetitions = "3"] = process.argv.slice(2);

/** @param {string} file */
async function read(file) {
  const bytes = await readFile(path.join(folder, file)).catch(() => null);
  return bytes && new Uint8Array(bytes).buffer;
}

/** Does something; returns its result and the CPU seconds that it took. */
async function timed(action) {
  const start = process.cpuUsage();
  const result = await action();
  const { user, system } = process.cpuUsage(start);
  return { result, seconds: (user + system) / 1e6 };
}

const report = (what, seconds) => console.log(`${what.padEnd(16)}${seconds.toFixed(2)} s of CPU time`);

ort.env.wasm.numThreads = 1;
const bytes = new Uint8Array(await readFile(source));
const { width, height, fingerprint } = unpack(bytes);
const { result: codec, seconds: loading } = await timed(async () => {
  const opened = new Codec(await readCheckpoint(read, fingerprint), runtimeOf(ort, "wasm"));
  await opened.network("generator");
  return opened;
});
console.log(`${path.basename(source)}: ${width}x${height}, ${bytes.length} bytes`);
report("loading", loading);
const decoding = [];
for (let i = 0; i <= Number(repetitions); i++) decoding.push((await timed(() => codec.decode(bytes))).seconds);
report("decoding", decoding[0]);
report("decoding again", Math.min(...decoding.slice(1)));
