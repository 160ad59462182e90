/** Photos and label maps, as the browser decodes them. */

import { UserError } from "./codec/errors.js";
import { classesOf } from "./codec/label_code.js";
import { withoutOrientation } from "./webp.js";

const MAX_PIXELS = 2_000_000; // of what is compressed; on one thread, networks take some ten seconds for as many

/** What drawing a bitmap upright takes, by its orientation: a, b, c, d of a transform, and whether it starts at the right, at the bottom. */
const TURNS = {
  1: [1, 0, 0, 1, 0, 0], 2: [-1, 0, 0, 1, 1, 0], 3: [-1, 0, 0, -1, 1, 1], 4: [1, 0, 0, -1, 0, 1],
  5: [0, 1, 1, 0, 0, 0], 6: [0, 1, -1, 0, 1, 0], 7: [0, -1, -1, 0, 1, 1], 8: [0, -1, 1, 0, 0, 1],
};

/**
 * A photo's pixels, in sRGB, turned as the camera's tag says, transparency laid over white. A photo of more than MAX_PIXELS is
 * shrunk: `shrunkFrom` then tells its own size.
 * @param {Blob & {name?: string}} file
 * @returns {Promise<{picture: ImageData, shrunkFrom?: {width: number, height: number}}>}
 */
export async function readPhoto(file) {
  let bitmap;
  let orientation = 1;
  try {
    const webp = withoutOrientation(new Uint8Array(await file.arrayBuffer()));
    if (webp) orientation = webp.orientation;
    bitmap = await createImageBitmap(webp ? new Blob([webp.bytes]) : file, { imageOrientation: "from-image" });
  } catch {
    throw new UserError("This is neither a photo that this browser can read nor a .gc file.");
  }
  const [ownWidth, ownHeight] = orientation > 4 ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (ownWidth * ownHeight)));
  const width = Math.max(1, Math.floor(ownWidth * scale));
  const height = Math.max(1, Math.floor(ownHeight * scale));
  const shrunkFrom = scale < 1 ? { width: ownWidth, height: ownHeight } : undefined;
  return { picture: pixels(bitmap, width, height, { imageSmoothingQuality: "high" }, orientation), shrunkFrom };
}

/**
 * The class of each pixel of a photo. A map of a photo that was shrunk is shrunk likewise, without mixing its colours.
 * @param {Blob & {name?: string}} file
 * @param {{picture: ImageData, shrunkFrom?: {width: number, height: number}}} photo
 * @param {import("./codec/label_code.js").LabelCode} code of the model
 * @returns {Promise<Uint8Array>}
 */
export async function readLabelMap(file, { picture, shrunkFrom }, code) {
  if (file.type === "image/jpeg") {
    throw new UserError(`${file.name} is a JPEG, whose noise changes the classes; save label maps as PNG.`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new UserError(`${file.name} is no label map that this browser can read; save it as PNG.`);
  }
  const { width, height } = shrunkFrom ?? picture;
  if (bitmap.width !== width || bitmap.height !== height) {
    throw new UserError(`${file.name} has ${bitmap.width} × ${bitmap.height} pixels, but its photo has ${width} × ${height}.`);
  }
  return classesOf(pixels(bitmap, picture.width, picture.height, { imageSmoothingEnabled: false }), code);
}

/** A picture as a PNG file, which takes little memory while nobody looks at it. @param {import("./codec/pictures.js").Picture} picture */
export function toPng({ width, height, data }) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(/** @type {any} */ (data), width, height), 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/** A bitmap's pixels, upright, at a size, over white; closes the bitmap. */
function pixels(bitmap, width, height, smoothing, orientation = 1) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  Object.assign(context, smoothing);
  const [a, b, c, d, right, bottom] = TURNS[orientation];
  context.setTransform(a, b, c, d, right * width, bottom * height);
  context.drawImage(bitmap, 0, 0, ...(orientation > 4 ? [height, width] : [width, height]));
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}
