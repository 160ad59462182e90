/**
 * The camera's orientation tag in WebP files. Chromium ignores it there, other browsers may not: so it is read and hidden here,
 * and photos.js applies it.
 */

const ORIENTATION = 0x0112; // the tag, in TIFF's numbers

/**
 * The orientation, 1..8, and the file with its metadata renamed, so that nothing else finds them. null for other files.
 * @param {Uint8Array} bytes
 */
export function withoutOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const name = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (bytes.length < 12 || name(0) !== "RIFF" || name(8) !== "WEBP") return null;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at + 4, true);
    if (name(at) === "EXIF") {
      const hidden = bytes.slice();
      hidden.set(new TextEncoder().encode("exif"), at);
      return { orientation: orientationOf(bytes.subarray(at + 8, at + 8 + length)), bytes: hidden };
    }
    at += 8 + length + (length % 2);
  }
  return { orientation: 1, bytes };
}

/** As the first directory of Exif metadata says; 1, which is upright, where it is not said. @param {Uint8Array} exif */
function orientationOf(exif) {
  const start = String.fromCharCode(...exif.subarray(0, 4)) === "Exif" ? 6 : 0; // some writers put this name before it
  const tiff = new DataView(exif.buffer, exif.byteOffset + start, Math.max(0, exif.length - start));
  try {
    const little = tiff.getUint16(0) === 0x4949; // "II"
    const directory = tiff.getUint32(4, little);
    for (let i = 0, at = directory + 2; i < tiff.getUint16(directory, little); i++, at += 12) {
      if (tiff.getUint16(at, little) !== ORIENTATION) continue;
      const value = tiff.getUint16(at + 2, little) === 4 ? tiff.getUint32(at + 8, little) : tiff.getUint16(at + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it ends too early: damaged metadata say nothing
  }
  return 1;
}
