/** The page: what visitors and the worker do becomes the next state; view.js draws it, and the worker gets what is to be done. */

import { UserError } from "./codec/errors.js";
import { fromText, linkTo } from "./share.js";
import { early, startWorker } from "./start.js";
import * as states from "./state.js";
import { zipSync } from "./vendor/fflate.js";
import { $, draw } from "./view.js";

let state = states.EMPTY;
const SAMPLE = "images/kodim21.png";
const TOO_OLD = "This browser is too old for this page, or a part of it is missing.";

/** The one place where the state changes. @param {import("./state.js").State} next */
function become(next) {
  state = next;
  draw(state);
  work();
}

// ---------------------------------------------------------------------------------------------------------------------
// The worker
// ---------------------------------------------------------------------------------------------------------------------

let worker = early && listenTo(early);
let job = 0; // that the worker has; 0 for none

/** Ends work that nobody wants any more, and begins the next. */
function work() {
  if (job && !states.isWanted(state, job)) endWorker();
  const item = states.next(state);
  if (!item || job) return;
  worker ??= listenTo(startWorker());
  const given = states.jobOf(state, item);
  job = state.count + 1;
  become(states.started(state, item.id));
  worker.postMessage({ id: job, ...given });
}

function endWorker() {
  worker.terminate();
  [worker, job] = [null, 0];
}

/** @param {{worker: Worker, failure: Promise<void>}} started */
function listenTo({ worker: it, failure }) {
  it.onmessage = ({ data: { id, status, result, error, again } }) => {
    if (id !== job) return;
    if (status) return become(states.told(state, id, status));
    if (again) endWorker(); // so that another try begins afresh
    job = 0;
    become(error ? states.failed(state, id, error, again) : states.finished(state, id, result));
  };
  failure.then(() => {
    if (it !== worker) return;
    const id = job;
    endWorker();
    become(id ? states.failed(state, id, TOO_OLD, true) : states.broken(state, TOO_OLD));
  });
  return it;
}

/** The service worker keeps what is fetched, for use without a network; the list of models comes when it listens. */
async function listenOffline() {
  if (!("serviceWorker" in navigator)) return;
  try {
    const former = await navigator.serviceWorker.getRegistration();
    await navigator.serviceWorker.register("sw.js");
    if (former?.active) return; // it listens already
    const controlled = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
    await Promise.race([controlled, new Promise((resolve) => setTimeout(resolve, 3000))]);
  } catch (error) {
    console.warn("This page will not work offline:", error);
  }
}

async function listModels() {
  await listenOffline();
  worker ??= listenTo(startWorker()); // which compiles ONNX Runtime
  try {
    const response = await fetch("models.json");
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    become(states.modelsListed(state, await response.json()));
  } catch (error) {
    become(states.broken(state, `This page is incomplete: its list of models, models.json, cannot be read (${error.message}).`));
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Files in
// ---------------------------------------------------------------------------------------------------------------------

/** @param {Iterable<File>} files */
function open(files) {
  if (![...files].length) return; // such as of text that is pasted
  if (location.hash) history.replaceState(null, "", location.pathname + location.search); // the link's picture is no longer all
  become(states.opened(state, [...files]));
}

function openLink() {
  const text = location.hash.slice(1);
  if (!text) return;
  try {
    become(states.opened(state, [new File([fromText(text)], "picture.gc")]));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    become(states.opened(state, [new File([], "picture.gc")], error.message));
  }
}

async function openSample() {
  try {
    const response = await fetch(SAMPLE);
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    open([new File([await response.blob()], SAMPLE.split("/").at(-1))]);
  } catch (error) {
    become(states.opened(state, [new File([], "sample photo")], `The sample cannot be loaded (${error.message}).`));
  }
}

/** Calls back with the files that a hidden input gets; the same may be chosen again. */
function onFiles(id, action) {
  $(id).onchange = ({ target }) => {
    const files = [...target.files];
    target.value = "";
    if (files.length) action(files);
  };
}

function listenForFiles() {
  for (const id of ["choose", "other", "add"]) $(id).onclick = () => $("file").click();
  onFiles("file", open);
  $("example").onclick = openSample;
  const drag = (isOver) => (event) => {
    event.preventDefault();
    if (state.dragging !== isOver) become(states.dragged(state, isOver));
  };
  window.addEventListener("dragover", drag(true));
  window.addEventListener("dragleave", (event) => event.relatedTarget || drag(false)(event));
  window.addEventListener("drop", (event) => {
    drag(false)(event);
    open(event.dataTransfer.files);
  });
  window.addEventListener("paste", ({ clipboardData }) => {
    const link = /^\s*https?:\S*#([\w-]+)\s*$/.exec(clipboardData.getData("text"));
    if (link) location.hash = link[1];
    else open(clipboardData.files);
  });
  window.addEventListener("hashchange", openLink);
}

// ---------------------------------------------------------------------------------------------------------------------
// Files out
// ---------------------------------------------------------------------------------------------------------------------

const named = ({ file }, suffix) => file.name.replace(/\.[^.]*$/, "") + suffix;

/** @param {Blob} blob */
function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const saveGc = (item) => save(new Blob([item.stand.result.bytes], { type: "application/octet-stream" }), named(item, ".gc"));
const savePng = (item) => save(item.stand.result.decoded, named(item, ".png"));

/** What an item was opened for: of a photo its .gc file, of that its picture. */
const saveMade = (item) => (states.isPhoto(item) ? saveGc(item) : savePng(item));

async function saveAll() {
  const files = {};
  for (const item of state.items.filter(({ stand }) => stand.kind === "result")) {
    const { bytes, decoded } = item.stand.result;
    const [suffix, data] = states.isPhoto(item) ? [".gc", bytes] : [".png", new Uint8Array(await decoded.arrayBuffer())];
    let name = named(item, suffix);
    for (let i = 2; name in files; i++) name = named(item, ` (${i})${suffix}`);
    files[name] = data;
  }
  save(new Blob([zipSync(files, { level: 0 })], { type: "application/zip" }), "pictures.zip"); // they are compressed already
}

async function share() {
  const { id, stand } = states.selectedItem(state);
  const link = linkTo(stand.result.bytes, location.href);
  try {
    await navigator.clipboard.writeText(link);
    become(states.noticed(state, id, `The link was copied. It has ${link.length} characters and holds the picture itself.`, link));
  } catch {
    become(states.noticed(state, id, `This browser does not let the page copy; take the link, of ${link.length} characters, from here.`, link));
    $("link").select();
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Controls
// ---------------------------------------------------------------------------------------------------------------------

function listenToControls() {
  $("cancel").onclick = () => become(states.cancelled(state));
  $("again").onclick = () => become(states.triedAgain(state, state.selected));
  $("models").onchange = ({ target }) => become(states.chosen(state, { model: target.value }));
  $("target").onchange = ({ target: { value } }) => {
    const isFree = value === "free";
    become(states.chosen(state, { free: isFree, target: isFree ? state.settings.target ?? 1024 : Number(value) || null }));
    if (isFree) $("bytes").select();
  };
  $("bytes").onchange = ({ target }) => {
    if (target.value && target.reportValidity()) become(states.chosen(state, { target: Number(target.value) }));
  };
  $("add-map").onclick = () => $("map").click();
  onFiles("map", ([map]) => become(states.mapGiven(state, state.selected, map)));
  $("drop-map").onclick = () => become(states.mapGiven(state, state.selected, null));
  $("save-gc").onclick = () => saveGc(states.selectedItem(state));
  $("save-png").onclick = () => savePng(states.selectedItem(state));
  $("share").onclick = share;
  $("save-all").onclick = saveAll;
  $("clear").onclick = () => become(states.cleared(state));
  $("files").onclick = ({ target }) => {
    const { select, save: saved } = target.closest("button")?.dataset ?? {};
    if (select) become(states.selected(state, Number(select)));
    if (saved) saveMade(state.items.find(({ id }) => id === Number(saved)));
  };
}

listenForFiles();
listenToControls();
openLink();
listModels();
