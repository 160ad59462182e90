/**
 * Label maps: the class of each pixel. A lossless code has one symbol for each block of side x side pixels: the class of the
 * pixel in its middle, plus the number of classes where an instance's boundary crosses the block.
 */

import { UserError } from "./errors.js";
import { paddedSide, STRIDE } from "./pictures.js";

const MAX_VOID_SHARE = 0.95; // a map with more void than this was probably made for other classes

/**
 * What a model's files have of a label map.
 * @typedef {object} LabelCode
 * @property {boolean} lossless else it consists of symbols of a feature map of its own
 * @property {number} side pixels a side of the block that a symbol stands for
 * @property {number} classes how many there are; the last is void, which stands for everything unknown
 * @property {boolean} boundaries whether it tells where the boundaries of instances are
 * @property {number[][]} colours RGB of each class; empty where the knob `classes` does not list them
 */

/** @returns {LabelCode | null} null for a model whose files have no label map */
export function labelCode(config) {
  if (!config.use_conditional_GAN || config.semantic_code === "none") return null;
  const lossless = config.semantic_code === "lossless";
  return {
    lossless,
    side: lossless ? config.semantic_scale : STRIDE,
    classes: config.n_classes,
    boundaries: config.use_instances,
    colours: config.classes ? config.classes.split(",").map((text) => text.trim().split(" ").slice(-3).map(Number)) : [],
  };
}

/**
 * What the generator sees of a lossless code: for each position of the feature map, its blocks row by row, each one-hot, with one
 * value more for boundaries.
 * @param {Uint8Array} symbols
 * @param {import("./entropy.js").Shape} shape of the symbols
 * @param {LabelCode} code
 */
export function oneHotBlocks(symbols, { height, width }, { side, classes, boundaries }) {
  const k = STRIDE / side; // blocks of a position, in a row
  const depth = classes + (boundaries ? 1 : 0);
  const seen = new Float32Array(symbols.length * depth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const symbol = symbols[y * width + x];
      const position = Math.floor(y / k) * (width / k) + Math.floor(x / k);
      const block = position * k * k + (y % k) * k + (x % k);
      seen[block * depth + (symbol % classes)] = 1;
      if (symbol >= classes) seen[block * depth + classes] = 1;
    }
  }
  return seen;
}

/**
 * The symbols of a lossless code without boundaries, of a map that is padded by repeating its last row and column.
 * @param {Uint8Array} map the class of each pixel
 * @param {{width: number, height: number}} size of the map
 * @param {LabelCode} code
 */
export function mapSymbols(map, { width, height }, { side }) {
  const [rows, columns] = [paddedSide(height) / side, paddedSide(width) / side];
  const middle = (block, end) => Math.min(block * side + side / 2, end - 1);
  return Uint8Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return map[middle(row, height) * width + middle(column, width)];
  });
}

/**
 * The class of each pixel of a picture of the classes' colours, or of gray values that are the classes' indices. Anything else
 * becomes void. Throws UserError for a picture that is almost entirely void.
 * @param {import("./pictures.js").Picture} picture
 * @param {LabelCode} code
 * @returns {Uint8Array}
 */
export function classesOf({ width, height, data }, { classes, colours }) {
  const known = new Map(colours.map(([r, g, b], index) => [(r << 16) | (g << 8) | b, index]));
  const pixels = Array.from({ length: width * height }, (_, i) => [data[4 * i], data[4 * i + 1], data[4 * i + 2]]);
  const indices = pixels.every(([r, g, b]) => r === g && g === b && r < classes);
  const found = ([r, g, b]) => (indices ? r : known.get((r << 16) | (g << 8) | b)) ?? classes - 1;
  const map = Uint8Array.from(pixels, found);
  if (map.filter((index) => index === classes - 1).length > MAX_VOID_SHARE * map.length) {
    throw new UserError("Hardly any pixel of the label map has the colour of one of the model's classes.");
  }
  return map;
}
