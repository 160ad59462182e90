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
