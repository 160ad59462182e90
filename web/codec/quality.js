/** How alike two pictures of one size are: MS-SSIM, or PSNR for small ones, as evaluation/metrics.py measures it. */

const MIN_SIDE = 161; // px; the fifth scale must hold a window: ceil(161 / 16) = 11
const EXPONENTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]; // of the five scales (Wang et al. 2003)
const [WINDOW, SIGMA] = [11, 1.5]; // px, of the Gaussian window
const BELLS = Array.from({ length: WINDOW }, (_, i) => Math.exp(-0.5 * ((i - 5) / SIGMA) ** 2));
const KERNEL = Float32Array.from(BELLS, (bell) => bell / BELLS.reduce((a, b) => a + b));
const [C1, C2] = [0.01 ** 2, 0.03 ** 2]; // for values in [0, 1]

/** One channel of a picture. @typedef {{width: number, height: number, data: Float32Array}} Plane */

/**
 * @param {import("./pictures.js").Picture} a
 * @param {import("./pictures.js").Picture} b
 */
export function quality(a, b) {
  return Math.min(a.width, a.height) < MIN_SIDE ? psnr(a, b) : msSsim(a, b);
}

/** Peak signal-to-noise ratio of the colours, in dB; infinite for equal pictures. */
export function psnr(a, b) {
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) if (i % 4 < 3) sum += (a.data[i] - b.data[i]) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / (3 * a.width * a.height)));
}

/** Multiscale structural similarity, the mean of the three channels', at most 1. */
export function msSsim(a, b) {
  let sum = 0;
  for (let channel = 0; channel < 3; channel++) {
    let [x, y] = [a, b].map((picture) => planeOf(picture, channel));
    let similarity = 1;
    EXPONENTS.forEach((exponent, scale) => {
      if (scale) [x, y] = [x, y].map(halved);
      const { luminance, contrast } = ssimTerms(x, y);
      similarity *= Math.max(scale === EXPONENTS.length - 1 ? luminance : contrast, 0) ** exponent;
    });
    sum += similarity;
  }
  return sum / 3;
}

/** @returns {Plane} with values in [0, 1] */
function planeOf({ width, height, data }, channel) {
  return { width, height, data: Float32Array.from({ length: width * height }, (_, i) => data[4 * i + channel] / 255) };
}

/** The mean SSIM, and the mean of its contrast and structure term. @param {Plane} x @param {Plane} y */
function ssimTerms(x, y) {
  const product = (a, b) => ({ ...a, data: a.data.map((value, i) => value * b.data[i]) });
  const [meanX, meanY, xx, yy, xy] = [x, y, product(x, x), product(y, y), product(x, y)].map((plane) => blurred(plane).data);
  let [luminance, contrast] = [0, 0];
  for (let i = 0; i < meanX.length; i++) {
    const [means, squares] = [meanX[i] * meanY[i], meanX[i] ** 2 + meanY[i] ** 2];
    const structure = (2 * (xy[i] - means) + C2) / (xx[i] + yy[i] - squares + C2);
    contrast += structure;
    luminance += ((2 * means + C1) / (squares + C1)) * structure;
  }
  return { luminance: luminance / meanX.length, contrast: contrast / meanX.length };
}

/** Under the Gaussian window, where it lies within the plane. @param {Plane} plane @returns {Plane} */
function blurred({ width, height, data }) {
  const [w, h] = [width - WINDOW + 1, height - WINDOW + 1];
  const rows = new Float32Array(w * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < w; x++) {
      let sum = 0;
      for (let k = 0, i = y * width + x; k < WINDOW; k++, i++) sum += KERNEL[k] * data[i];
      rows[y * w + x] = sum;
    }
  }
  const all = new Float32Array(w * h);
  for (let i = 0; i < all.length; i++) {
    let sum = 0;
    for (let k = 0, j = i; k < WINDOW; k++, j += w) sum += KERNEL[k] * rows[j];
    all[i] = sum;
  }
  return { width: w, height: h, data: all };
}

/** Means of 2 x 2 pixels; an odd side repeats its last row or column. @param {Plane} plane @returns {Plane} */
function halved({ width, height, data }) {
  const [w, h] = [(width + 1) >> 1, (height + 1) >> 1];
  const half = new Float32Array(w * h);
  for (let y = 0; y < h; y++) {
    const [row, below] = [2 * y * width, Math.min(2 * y + 1, height - 1) * width];
    for (let x = 0; x < w; x++) {
      const [left, right] = [2 * x, Math.min(2 * x + 1, width - 1)];
      half[y * w + x] = (data[row + left] + data[row + right] + data[below + left] + data[below + right]) / 4;
    }
  }
  return { width: w, height: h, data: half };
}
