/**
 * The service worker: what the page fetches is kept, and serves when the network does not answer. The network comes first, so
 * a new version of the page is seen at once. Models' weights are left to weight_store.js, which keeps them in a form of its own.
 */

const CACHE = "codec";
/** What is fetched before this listens; what comes later is kept when it comes. */
const PAGE = [
  "./", "style.css", "icon.svg", "app.js", "compare.js", "share.js", "start.js", "state.js", "view.js", "codec/errors.js",
  "vendor/fflate.js", "models.json", "images/kodim21.png",
];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(PAGE)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const keeps = method === "GET" && url.startsWith(self.location.origin) && !url.endsWith("/model.npz");
  if (keeps) event.respondWith(networkFirst(event));
});

/** Whether the server says that nothing has changed. */
function isSame(response, kept) {
  const tag = response.headers.get("ETag") ?? response.headers.get("Last-Modified");
  return tag !== null && tag === (kept?.headers.get("ETag") ?? kept?.headers.get("Last-Modified"));
}

/** What is kept and has not changed is answered itself: to it, browsers attach the code that they compiled of it. */
async function networkFirst(event) {
  const { request } = event;
  const cache = await caches.open(CACHE);
  const matching = cache.match(request);
  try {
    const response = await fetch(request);
    const kept = await matching;
    if (response.ok && isSame(response, kept)) return kept;
    if (response.ok) event.waitUntil(cache.put(request, response.clone())); // which may fail, such as for want of space
    return response;
  } catch (error) {
    return (await matching) ?? Promise.reject(error);
  }
}
