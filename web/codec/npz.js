/** Reads NumPy's .npz: a zip file of .npy arrays. */

import { UserError } from "./errors.js";

/** An array as a file stores it. */
export class NpyArray {
  /**
   * @param {string} dtype
   * @param {number[]} shape
   * @param {Uint8Array} bytes
   */
  constructor(dtype, shape, bytes) {
    this.dtype = dtype;
    this.shape = shape;
    this.bytes = bytes;
  }

  /** The numbers; those of half precision as Float32Array. Made anew each time: of millions of weights, few are ever read here. */
  get data() {
    const bytes = this.bytes.slice(); // from a buffer's start, as numbers of several bytes want it
    if (this.dtype === "<f2") return halves(new Uint16Array(bytes.buffer));
    return new KINDS[this.dtype](bytes.buffer);
  }
}

/**
 * The arrays of an .npz file, by name.
 * @param {ArrayBuffer} buffer
 * @returns {Promise<Map<string, NpyArray>>}
 */
export async function readNpz(buffer) {
  const arrays = new Map();
  for (const { name, method, compressed } of zipEntries(buffer)) {
    const file = method === 0 ? compressed : await inflate(compressed);
    arrays.set(name.replace(/\.npy$/, ""), parseNpy(file));
  }
  return arrays;
}

/** @param {ArrayBuffer} buffer */
function* zipEntries(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22; // of the record that ends a zip file without a comment, as NumPy writes it
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) throw new UserError("A file of the model is not an .npz file.");
  const count = view.getUint16(end + 10, true);
  let entry = view.getUint32(end + 16, true);
  for (let i = 0; i < count; i++) {
    const method = view.getUint16(entry + 10, true);
    const size = view.getUint32(entry + 20, true);
    const [nameLength, extra, comment] = [28, 30, 32].map((at) => view.getUint16(entry + at, true));
    const local = view.getUint32(entry + 42, true);
    const name = new TextDecoder().decode(new Uint8Array(buffer, entry + 46, nameLength));
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    yield { name, method, compressed: new Uint8Array(buffer, start, size) };
    entry += 46 + nameLength + extra + comment;
  }
}

/** @param {Uint8Array<ArrayBuffer>} data */
async function inflate(data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const KINDS = { "<f4": Float32Array, "<i2": Int16Array, "<i4": Int32Array, "<u4": Uint32Array };

/**
 * @param {Uint8Array} file
 * @returns {NpyArray}
 */
export function parseNpy(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const long = file[6] > 1; // format versions from 2 up have a longer length
  const start = (long ? 12 : 10) + (long ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(file.subarray(10, start));
  const dtype = /'descr': '([^']+)'/.exec(header)?.[1] ?? "";
  const shape = (/'shape': \(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((side) => side.trim()).map(Number);
  if (header.includes("'fortran_order': True")) throw new UserError("An array of the model is in Fortran's order.");
  if (dtype !== "<f2" && !KINDS[dtype]) throw new UserError(`An array of the model has the type ${dtype}, which this page cannot read.`);
  return new NpyArray(dtype, shape, file.subarray(start));
}

/**
 * Half-precision numbers.
 * @param {Uint16Array} bits
 */
function halves(bits) {
  return Float32Array.from(bits, (half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1024 + fraction) * 2 ** (exponent - 25);
  });
}
