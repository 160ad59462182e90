/** Fits a picture into so many bytes, by the choice of the model and of the size at which it is coded, as gcodec/budget.py does. */

import { codedSize, MAX_SCALE } from "./container.js";
import { UserError } from "./errors.js";
import { quality } from "./quality.js";

const OVERHEAD = 14; // bytes of a photo's file beside the payload
const SHRINKAGE = 0.2; // log2 of how much the payload shrinks from one scale to the next; only a first guess
const DENSITY = 0.0025; // bytes of payload a pixel, by which the search guesses the size that it tries first

/** @typedef {(scale: number) => Promise<Uint8Array>} Encode a picture's file at a scale */

/**
 * The best file of a picture with at most maxBytes bytes. Of each model, the largest coded size that fits is tried; of these files,
 * the one with the highest quality is taken. Throws UserError that names a sufficient budget if none fits.
 * @param {import("./pictures.js").Picture} picture
 * @param {import("./codec.js").Codec[]} codecs
 * @param {number} maxBytes
 * @param {(codec: number, size: {width: number, height: number}) => void} tell is called before each file that is made
 * @returns {Promise<{codec: number, bytes: Uint8Array, picture: import("./pictures.js").Picture, encoding: number, decoding: number}>}
 *     codec: its index; seconds to find the file, and to decode it
 */
export async function bestFile(picture, codecs, maxBytes, tell = () => {}) {
  const start = performance.now();
  const encoders = codecs.map((codec, i) => remembering(async (scale) => {
    tell(i, codedSize({ ...picture, scale }));
    return (await codec.encode(picture, undefined, scale)).bytes;
  }));
  const tried = [];
  for (const [i, encode] of encoders.entries()) {
    const scale = await smallestScale(encode, maxBytes, firstGuess(picture, maxBytes));
    if (scale === null) continue;
    const bytes = await encode(scale);
    tell(i, codedSize({ ...picture, scale }));
    const { picture: decoded, seconds } = await codecs[i].decode(bytes);
    tried.push({ codec: i, bytes, picture: decoded, decoding: Object.values(seconds).reduce((a, b) => a + b) });
  }
  if (!tried.length) {
    const sizes = [];
    for (const encode of encoders) sizes.push((await encode(MAX_SCALE)).length);
    throw new UserError(`The photo does not fit into ${maxBytes} bytes; ${Math.min(...sizes)} are enough.`);
  }
  const qualities = tried.map((file) => (tried.length > 1 ? quality(picture, file.picture) : 0));
  const best = tried[qualities.indexOf(Math.max(...qualities))];
  return { ...best, encoding: (performance.now() - start) / 1000 - best.decoding };
}

/** Makes the file of each scale once. @param {Encode} encode @returns {Encode} */
function remembering(encode) {
  /** @type {Map<number, Promise<Uint8Array>>} */
  const files = new Map();
  return (scale) => {
    if (!files.has(scale)) files.set(scale, encode(scale));
    return files.get(scale);
  };
}

/** The scale at which a picture of average detail has about maxBytes bytes. */
function firstGuess({ width, height }, maxBytes) {
  const away = Math.log2((width * height * DENSITY) / Math.max(1, maxBytes - OVERHEAD)) / SHRINKAGE;
  return Math.min(MAX_SCALE, Math.max(0, Math.round(away)));
}

/**
 * A scale whose file fits and whose next smaller one does not; null if the file at MAX_SCALE is too large.
 * @param {Encode} encode
 */
export async function smallestScale(encode, maxBytes, guess) {
  if (maxBytes <= OVERHEAD) return null;
  let [tooLarge, fits] = [-1, MAX_SCALE + 1];
  while (fits - tooLarge > 1) {
    const size = (await encode(guess)).length;
    if (size <= maxBytes) fits = guess;
    else tooLarge = guess;
    const away = Math.log2(Math.max(1, size - OVERHEAD) / (maxBytes - OVERHEAD)) / SHRINKAGE;
    guess = Math.min(fits - 1, Math.max(tooLarge + 1, guess + Math.ceil(away)));
  }
  return fits <= MAX_SCALE ? fits : null;
}
