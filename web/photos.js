/** Photos, as the browser decodes them. */

import { UserError } from "./codec/errors.js";

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
  const context = new OffscreenCanvas(width, height).getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const shrunkFrom = scale < 1 ? { width: bitmap.width, height: bitmap.height } : undefined;
  bitmap.close();
  return { picture: context.getImageData(0, 0, width, height), shrunkFrom };
}
