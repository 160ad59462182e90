/**
 * The page's files against Python's, and the page without a network: node tests/web/page.mjs [--dist FOLDER] [--out FOLDER]
 *
 * Compresses a photo, saves both files, decodes files, and does it again offline. Writes to the folder what was saved: kodim21.gc,
 * kodim21.png, and given.png, scaled.png and selected.png of given.gc, scaled.gc and selected.gc, if these are in the folder. With
 * labels.png, the photo's label map, also labelled.gc.
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";

import { answer, figures, give, openBrowser, openPage, options, save, WINDOWS } from "./browser.mjs";
import { PROJECT } from "./chromium.mjs";

const PHOTO = path.join(PROJECT, "images/kodim21.png");
const complaints = [];

async function decodeGiven(page) {
  for (const name of ["given", "scaled", "selected"]) {
    if (!existsSync(path.join(options.out, `${name}.gc`))) continue;
    assert.equal(await give(page, path.join(options.out, `${name}.gc`)), "");
    await save(page, "#save-png", `${name}.png`);
  }
}

/** A photo with a label map goes through the model that has these; the page's other files do not care. */
async function compressWithLabels(page, labels) {
  assert.equal(await give(page, PHOTO), "");
  await page.click("#label-map summary");
  assert.match(await answer(page, () => page.setInputFiles("#map", PHOTO)), /Hardly any pixel/);
  assert.match(await answer(page, () => page.setInputFiles("#map", path.join(PROJECT, "images/results/kodim21.jpg"))), /JPEG/);
  const chooser = page.waitForEvent("filechooser");
  await page.focus("#add-map");
  await page.keyboard.press("Enter");
  assert.equal(await answer(page, async () => (await chooser).setFiles(labels)), "");
  assert.match(await figures(page), /model camvid_sc_c8/);
  await save(page, "#save-gc", "labelled.gc");
  assert.equal(await answer(page, () => page.click("#drop-map")), "");
  assert.match(await figures(page), /model photo_c8/);
}

const { address, browser, stop, close } = await openBrowser(["--disable-gpu"]);
try {
  const asked = [];
  browser.on("request", (request) => asked.push(request.url()));
  const page = await openPage(browser, address, complaints);
  assert.equal(await answer(page, () => page.click("#example")), "");
  assert.equal(await save(page, "#save-gc", "kodim21.gc"), "kodim21.gc");
  assert.equal(await save(page, "#save-png", "kodim21.png"), "kodim21.png");
  await decodeGiven(page);
  const labels = path.join(options.out, "labels.png");
  if (existsSync(labels)) await compressWithLabels(page, labels);
  assert.deepEqual(complaints, []); // such as of what the Content-Security-Policy forbids

  // Without a network
  stop();
  await browser.setOffline(true);
  await page.setViewportSize(WINDOWS.phone);
  await page.reload();
  await page.waitForSelector("#models input", { state: "attached" });
  assert.equal(await answer(page, () => page.click("#example")), "");
  console.log("offline:", await figures(page));
  assert.deepEqual(asked.filter((url) => !url.startsWith(address) && !url.startsWith("blob:")), []);
  console.log("all well");
} finally {
  await close();
}
