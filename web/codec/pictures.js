/** Pixels in the layouts that the networks and the page want. */

export const STRIDE = 16; // pixels a side of one position of the feature map
const MIN_SIDE = 32; // pixels; the reflection padding of a feature map needs 2 x 2 positions

/** As the browser's ImageData: RGBA, 8 bits each. @typedef {{width: number, height: number, data: Uint8ClampedArray}} Picture */

/** A side rounded up to a multiple of 16 px, and to at least 32 px. @param {number} side */
export function paddedSide(side) {
  return Math.max(MIN_SIDE, Math.ceil(side / STRIDE) * STRIDE);
}

/**
 * What the encoder sees: RGB in [-1, 1], the last row and column repeated up to the padded size.
 * @param {Picture} picture
 * @returns {Float32Array} (paddedHeight, paddedWidth, 3)
 */
export function toNetwork({ width, height, data }) {
  const [paddedWidth, paddedHeight] = [paddedSide(width), paddedSide(height)];
  const x = new Float32Array(paddedHeight * paddedWidth * 3);
  for (let row = 0, i = 0; row < paddedHeight; row++) {
    const start = Math.min(row, height - 1) * width;
    for (let column = 0; column < paddedWidth; column++) {
      const pixel = 4 * (start + Math.min(column, width - 1));
      for (let c = 0; c < 3; c++) x[i++] = Math.fround(data[pixel + c] / 127.5) - 1;
    }
  }
  return x;
}

/**
 * The inverse of toNetwork: rounded, cropped, opaque.
 * @param {Float32Array} x (paddedHeight, paddedWidth, 3)
 * @param {number} width
 * @param {number} height
 * @returns {Picture}
 */
export function fromNetwork(x, width, height) {
  const data = new Uint8ClampedArray(4 * width * height).fill(255); // rounds half to even, as NumPy does
  const rowLength = 3 * paddedSide(width);
  for (let row = 0, pixel = 0; row < height; row++) {
    for (let column = 0, i = row * rowLength; column < width; column++, pixel += 4) {
      for (let c = 0; c < 3; c++) data[pixel + c] = Math.fround(Math.fround(x[i++] + 1) * 127.5);
    }
  }
  return { width, height, data };
}

const LOBES = 3;
const WEIGHT_STEPS = 2 ** 22; // for a weight of 1, as in Pillow; sums of pixels with such weights are exact

/**
 * The picture at another size, as Pillow does it with Lanczos' filter of three lobes: first each row gets its new length, then
 * each column, and values are rounded after both. Pillow shrinks the columns of tall pictures first.
 * @param {Picture} picture
 * @param {number} width
 * @param {number} height
 * @returns {Picture}
 */
export function resize(picture, width, height) {
  const isTall = picture.height > 2 * picture.width && height < picture.height;
  return isTall ? withWidth(withHeight(picture, height), width) : withHeight(withWidth(picture, width), height);
}

/** @param {Picture} picture */
function withWidth({ width, height, data }, newWidth) {
  if (width === newWidth) return { width, height, data };
  const resized = new Uint8ClampedArray(4 * newWidth * height).fill(255);
  filters(width, newWidth).forEach(({ first, weights }, column) => {
    for (let row = 0; row < height; row++) {
      const [from, to] = [4 * (row * width + first), 4 * (row * newWidth + column)];
      for (let c = 0; c < 3; c++) resized[to + c] = weighted(data, from + c, 4, weights);
    }
  });
  return { width: newWidth, height, data: resized };
}

/** @param {Picture} picture */
function withHeight({ width, height, data }, newHeight) {
  if (height === newHeight) return { width, height, data };
  const resized = new Uint8ClampedArray(4 * width * newHeight).fill(255);
  filters(height, newHeight).forEach(({ first, weights }, row) => {
    for (let i = 0; i < 4 * width; i++) resized[4 * row * width + i] = weighted(data, 4 * first * width + i, 4 * width, weights);
  });
  return { width, height: newHeight, data: resized };
}

/** The weighted sum of every `step`th value, rounded; ties are rounded up. */
function weighted(values, start, step, weights) {
  let sum = 0.5;
  for (let k = 0, i = start; k < weights.length; k++, i += step) sum += weights[k] * values[i];
  return Math.floor(sum);
}

/**
 * What the pixels of a line are made of when n pixels become newN: the first of the pixels that count, and their weights.
 * @returns {{first: number, weights: Float64Array}[]}
 */
function filters(n, newN) {
  const stretch = Math.max(1, n / newN); // of the filter, for a smaller picture
  return Array.from({ length: newN }, (_, i) => {
    const center = (i + 0.5) * (n / newN); // in pixels, whose own centers are at 0.5, 1.5, ...
    const first = Math.max(0, Math.floor(center - LOBES * stretch + 0.5));
    const end = Math.min(n, Math.floor(center + LOBES * stretch + 0.5));
    const weights = Float64Array.from({ length: end - first }, (_, k) => lanczos((first + k - center + 0.5) * (1 / stretch)));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => Math.round((weight / sum) * WEIGHT_STEPS) / WEIGHT_STEPS) };
  });
}

function lanczos(x) {
  return Math.abs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}
