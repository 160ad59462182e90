/** The page in headless Chromium, for the scripts beside this file; their options are --checkpoints, --out, --dist and --python. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

import { FLAGS, launch, listen, PROJECT, serve } from "./chromium.mjs";

export const { values: options } = parseArgs({ options: {
  checkpoints: { type: "string", default: path.join(PROJECT, "checkpoints") },
  out: { type: "string", default: path.join(tmpdir(), "page") },
  dist: { type: "string", default: "" }, // a folder as `make web-dist` writes it, which Python's plain server then serves
  python: { type: "string", default: "python3" },
} });
export const PATIENCE = 180_000; // ms, on a busy machine
export const WINDOWS = { desk: { width: 1200, height: 860 }, phone: { width: 390, height: 780 } };
const PLAIN_SERVER = `
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
`;

/** Serves the page and opens a browser with these flags; `close` ends both. more: options of Playwright's browser contexts. */
export async function openBrowser(flags, more = {}) {
  const { address, stop } = await (options.dist ? listen(options.python, ["-c", PLAIN_SERVER, options.dist]) : serve({ ...options }));
  const profile = await mkdtemp(path.join(tmpdir(), "chromium-"));
  const browser = await launch(profile, [...FLAGS, ...flags], more);
  browser.setDefaultTimeout(PATIENCE);
  const close = async () => {
    await browser.close();
    stop();
    await rm(profile, { recursive: true, force: true });
  };
  return { address, browser, stop, close };
}

/** Opens the page; waits for its list of models. What the console complains about, ours to answer for, is put into `complaints`. */
export async function openPage(browser, address, complaints = []) {
  const page = await browser.newPage();
  const ours = (message) => ["error", "warning"].includes(message.type()) && !/blocked by Playwright/.test(message.text());
  page.on("console", (message) => ours(message) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(address);
  await page.waitForSelector("#models input", { state: "attached" });
  return page;
}

/** Waits until the stage shows a result or an error of another job than before; returns the error's text, "" for none. */
export async function answer(page, action, patience = PATIENCE) {
  const before = await page.getAttribute("#stage", "data-job");
  await action();
  await page.waitForFunction((job) => {
    const { state, job: now } = document.querySelector("#stage").dataset;
    return now !== job && (state === "result" || state === "error");
  }, before, { timeout: patience });
  return page.locator("#error").textContent();
}

export const give = (page, files, patience = PATIENCE) => answer(page, () => page.setInputFiles("#file", files), patience);

export async function save(page, button, name) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  await download.saveAs(path.join(options.out, name));
  return download.suggestedFilename();
}

export const figures = (page) => page.locator("#figures").innerText().then((text) => text.replaceAll("\n", " "));

/** Role and name of what has the focus, as the accessibility tree has it. */
export async function focused(page) {
  const tree = await accessibleNodes(page);
  const node = tree.findLast(({ focused: has, role }) => has && role !== "RootWebArea");
  return node ? `${node.role} ${node.name}` : "nothing";
}

/** What assistive technology sees: role, name and focus of each node that is not ignored. */
export async function accessibleNodes(page) {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  await session.detach();
  return nodes.filter(({ ignored }) => !ignored).map(({ role, name, properties = [] }) => ({
    role: role.value,
    name: name?.value ?? "",
    focused: properties.some((property) => property.name === "focused" && property.value.value),
  }));
}

/** Checks that these are in the accessibility tree, and those not, as "role name". */
export async function assertSeen(page, { there, gone = [] }) {
  const seen = (await accessibleNodes(page)).map(({ role, name }) => `${role} ${name}`);
  for (const node of there) assert.ok(seen.includes(node), `${node} is not among ${seen.join(", ")}`);
  for (const node of gone) assert.ok(!seen.includes(node), `${node} is still there`);
}

/** Checks that the page fits its window, and that all that can be touched is high enough for a finger. */
export async function assertFits(page) {
  const { wider, low, nameless } = await page.evaluate(() => {
    const controls = [...document.querySelectorAll("button, select, summary, .segments label, input:not([type=range], [type=radio], [hidden])")];
    const seen = controls.filter((control) => control.checkVisibility());
    return {
      wider: document.documentElement.scrollWidth > innerWidth,
      low: seen.filter((control) => control.getBoundingClientRect().height < 44).map((control) => control.id || control.textContent),
      nameless: seen.filter((control) => control.matches("button") && !(control.textContent.trim() || control.ariaLabel)).length,
    };
  });
  assert.ok(!wider, "the page is wider than its window");
  assert.deepEqual(low, []);
  assert.equal(nameless, 0);
}
