/** Photos and label maps, as the browser decodes them. */

import { UserError } from "./codec/errors.js";
import { classesOf } from "./codec/label_maps.js";

const MAX_PIXELS = 2_000_000; // of what is compressed; on one thread, networks take some ten seconds for as many

/**
 * A photo's pixels, in sRGB, turned as the camera's tag says, transparency laid over white. A photo of more than MAX_PIXELS is
 * shrunk: `shrunkFrom` then tells its own size.
 * @param {Blob & {name?: string}} file
 * @returns {Promise<{picture: ImageData, shrunkFrom?: {width: number, height: number}}>}
 */
export async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new UserError(`${file.name} is neither a photo that this browser can read nor a .gc file.`);
  }
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.floor(bitmap.width * scale));
  const height = Math.max(1, Math.floor(bitmap.height * scale));
  const shrunkFrom = scale < 1 ? { width: bitmap.width, height: bitmap.height } : undefined;
  return { picture: pixels(bitmap, width, height, { imageSmoothingQuality: "high" }), shrunkFrom };
}

/**
 * The class of each pixel of a photo. A map of a photo that was shrunk is shrunk likewise, without mixing its colours.
 * @param {Blob & {name?: string}} file
 * @param {{picture: ImageData, shrunkFrom?: {width: number, height: number}}} photo
 * @param {import("./codec/label_maps.js").LabelCode} code of the model
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

/** A bitmap's pixels at a size, over white; closes the bitmap. */
function pixels(bitmap, width, height, smoothing) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  Object.assign(context, smoothing);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}
