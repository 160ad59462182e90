/**
 * The page on WebGPU, which Chromium runs in software: node tests/web/webgpu.mjs [--checkpoints FOLDER] [--out FOLDER]
 *
 * Compresses photo.png of the folder to photo.gc and decodes given.gc to given.png. Slow: give it small pictures.
 */

import assert from "node:assert/strict";
import path from "node:path";

import { figures, give, openBrowser, openPage, options, save } from "./browser.mjs";

const { address, browser, close } = await openBrowser(
  ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"],
);
const PATIENCE = 300_000; // ms; WebGPU in software is slow
try {
  const page = await openPage(browser, address);
  for (const [file, button, saved] of [["photo.png", "#save-gc", "photo.gc"], ["given.gc", "#save-png", "given.png"]]) {
    assert.equal(await give(page, path.join(options.out, file), PATIENCE), "");
    console.log(`${file}:`, await figures(page));
    assert.match(await page.locator("#engine").textContent(), /WebGPU/);
    await save(page, button, saved);
  }
  console.log("all well");
} finally {
  await close();
}
