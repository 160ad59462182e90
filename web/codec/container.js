/**
 * The compressed file, `.gc`: its container, format version 2, little-endian.
 *
 *     offset  bytes  what
 *          0      2  magic, "gc"
 *          2      1  format version, 2
 *          3      1  K, how many channels of the feature map were sent, 1..255
 *          4      2  image width in pixels, 1..65535
 *          6      2  image height in pixels, 1..65535
 *          8      4  fingerprint of the model
 *         12      n  payload: the symbols, range coded in whole 32-bit words
 *       12+n      4  CRC-32 of everything before it
 */

import { UserError } from "./errors.js";

export const VERSION = 2;
export const MAX_SIDE = 65535;
const HEADER = 12; // bytes before the payload
const CRC = 4; // bytes after it

/**
 * What a .gc file says. `crc` also seeds the decoder's noise.
 * @typedef {{width: number, height: number, channels: number, fingerprint: string, payload: Uint8Array, crc: number}} GcFile
 */

/**
 * The bytes of a .gc file.
 * @param {{width: number, height: number, channels: number, fingerprint: string, payload: Uint8Array}} file
 *     fingerprint: 8 hexadecimal digits
 * @returns {Uint8Array}
 */
export function pack({ width, height, channels, fingerprint, payload }) {
  if (Math.max(width, height) > MAX_SIDE) {
    throw new UserError(`The picture is ${width}x${height} pixels; the file format takes sides up to ${MAX_SIDE}.`);
  }
  const data = new Uint8Array(HEADER + payload.length + CRC);
  const view = new DataView(data.buffer);
  data.set([0x67, 0x63, VERSION, channels]); // "gc"
  view.setUint16(4, width, true);
  view.setUint16(6, height, true);
  view.setUint32(8, parseInt(fingerprint, 16), false);
  data.set(payload, HEADER);
  view.setUint32(data.length - CRC, crc32(data.subarray(0, -CRC)), true);
  return data;
}

/**
 * The inverse of pack. Throws UserError for anything that pack did not make.
 * @param {Uint8Array} data
 * @returns {GcFile}
 */
export function unpack(data) {
  if (!looksLikeGc(data)) {
    throw new UserError("This is not a .gc file: it does not start with “gc”.");
  }
  if (data.length < HEADER + CRC) {
    throw new UserError(`This .gc file is cut short: it has only ${data.length} bytes.`);
  }
  if (data[2] !== VERSION) {
    throw new UserError(`This .gc file has format version ${data[2]}; this page reads version ${VERSION}.`);
  }
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const crc = view.getUint32(data.length - CRC, true);
  if (crc32(data.subarray(0, -CRC)) !== crc) {
    throw new UserError("This .gc file is damaged: its checksum does not match.");
  }
  const [channels, width, height] = [data[3], view.getUint16(4, true), view.getUint16(6, true)];
  if (!(channels && width && height)) {
    throw new UserError(`This is not a valid .gc file: ${width}x${height} pixels, ${channels} channels.`);
  }
  const fingerprint = view.getUint32(8, false).toString(16).padStart(8, "0");
  return { width, height, channels, fingerprint, payload: data.slice(HEADER, -CRC), crc };
}

/**
 * Whether the bytes start as a .gc file does; what follows may still be wrong.
 * @param {Uint8Array} data
 */
export function looksLikeGc(data) {
  return data[0] === 0x67 && data[1] === 0x63;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/**
 * CRC-32, as zlib's.
 * @param {Uint8Array} data
 * @returns {number} 0 .. 2^32 - 1
 */
export function crc32(data) {
  let crc = -1;
  for (const byte of data) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
