/**
 * The compressed file, `.gc`: its container, format version 3.
 *
 *     bytes  what
 *         1  magic, "g"
 *         1  version and flags: bit 7 is 1 from version 3 on; bit 6 says that K follows; bits 0..5 are the scale
 *      1..3  image width in pixels, 1..65535, a variable-length integer
 *      1..3  image height in pixels, likewise
 *       0,1  K, how many channels of the feature map were sent, 1..255; without it, all of them
 *         4  fingerprint of the model
 *         n  payload: one to three sections, range coded
 *         4  CRC-32 of everything before it, little-endian
 *
 * The image was scaled by 2^(-scale/8) before it was coded; see `codedSize`. The length of the payload is what is left of the
 * file. The model decides how many sections it has; see `split`.
 */

import { UserError } from "./errors.js";
import { POWERS, readVarint, varint } from "./integers.js";

export const VERSION = 3;
export const MAX_SIDE = 65535;
const MAGIC = 0x67; // "g"
const OLD_VERSIONS = 0x63; // "c": the second byte of versions 1 and 2
const VERSION_BIT = 0x80;
const CHANNELS_BIT = 0x40;
export const MAX_SCALE = 0x3f;
const FINGERPRINT = 4; // bytes
const CRC = 4; // bytes
const SMALLEST = 4 + FINGERPRINT + CRC; // bytes, of a file
const POWERS_A_SCALE = 4; // the scale counts eighths of a power of two, POWERS 32nds

/**
 * What a .gc file says before its payload. scale: 0..63; channels: 0 for all that the model has; fingerprint: 8 hexadecimal
 * digits.
 * @typedef {{width: number, height: number, scale: number, channels: number, fingerprint: string}} Header
 */

/** What a .gc file says. `crc` also seeds the decoder's noise. @typedef {Header & {payload: Uint8Array, crc: number}} GcFile */

/**
 * The size in pixels at which an image is coded: its own times 2^(-scale/8), rounded, and at least 1.
 * @param {{width: number, height: number, scale: number}} header
 * @returns {{width: number, height: number}}
 */
export function codedSize({ width, height, scale }) {
  const factor = POWERS[POWERS_A_SCALE * scale];
  const [codedWidth, codedHeight] = [width, height].map((side) => Math.max(1, Math.floor((side * factor + 2 ** 15) / 2 ** 16)));
  return { width: codedWidth, height: codedHeight };
}

/**
 * The bytes of a .gc file.
 * @param {Header & {payload: Uint8Array}} file
 * @returns {Uint8Array}
 */
export function pack({ width, height, scale, channels, fingerprint, payload }) {
  if (Math.max(width, height) > MAX_SIDE) {
    throw new UserError(`The picture is ${width}x${height} pixels; the file format takes sides up to ${MAX_SIDE}.`);
  }
  const flags = VERSION_BIT | (channels ? CHANNELS_BIT : 0) | scale;
  const model = [0, 2, 4, 6].map((at) => parseInt(fingerprint.slice(at, at + 2), 16));
  const header = [MAGIC, flags, ...varint(width), ...varint(height), ...(channels ? [channels] : []), ...model];
  const data = new Uint8Array(header.length + payload.length + CRC);
  data.set(header);
  data.set(payload, header.length);
  new DataView(data.buffer).setUint32(data.length - CRC, crc32(data.subarray(0, -CRC)), true);
  return data;
}

/**
 * The inverse of pack. Throws UserError for anything that pack did not make.
 * @param {Uint8Array} data
 * @returns {GcFile}
 */
export function unpack(data) {
  checkMagic(data);
  if (data.length < SMALLEST) {
    throw new UserError(`This .gc file is cut short: it has only ${data.length} bytes.`);
  }
  const body = data.subarray(0, -CRC);
  const crc = new DataView(data.buffer, data.byteOffset, data.length).getUint32(body.length, true);
  if (crc32(body) !== crc) {
    throw new UserError("This .gc file is damaged: its checksum does not match.");
  }
  const { header, end } = readHeader(body);
  return { ...header, payload: body.slice(end), crc };
}

/**
 * The payload of some sections: before each but the last, its length as a variable-length integer.
 * @param {Uint8Array[]} sections
 * @returns {Uint8Array}
 */
export function join(sections) {
  const last = sections.length - 1;
  return Uint8Array.from(sections.flatMap((section, i) => [...(i < last ? varint(section.length) : []), ...section]));
}

/**
 * The inverse of join. Throws UserError for a payload that ends within a section.
 * @param {Uint8Array} payload
 * @param {number} count how many sections there are
 * @returns {Uint8Array[]}
 */
export function split(payload, count) {
  const sections = [];
  let at = 0;
  while (sections.length < count - 1) {
    const [length, start] = readVarint(payload, at);
    at = start + length;
    if (at > payload.length) throw new UserError("This .gc file is damaged: it ends within a section.");
    sections.push(payload.slice(start, at));
  }
  return [...sections, payload.slice(at)];
}

/** Throws UserError for data that is no .gc file of this version. @param {Uint8Array} data */
function checkMagic(data) {
  if (!looksLikeGc(data)) {
    throw new UserError("This is not a .gc file: it does not start as one.");
  }
  if (data[1] === OLD_VERSIONS) {
    throw new UserError(`This .gc file has format version ${data[2] ?? "1 or 2"}; this page reads version ${VERSION}.`);
  }
}

/**
 * The header, and the offset of the payload behind it. Throws UserError for one that pack does not write.
 * @param {Uint8Array} body the file without its checksum
 * @returns {{header: Header, end: number}}
 */
function readHeader(body) {
  const flags = body[1];
  const [width, afterWidth] = readVarint(body, 2);
  const [height, afterHeight] = readVarint(body, afterWidth);
  const hasChannels = Boolean(flags & CHANNELS_BIT);
  const channels = hasChannels ? body[afterHeight] : 0;
  const start = afterHeight + (hasChannels ? 1 : 0);
  const end = start + FINGERPRINT;
  if (end > body.length) {
    throw new UserError("This .gc file is damaged: it ends within its header.");
  }
  const valid = [width, height].every((side) => side > 0 && side <= MAX_SIDE) && (channels > 0 || !hasChannels);
  if (!valid) {
    throw new UserError(`This is not a valid .gc file: ${width}x${height} pixels, ${channels} channels.`);
  }
  const fingerprint = Array.from(body.subarray(start, end), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { header: { width, height, scale: flags & MAX_SCALE, channels, fingerprint }, end };
}

/**
 * Whether the bytes start as a .gc file of any version does; what follows may still be wrong.
 * @param {Uint8Array} data
 */
export function looksLikeGc(data) {
  return data[0] === MAGIC && (data[1] >= VERSION_BIT || data[1] === OLD_VERSIONS);
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
