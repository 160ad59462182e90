/**
 * How long the page takes from its address to the picture of a .gc file, in Chromium, by WebAssembly on one thread:
 *
 *     node benchmarks/first_decode.mjs kodim21.gc [CHECKOUT ...] [--repeat 5] [--python .venv/bin/python]
 *
 * Each CHECKOUT is a folder of this project, with `npm ci` done in its web/; without any, it is this one. Of several, the visits
 * take turns, so that a busy machine is as unfair to one as to the other, and the last line gives each one's time as a ratio to
 * the first's. A visit is a new browser process: cold with an empty profile, warm with the profile of earlier visits. Where the
 * page measures its parts (performance.measure in its worker), they are printed, too: medians of the warm visits, in seconds.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

import { FLAGS, launch, PROJECT, serve } from "../tests/web/chromium.mjs";

const { values: options, positionals: [source, ...checkouts] } = parseArgs({ allowPositionals: true, options: {
  repeat: { type: "string", default: "5" },
  python: { type: "string", default: "python3" },
} });
const TIMEOUT = 60_000; // ms

/** One visit: seconds from the address to the picture, and what the page's worker measured. */
async function visit(address, profile) {
  const browser = await launch(profile, [...FLAGS, "--disable-gpu"]);
  try {
    const page = await browser.newPage();
    const start = performance.now();
    await page.goto(address, { waitUntil: "commit" });
    await page.waitForSelector("#models input", { state: "attached" }); // it listens for files by then
    await page.setInputFiles("#file", source);
    await page.waitForSelector("#stage[data-state=result]", { timeout: TIMEOUT });
    const seconds = (performance.now() - start) / 1000;
    const cpu = await cpuSeconds(page);
    const parts = await page.workers()[0].evaluate(() => performance.getEntriesByType("measure").map(({ name, duration }) => [name, duration / 1000]));
    await page.waitForTimeout(6000); // in which the browser stores the compiled code, as it does while a visitor looks
    return { seconds, cpu, parts: Object.fromEntries(parts) };
  } finally {
    await browser.close();
  }
}

/** CPU seconds that the page's process has taken, its workers and the browser's compilers included. */
async function cpuSeconds(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const { metrics } = await session.send("Performance.getMetrics");
  return metrics.find(({ name }) => name === "ProcessTime").value;
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const pages = await Promise.all((checkouts.length ? checkouts : [PROJECT]).map(async (folder) => ({
  name: path.relative(".", folder) || ".",
  warm: [],
  profile: await mkdtemp(path.join(tmpdir(), "chromium-")),
  ...(await serve({ project: path.resolve(folder), python: options.python })),
})));
try {
  for (const page of pages) page.cold = [await visit(page.address, page.profile)];
  for (const page of pages) await visit(page.address, page.profile); // the first warm one writes caches, too
  for (let i = 0; i < Number(options.repeat); i++) {
    for (const page of pages) page.warm.push(await visit(page.address, page.profile));
  }
  const of = (visits, what) => median(visits.map(what)).toFixed(2).padStart(6);
  const first = pages[0].warm;
  console.log(`${"seconds, medians".padEnd(28)}  cold  warm`);
  for (const { name, cold, warm } of pages) {
    console.log(name);
    for (const [what, seconds] of [["to the picture", (each) => each.seconds], ["CPU time", (each) => each.cpu]]) {
      const ratio = median(warm.map(seconds)) / median(first.map(seconds));
      console.log(`  ${what.padEnd(26)}${of(cold, seconds)}${of(warm, seconds)}   ${ratio.toFixed(2)} of the first's`);
    }
    for (const part of Object.keys(cold[0].parts)) {
      console.log(`    ${part.padEnd(24)}${of(cold, (each) => each.parts[part] ?? 0)}${of(warm, (each) => each.parts[part] ?? 0)}`);
    }
  }
} finally {
  for (const { stop, profile } of pages) {
    stop();
    await rm(profile, { recursive: true, force: true });
  }
}
