/**
 * Weights that were used, in the form that the networks take them, in the browser's Cache Storage: a line of JSON that says where
 * each array is, then their bytes. A visit that finds them there neither fetches nor unpacks model.npz.
 */

const CACHE = "weights";
const NEWLINE = 10;
const address = (fingerprint) => new URL(`weights/${fingerprint}`, self.location.href).href; // nothing is there: it is a name

/** @type {import("./codec/checkpoint.js").WeightStore} */
export const weightStore = {
  async get(fingerprint) {
    try {
      const kept = await caches.match(address(fingerprint), { cacheName: CACHE });
      if (!kept) return null;
      const all = new Uint8Array(await kept.arrayBuffer());
      const end = all.indexOf(NEWLINE);
      return { index: JSON.parse(new TextDecoder().decode(all.subarray(0, end))), bytes: all.subarray(end + 1) };
    } catch {
      return null; // such as where a browser allows no storage
    }
  },

  async put(fingerprint, { index, bytes }) {
    try {
      const cache = await caches.open(CACHE);
      await cache.put(address(fingerprint), new Response(new Blob([JSON.stringify(index), "\n", /** @type {any} */ (bytes)])));
    } catch (error) {
      console.warn("This model's weights could not be kept:", error);
    }
  },
};

/** Drops the weights of all models but these. @param {string[]} fingerprints */
export async function keepOnly(fingerprints) {
  const kept = fingerprints.map(address);
  const cache = await caches.open(CACHE);
  for (const { url } of await cache.keys()) if (!kept.includes(url)) await cache.delete(url);
}
