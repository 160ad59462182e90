/** Where time goes: `performance.getEntriesByType("measure")` in the worker lists it, and benchmarks/first_decode.mjs prints it. */

/**
 * What an action returns; how long it took is measured under a name.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function measured(name, action) {
  const start = performance.now();
  try {
    return await action();
  } finally {
    performance.measure(name, { start, end: performance.now() });
  }
}

/** Notes how long the parts of an action took that has just ended. @param {Record<string, number>} seconds by part */
export function noted(name, seconds) {
  const end = performance.now();
  for (const [part, duration] of Object.entries(seconds)) performance.measure(`${name}: ${part}`, { end, duration: 1000 * duration });
}
