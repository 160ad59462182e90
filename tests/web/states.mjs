/**
 * What the page says and offers in each state, at two window sizes: node tests/web/states.mjs [--checkpoints FOLDER] [--out FOLDER]
 *
 * Needs photo.png, second.png, panorama.png and turned.webp in the folder, small photos, the last with a camera's orientation; writes
 * a screenshot of each state, photo.gc and turned.gc, fitted.gc (photo.png within 340 bytes), and all.zip.
 */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";

import { pack } from "../../web/codec/container.js";
import { answer, assertFits, assertSeen, figures, focused, give, openBrowser, openPage, options, PATIENCE, save, WINDOWS } from "./browser.mjs";

const out = (name) => path.join(options.out, name);
const PHOTO = out("photo.png");
const complaints = [];
const { address, browser, close } = await openBrowser(["--disable-gpu"], { permissions: ["clipboard-read", "clipboard-write"], serviceWorkers: "block" });
const shot = (page, name) => page.screenshot({ path: out(`${name}.png`), fullPage: true });
const stage = (page, state) => page.waitForSelector(`#stage[data-state=${state}]`, { timeout: PATIENCE });
const nameless = (name, buffer) => ({ name, mimeType: "", buffer: Buffer.from(buffer) });
const savesOffered = ["button Save .gc", "button Save PNG", "button Copy link"];

async function emptyState(page, size) {
  const choose = size === "phone" ? "button Take or choose a photo" : "button Choose files";
  await assertSeen(page, { there: [choose, "button Try a sample photo", "combobox Size", "radio photo_c8"], gone: [...savesOffered, "button Cancel", "radio camvid_sc_c8"] });
  const accepted = await page.getAttribute("#file", "accept");
  assert.ok(!/svg|image\/\*/.test(accepted), accepted);
  assert.equal(await page.getByText("Drop photos").isVisible(), size === "desk");
  await assertFits(page);
}

/** Holds back whatever the page fetches that matches, until the returned function is called. */
async function hold(page, pattern) {
  let go;
  const gate = new Promise((resolve) => (go = resolve));
  await page.context().route(pattern, async (route) => {
    await gate;
    await route.continue().catch(() => {}); // of a worker that has ended
  });
  return async () => {
    go();
    await page.context().unroute(pattern);
  };
}

async function busyState(page, size) {
  const release = await hold(page, "**/config.json");
  await page.focus("#example");
  await page.keyboard.press("Enter");
  await stage(page, "busy");
  await page.waitForFunction(() => /Loading the model/.test(document.querySelector("#status").textContent), null, { timeout: PATIENCE });
  assert.match(await page.textContent("#status"), /^kodim21.png: /);
  await assertSeen(page, { there: ["button Cancel", "status "], gone: savesOffered });
  assert.equal(await focused(page), "button Cancel"); // for the button that was pressed is gone
  await assertFits(page);
  await shot(page, `busy_${size}`);
  await page.keyboard.press("Enter");
  await stage(page, "error");
  assert.match(await page.textContent("#error"), /^kodim21.png: Cancelled/);
  assert.equal(await focused(page), "button Try again");
  await release();
  assert.equal(await answer(page, () => page.keyboard.press("Enter")), "");
  assert.equal(await focused(page), "slider Divider: how much of the original is shown");
}

async function resultState(page, size) {
  assert.equal(await give(page, PHOTO), "");
  await assertSeen(page, { there: [...savesOffered, "image Original", "image What comes back", "button Zoom in"], gone: ["button Cancel", "button Try again"] });
  await assertFits(page);
  await shot(page, `result_${size}`);
  await save(page, "#save-gc", "photo.gc");
  const { length } = await readFile(out("photo.gc"));
  assert.match(await figures(page), new RegExp(`in the file ${length} bytes`));

  // Another model: nothing of the former's is left while it works
  const release = await hold(page, "**/photo_c4/config.json");
  await page.click("#models label:has([value=photo_c4])");
  await stage(page, "busy");
  await assertSeen(page, { there: ["button Cancel"], gone: [...savesOffered, "image Original"] });
  assert.equal(await page.locator("#figures").isVisible(), false);
  await release();
  await stage(page, "result");
  assert.match(await figures(page), /model photo_c4/);
  await page.click("#models label:has([value=photo_c8])");
  await stage(page, "busy");
  await stage(page, "result");
}

async function zoomAndDivider(page) {
  const style = (name) => page.evaluate((property) => document.querySelector("#compare").style.getPropertyValue(property), name);
  await page.focus("#divider");
  for (let i = 0; i < 20; i++) await page.keyboard.press("ArrowRight");
  assert.equal(await style("--split"), "60%");
  await page.keyboard.press("+");
  assert.match(await style("--move"), /scale\(1.5\)/);
  await page.click("#zoom-in");
  assert.match(await style("--move"), /scale\(2.25\)/);
  assert.equal(await page.textContent("#zoom-fit"), "2.3×");
  const before = await style("--move");
  const { x, y, width, height } = await page.locator("#compare").boundingBox();
  await page.mouse.move(x + 0.2 * width, y + 0.3 * height);
  await page.mouse.down();
  await page.mouse.move(x + 0.2 * width - 30, y + 0.3 * height - 20);
  await page.mouse.up();
  assert.notEqual(await style("--move"), before); // away from the divider, the pictures move ...
  assert.equal(await style("--split"), "60%"); // ... and it stays
  await page.mouse.move(x + 0.6 * width, y + 0.3 * height);
  await page.mouse.down();
  await page.mouse.move(x + 0.4 * width, y + 0.3 * height);
  await page.mouse.up();
  assert.equal(Math.round(parseFloat(await style("--split"))), 40);
  const moved = await style("--move");
  await page.focus("#compare");
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await style("--move"), moved);
  await page.mouse.wheel(0, 2000);
  await page.waitForFunction(() => document.querySelector("#zoom-fit").textContent === "1.0×");
  assert.equal(await style("--move"), "translate(0px, 0px) scale(1)");
}

async function targetSize(page) {
  assert.equal(await answer(page, () => page.selectOption("#target", "340")), "");
  assert.ok((await figures(page)).match(/in the file ([\d,]+) bytes/)[1] <= 340);
  assert.match(await figures(page), /model photo_c\d+/);
  assert.equal(await page.locator("#models").isVisible(), false); // the page chooses it
  await save(page, "#save-gc", "fitted.gc");
  await page.selectOption("#target", "free"); // which begins with the same number
  assert.equal(await page.inputValue("#bytes"), "340");
  await page.fill("#bytes", "14");
  assert.match(await answer(page, () => page.press("#bytes", "Enter")), /does not fit into 14 bytes; \d+ are enough/);
  assert.equal(await answer(page, () => page.selectOption("#target", "")), "");
}

async function errorState(page, size) {
  const bytes = await readFile(out("photo.gc"));
  const damaged = bytes.map((byte, i) => (i === 30 ? byte ^ 1 : byte));
  const header = { scale: 0, channels: 0, fingerprint: "01234567", payload: new Uint8Array(9) };
  const wrong = [
    [nameless("damaged.gc", damaged), /^damaged.gc: This .gc file is damaged/],
    [nameless("old.gc", [0x67, 0x63, 2, ...new Array(20).fill(0)]), /format version 2/],
    [nameless("foreign.gc", pack({ ...header, width: 8, height: 8 })), /made with a model that this page does not have/],
    [nameless("vast.gc", pack({ ...header, width: 60000, height: 60000 })), /more than this page shows \(25 million\)\.$/],
    [nameless("wide.gc", pack({ ...header, width: 5000, height: 5000 })), /more than this page can decode; decompress.py can/],
    [nameless("notes.txt", Buffer.from("Dear diary")), /^notes.txt: This is neither a photo/],
    [nameless("notes.gc", Buffer.from("Dear diary")), /not a .gc file/],
  ];
  for (const [file, message] of wrong) {
    assert.match(await give(page, file), message);
    await assertSeen(page, { there: ["alert "], gone: [...savesOffered, "image Original", "image What comes back"] }); // no word over a stranger's picture
  }
  await assertFits(page);
  await shot(page, `error_${size}`);
}

async function listOfFiles(page, size) {
  await page.click("#clear");
  assert.equal(await focused(page), size === "phone" ? "button Take or choose a photo" : "button Choose files");
  await writeFile(out("broken.gc"), "g");
  const files = [PHOTO, out("second.png"), out("broken.gc"), out("photo.gc")];
  assert.equal(await give(page, files), ""); // the first is on the stage
  await page.waitForFunction(() => document.querySelectorAll("#files li:is([data-kind=result], [data-kind=error])").length === 4, null, { timeout: PATIENCE });
  assert.deepEqual(await page.locator("#files .name").allTextContents(), ["photo.png", "second.png", "broken.gc", "photo.gc"]);
  await assertSeen(page, { there: ["button Save .gc of photo.png", "button Save .gc of second.png", "button Save PNG of photo.gc", "button Save 3 of 4 as .zip"] });
  assert.equal(await save(page, "#files li:nth-child(2) .save", "second.gc"), "second.gc");
  assert.equal(await save(page, "#files li:nth-child(4) .save", "shown.png"), "photo.png");
  await page.click("#files li:nth-child(3) .select");
  assert.match(await page.textContent("#error"), /^broken.gc: /);
  await page.click("#files li:nth-child(4) .select");
  await assertSeen(page, { there: ["image Picture of photo.gc", "button Save PNG"], gone: ["button Save .gc", "image Original"] });
  assert.equal(await page.locator("#settings").isVisible(), false); // they are of photos
  await assertFits(page);
  await shot(page, `list_${size}`);
  assert.equal(await save(page, "#save-all", "all.zip"), "pictures.zip");

  const dropped = await page.evaluateHandle(async () => {
    const transfer = new DataTransfer();
    const blob = await (await fetch("images/kodim21.png")).blob();
    for (const name of ["one.png", "two.png"]) transfer.items.add(new File([blob], name));
    return transfer;
  });
  await page.click("#clear");
  assert.equal(await answer(page, () => page.dispatchEvent("#stage", "drop", { dataTransfer: dropped })), "");
  assert.deepEqual(await page.locator("#files .name").allTextContents(), ["one.png", "two.png"]); // none is left out
  await page.click("#clear");
}

/** A panorama leaves room for what lies over it. */
async function panorama(page) {
  assert.equal(await give(page, out("panorama.png")), "");
  const box = (id) => page.locator(id).boundingBox();
  const [picture, zoom] = [await box("#compare"), await box("#zoom")];
  assert.ok(zoom.y >= picture.y && zoom.y + zoom.height <= picture.y + picture.height);
}

async function links(page) {
  assert.equal(await give(page, PHOTO), "");
  await page.focus("#share");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /link was copied/.test(document.querySelector("#status").textContent));
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(link.startsWith(`${address}#`), link);
  assert.equal(await page.inputValue("#link"), link);
  assert.equal(Buffer.from(link.split("#")[1], "base64url").compare(await readFile(out("photo.gc"))), 0);
  await assertFits(page);

  const other = await browser.newPage();
  await other.goto(link);
  await stage(other, "result");
  await assertSeen(other, { there: ["image Picture of picture.gc", "button Save PNG"], gone: ["button Save .gc"] });
  assert.equal(await answer(other, () => other.evaluate(() => (location.hash = "#Z4A"))), "picture.gc: This .gc file is cut short: it has only 2 bytes.");
  assert.match(await answer(other, () => other.evaluate(() => (location.hash = "#no*text"))), /This link is damaged/);
  await other.setInputFiles("#file", PHOTO);
  await stage(other, "result");
  assert.equal(new URL(other.url()).hash, ""); // the address no longer says what is on the stage
  await other.close();
}

/** With a list of models that comes late, the first photo waits for it. */
async function slowModels() {
  const page = await browser.newPage();
  const release = await hold(page, "**/models.json");
  await page.goto(address);
  await page.setInputFiles("#file", PHOTO);
  await stage(page, "busy");
  await page.waitForFunction(() => /list of models/.test(document.querySelector("#status").textContent), null, { timeout: PATIENCE });
  await release();
  await stage(page, "result");
  await page.close();
}

/** What fails for want of the network works at the next try, be it the runtime, a model or its graph. */
async function anotherTry() {
  for (const pattern of ["**/ort.wasm.bundle.min.mjs", "**/config.json", "**/generator.onnx"]) {
    const page = await browser.newPage();
    await page.context().route(pattern, (route) => route.abort(), { times: 1 });
    await page.goto(address);
    assert.match(await give(page, out("photo.gc")), /^photo.gc: (ONNX Runtime|The model cannot be loaded)/);
    assert.equal(await answer(page, () => page.click("#again")), "");
    await page.close();
  }
}

async function turnedPhoto(page) {
  assert.equal(await give(page, out("turned.webp")), "");
  await save(page, "#save-gc", "turned.gc");
}

try {
  await slowModels();
  for (const [size, window] of Object.entries(WINDOWS)) {
    const page = await openPage(browser, address, complaints);
    await page.setViewportSize(window);
    await emptyState(page, size);
    await shot(page, `empty_${size}`);
    await busyState(page, size);
    await resultState(page, size);
    await zoomAndDivider(page);
    if (size === "desk") await targetSize(page);
    await errorState(page, size);
    await listOfFiles(page, size);
    await turnedPhoto(page);
    await panorama(page);
    await links(page);
    await page.close();
    console.log(size, "is well");
  }
  await anotherTry();
  assert.deepEqual(complaints, []);
  console.log("all well");
} finally {
  await close();
}
