/** The page in headless Chromium, for the scripts beside this file; their options are --checkpoints, --out and --python. */

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

export const PROJECT = path.resolve(import.meta.dirname, "../..");
const { chromium } = createRequire(path.join(PROJECT, "web/package.json"))("playwright-core");
export const { values: options } = parseArgs({ options: {
  checkpoints: { type: "string", default: path.join(PROJECT, "checkpoints") },
  out: { type: "string", default: path.join(tmpdir(), "page") },
  python: { type: "string", default: "python3" },
} });
const FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
export const PATIENCE = 300_000; // ms; WebGPU in software is slow

/** Serves the page and opens a browser with these flags; `close` ends both. */
export async function openBrowser(...flags) {
  const { address, stop } = await serve();
  const profile = await mkdtemp(path.join(tmpdir(), "chromium-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium", headless: true, args: [...FLAGS, ...flags], acceptDownloads: true,
    viewport: { width: 1200, height: 860 },
  });
  const close = async () => {
    await browser.close();
    stop();
    await rm(profile, { recursive: true, force: true });
  };
  return { address, browser, stop, close };
}

/** Starts the page's server; returns its address and what ends it. */
async function serve() {
  const server = spawn(options.python, [path.join(PROJECT, "web/serve.py"), "--port", "0", "--quiet", "--checkpoints", options.checkpoints]);
  let said = "";
  const address = await new Promise((resolve, reject) => {
    server.stdout.on("data", (text) => {
      said += text;
      const found = /http:\S+/.exec(said);
      if (found) resolve(found[0]);
    });
    server.stderr.on("data", (text) => (said += text));
    server.on("exit", () => reject(new Error(`serve.py ended: ${said}`)));
  });
  return { address, stop: () => server.kill() };
}

/** Does something, and waits for the page's picture or its error; returns the error's text, "" for none. */
export async function answer(page, action) {
  const answered = () => document.querySelector("#stage").dataset.answered ?? "";
  const before = await page.evaluate(answered);
  await action();
  await page.waitForFunction((n) => (document.querySelector("#stage").dataset.answered ?? "") !== n, before, { timeout: PATIENCE });
  return page.locator("#error").isVisible().then((seen) => (seen ? page.locator("#error").textContent() : ""));
}

export const give = (page, file) => answer(page, () => page.setInputFiles("#file", file));

export async function save(page, button, name) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  await download.saveAs(path.join(options.out, name));
  return download.suggestedFilename();
}

export const figures = (page) => page.locator("#figures").innerText().then((text) => text.replaceAll("\n", " "));
