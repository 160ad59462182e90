/** Chromium without a window, and the server of the page, for the tests beside this file and for benchmarks. */

import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";

export const PROJECT = path.resolve(import.meta.dirname, "../..");
export const FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

/** Opens Chromium with a folder for its profile; more: options of Playwright's browser contexts. */
export function launch(profile, flags, more = {}) {
  const { chromium } = createRequire(path.join(PROJECT, "web/package.json"))("playwright-core");
  return chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium", headless: true, args: flags, acceptDownloads: true, viewport: { width: 1200, height: 860 },
    ...more,
  });
}

/** Starts the server of a checkout's page; returns its address and what ends it. */
export async function serve({ project = PROJECT, checkpoints = path.join(project, "checkpoints"), python = "python3" }) {
  return listen(python, [path.join(project, "web/serve.py"), "--port", "0", "--quiet", "--checkpoints", checkpoints]);
}

/** Starts a server that prints its address. */
export async function listen(command, parameters) {
  const server = spawn(command, parameters);
  let said = "";
  const address = await new Promise((resolve, reject) => {
    server.stdout.on("data", (text) => {
      said += text;
      const found = /http:\S+/.exec(said);
      if (found) resolve(found[0]);
    });
    server.stderr.on("data", (text) => (said += text));
    server.on("exit", () => reject(new Error(`${parameters.join(" ")} ended: ${said}`)));
  });
  return { address, stop: () => server.kill() };
}
