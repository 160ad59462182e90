/**
 * The page in headless Chromium: node tests/web/page.mjs [--checkpoints FOLDER] [--out FOLDER]
 *
 * Compresses a photo, saves both files, decodes a file, tries what goes wrong, and does it again offline. Writes to the folder
 * page.png, phone.png, and what was saved: kodim21.gc, kodim21.png, and given.png, scaled.png and selected.png of given.gc,
 * scaled.gc and selected.gc, if these are in the folder. With labels.png, the photo's label map, also labelled.gc.
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";

import { answer, figures, give, openBrowser, options, PATIENCE, PROJECT, save } from "./browser.mjs";

const PHOTO = path.join(PROJECT, "images/kodim21.png");

const { address, browser, stop, close } = await openBrowser("--disable-gpu");
try {
  const page = await browser.newPage();
  const asked = [];
  browser.on("request", (request) => asked.push(request.url()));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && console.log("page:", message.text()));
  await page.goto(address);
  await page.waitForSelector("#models input");
  await page.screenshot({ path: path.join(options.out, "empty.png") });

  // A photo, by keyboard alone
  await page.focus("#example");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#compare:not([hidden])", { timeout: PATIENCE });
  console.log("first photo:", await figures(page));
  assert.equal(await page.evaluate(() => document.activeElement.id), "divider"); // not lost with the button
  assert.equal(await give(page, PHOTO), "");
  console.log("photo again:", await figures(page));
  await page.screenshot({ path: path.join(options.out, "page.png") });
  assert.equal(await save(page, "#save-gc", "kodim21.gc"), "kodim21.gc");
  assert.equal(await save(page, "#save-png", "kodim21.png"), "kodim21.png");
  await page.focus("#divider");
  for (let i = 0; i < 20; i++) await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => document.querySelector("#compare").style.getPropertyValue("--split")), "60%");

  // A photo that is dropped
  const dropped = await page.evaluateHandle(async () => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([await (await fetch("images/kodim21.png")).blob()], "dropped.png"));
    return transfer;
  });
  assert.equal(await answer(page, () => page.dispatchEvent("#stage", "drop", { dataTransfer: dropped })), "");
  assert.equal(await save(page, "#save-gc", "dropped.gc"), "dropped.gc");

  // Its file
  const bytes = await readFile(path.join(options.out, "kodim21.gc"));
  assert.equal(await give(page, path.join(options.out, "kodim21.gc")), "");
  assert.match(await figures(page), new RegExp(`${bytes.length.toLocaleString("en")} bytes`));
  console.log("its file:", await figures(page));
  for (const name of ["given", "scaled", "selected"]) {
    if (!existsSync(path.join(options.out, `${name}.gc`))) continue;
    assert.equal(await give(page, path.join(options.out, `${name}.gc`)), "");
    console.log(`${name}.gc:`, await figures(page));
    await save(page, "#save-png", `${name}.png`);
  }

  // A model that wants a label map
  const labels = path.join(options.out, "labels.png");
  if (existsSync(labels)) {
    await page.check("#models input[value=camvid_sc_c8]");
    assert.match(await give(page, PHOTO), /needs the photo's label map/);
    await page.screenshot({ path: path.join(options.out, "wants_map.png") });
    assert.match(await answer(page, () => page.setInputFiles("#map", PHOTO)), /Hardly any pixel/);
    assert.match(await answer(page, () => page.setInputFiles("#map", path.join(PROJECT, "images/results/kodim21.jpg"))), /JPEG/);
    const chooser = page.waitForEvent("filechooser");
    await page.focus("#add-map");
    await page.keyboard.press("Enter");
    assert.equal(await answer(page, async () => (await chooser).setFiles(labels)), "");
    console.log("with a label map:", await figures(page));
    await page.screenshot({ path: path.join(options.out, "labelled.png") });
    await save(page, "#save-gc", "labelled.gc");
    await page.setViewportSize({ width: 390, height: 780 });
    await page.screenshot({ path: path.join(options.out, "labelled_phone.png") });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "wider than a phone");
    await page.setViewportSize({ width: 1200, height: 860 });
    assert.equal(await answer(page, () => page.check("#models input[value=photo_c8]")), "");
    assert.ok(await page.locator("#label-map").isHidden());
  }

  // What goes wrong
  const damaged = Buffer.from(bytes);
  damaged[40] ^= 1;
  const foreign = Buffer.from(bytes);
  foreign.writeUInt32BE(0x01234567, 6); // behind two characters, and two bytes for each side
  foreign.writeUInt32LE((await import("../../web/codec/container.js")).crc32(foreign.subarray(0, -4)), foreign.length - 4);
  const large = path.join(options.out, "large.png"); // too large to be handed over as a buffer
  await writeFile(large, Buffer.alloc(100_000_000));
  const wrong = [
    [{ name: "damaged.gc", mimeType: "", buffer: damaged }, /damaged/],
    [{ name: "old.gc", mimeType: "", buffer: Buffer.from([0x67, 0x63, 2, ...Buffer.alloc(20)]) }, /format version 2/],
    [{ name: "foreign.gc", mimeType: "", buffer: foreign }, /made with a model that this page does not have/],
    [large, /100 MB/],
    [{ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("Dear diary") }, /notes.txt is neither/],
    [{ name: "notes.gc", mimeType: "", buffer: Buffer.from("Dear diary") }, /not a .gc file/],
  ];
  for (const [file, message] of wrong) {
    const error = await give(page, file);
    console.log("error:", error);
    assert.match(error, message);
  }
  await rm(large);
  await page.screenshot({ path: path.join(options.out, "error.png") });

  // Without a network, on a phone
  stop();
  await browser.setOffline(true);
  await page.setViewportSize({ width: 390, height: 780 });
  await page.reload();
  await page.waitForSelector("#models input");
  assert.equal(await give(page, PHOTO), "");
  await page.screenshot({ path: path.join(options.out, "phone.png") });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "wider than a phone");
  console.log("offline:", await figures(page));
  assert.deepEqual(asked.filter((url) => !url.startsWith(address) && !url.startsWith("blob:")), []);
  console.log("all well");
} finally {
  await close();
}
