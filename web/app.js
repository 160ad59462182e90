/** The page: takes files, hands them to the worker, shows what comes back. */

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

/** The file on the stage, and what the worker made of it. */
const shown = { /** @type {File | null} */ file: null, /** @type {any} */ result: null };
/** The newest files that the worker was given; answers to older jobs are ignored. */
const job = { id: 0, /** @type {File | null} */ file: null, /** @type {File | null} */ map: null };

// ---------------------------------------------------------------------------------------------------------------------
// Files in
// ---------------------------------------------------------------------------------------------------------------------

/**
 * @param {File} file a photo or a .gc file
 * @param {File | null} map the photo's label map
 */
function open(file, map = null) {
  const id = ++job.id;
  Object.assign(job, { file, map });
  askForMap();
  $("error").hidden = true;
  $("busy").hidden = false;
  $("status").textContent = "Reading …";
  worker.then((it) => it.postMessage({ id, file, map, model: chosenModel()?.value }));
}

function listenForFiles() {
  $("choose").onclick = $("another").onclick = () => $("file").click();
  $("file").onchange = ({ target }) => {
    if (target.files[0]) open(target.files[0]);
    target.value = ""; // so that the same file may be chosen again
  };
  $("add-map").onclick = () => $("map").click();
  $("map").onchange = ({ target }) => {
    if (target.files[0]) open(job.file, target.files[0]);
    target.value = "";
  };
  $("example").onclick = async () => {
    const response = await fetch("images/kodim21.png");
    open(new File([await response.blob()], "kodim21.png"));
  };
  const drag = (on) => (event) => {
    event.preventDefault();
    $("stage").classList.toggle("dragging", on);
  };
  window.addEventListener("dragover", drag(true));
  window.addEventListener("dragleave", drag(false));
  window.addEventListener("drop", (event) => {
    drag(false)(event);
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
  window.addEventListener("paste", (event) => {
    if (event.clipboardData.files[0]) open(event.clipboardData.files[0]);
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// The worker
// ---------------------------------------------------------------------------------------------------------------------

function answered({ data: { id, status, result, error } }) {
  if (id !== job.id) return;
  if (status) {
    $("status").textContent = status;
    return;
  }
  $("stage").dataset.answered = String(id);
  $("busy").hidden = true;
  $("status").textContent = "";
  if (error) {
    $("error").textContent = error;
    $("error").hidden = false;
  } else {
    Object.assign(shown, { file: job.file, result });
    show(result);
  }
}

/** The service worker keeps all that is fetched, for use without a network; work begins when it listens. */
async function listenOffline() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("sw.js");
    if (navigator.serviceWorker.controller) return;
    const controlled = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
    await Promise.race([controlled, new Promise((resolve) => setTimeout(resolve, 3000))]);
  } catch (error) {
    console.warn("This page will not work offline:", error);
  }
}

const worker = listenOffline().then(() => {
  const it = new Worker("worker.js", { type: "module" });
  it.onmessage = answered;
  it.onerror = () => answered({ data: { id: job.id, error: "This browser is too old for this page, or a part of it is missing." } });
  return it;
});

// ---------------------------------------------------------------------------------------------------------------------
// Pictures and figures out
// ---------------------------------------------------------------------------------------------------------------------

function show({ original, shrunkFrom, decoded, coded, bytes, encoding, decoding, model, engine }) {
  const { width, height } = decoded;
  const promptHadFocus = $("prompt").contains(document.activeElement);
  $("stage").dataset.state = "result";
  $("prompt").hidden = true;
  $("compare").hidden = $("figures").hidden = $("actions").hidden = false;
  $("compare").style.setProperty("--aspect", String(width / height));
  for (const id of ["original", "original-tag", "line", "divider"]) $(id).hidden = !original;
  $("decoded-tag").textContent = original ? "What comes back" : shown.file.name;
  draw($("decoded"), decoded);
  if (original) draw($("original"), original);

  const figures = [
    ["in the file", `${number.format(bytes.length)} bytes`],
    ["bits per pixel", ((8 * bytes.length) / (width * height)).toFixed(4)],
    ["pixels", `${width} × ${height}`],
  ];
  if (coded) figures.push(["pixels coded", `${coded.width} × ${coded.height}`]);
  if (original) figures.push(["to compress", duration(encoding)]);
  figures.push(["to decode", duration(decoding)]);
  $("figures").replaceChildren(...figures.map(([what, value]) => {
    const pair = document.createElement("div");
    pair.append(element("dt", what), element("dd", value));
    return pair;
  }));
  if (shrunkFrom) {
    $("status").textContent = `The photo has ${shrunkFrom.width} × ${shrunkFrom.height} pixels; this page shrank it to ${width} × ${height} first.`;
  }
  $("engine").textContent = `Networks run by ${engine}.`;
  const input = document.querySelector(`#models input[value="${model}"]`);
  if (input) input.checked = true; // this page may only decode a model's files
  askForMap();
  if (promptHadFocus) $(original ? "divider" : "save-png").focus(); // the focus would be lost with the prompt
  $("save-gc").hidden = !original;
  $("save-png").classList.toggle("primary", !original);
}

/** @param {HTMLCanvasElement} canvas */
function draw(canvas, { width, height, data }) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}

function element(tag, text) {
  const it = document.createElement(tag);
  it.textContent = text;
  return it;
}

const duration = (seconds) => `${Object.values(seconds).reduce((a, b) => a + b).toFixed(2)} s`;

// ---------------------------------------------------------------------------------------------------------------------
// Controls
// ---------------------------------------------------------------------------------------------------------------------

/** @returns {HTMLInputElement | null} */
const chosenModel = () => document.querySelector("#models input:checked");

const isPhoto = (file) => file !== null && !/\.gc$/i.test(file.name);

/** Offers to add a label map where there is a photo, and the model wants one. */
function askForMap() {
  $("label-map").hidden = !("labelMap" in (chosenModel()?.dataset ?? {}) && isPhoto(job.file));
}

async function listModels() {
  const response = await fetch("models.json");
  if (!response.ok) throw new Error("models.json is missing");
  const models = (await response.json()).filter(({ compresses }) => compresses);
  if (!models.length) return;
  const usual = models.find(({ name }) => name === "photo_c8") ?? models[0];
  const segments = document.createElement("div");
  segments.className = "segments";
  for (const { name, label_map: labelMap } of models) {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "model", value: name, checked: name === usual.name });
    if (labelMap) input.dataset.labelMap = "";
    input.onchange = () => isPhoto(job.file) && open(job.file, job.map);
    const label = element("label", name);
    label.append(input);
    segments.append(label);
  }
  $("models").append(segments);
  $("models").hidden = false;
}

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = shown.file.name.replace(/\.[^.]*$/, "") + suffix;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

$("save-gc").onclick = () => save(new Blob([shown.result.bytes], { type: "application/octet-stream" }), ".gc");
$("save-png").onclick = () => $("decoded").toBlob((blob) => save(blob, ".png"), "image/png");
$("divider").oninput = ({ target }) => $("compare").style.setProperty("--split", `${target.value}%`);
listenForFiles();
listModels().catch((error) => {
  $("error").textContent = `The page is incomplete: ${error.message}.`;
  $("error").hidden = false;
});
