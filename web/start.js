/**
 * Starts the worker before the rest of the page has arrived. Only a first visit's worker waits, until the service worker listens,
 * which then keeps what the worker fetches.
 */

/** The worker and what goes wrong with it, which may be before anybody asks. @returns {{worker: Worker, failure: Promise<void>}} */
export function startWorker() {
  const worker = new Worker("worker.js", { type: "module" });
  const failure = new Promise((resolve) => worker.addEventListener("error", () => resolve()));
  return { worker, failure };
}

const isKept = !("serviceWorker" in navigator) || Boolean(navigator.serviceWorker.controller);
export const early = isKept ? startWorker() : null;
