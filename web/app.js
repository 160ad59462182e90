/** The page: takes files, hands them to the worker, shows what comes back. */

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

/** The file on the stage, and what the worker made of it. */
const shown = { /** @type {File | null} */ file: null, /** @type {any} */ result: null };
/** The newest file that the worker was given; answers to older jobs are ignored. */
const job = { id: 0, /** @type {File | null} */ file: null };

// ---------------------------------------------------------------------------------------------------------------------
// Files in
// ---------------------------------------------------------------------------------------------------------------------

/** @param {File} file */
function open(file) {
  const id = ++job.id;
  job.file = file;
  $("error").hidden = true;
  $("busy").hidden = false;
  $("status").textContent = "Reading …";
  worker.then((it) => it.postMessage({ id, file, model: chosenModel() }));
}

function listenForFiles() {
  $("choose").onclick = $("another").onclick = () => $("file").click();
  $("file").onchange = ({ target }) => {
    if (target.files[0]) open(target.files[0]);
    target.value = ""; // so that the same file may be chosen again
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
  document.querySelector(`#models input[value="${model}"]`).checked = true;
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

const chosenModel = () => document.querySelector("#models input:checked")?.value;

async function listModels() {
  const response = await fetch("models.json");
  if (!response.ok) throw new Error("models.json is missing");
  const models = await response.json();
  if (!models.length) throw new Error("there is no model with ONNX graphs below checkpoints/");
  const usual = models.find(({ name }) => name === "photo_c8") ?? models[0];
  const segments = document.createElement("div");
  segments.className = "segments";
  for (const { name } of models) {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "model", value: name, checked: name === usual.name });
    input.onchange = () => shown.result?.original && open(shown.file);
    const label = element("label", name);
    label.append(input);
    segments.append(label);
  }
  $("models").append(segments);
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
