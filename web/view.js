/** Draws the page from its state: what is to be seen in which state stands here, and nowhere else. */

import { Compare } from "./compare.js";
import { isPhoto, labelModel, photoModels, stage } from "./state.js";

export const $ = (id) => /** @type {any} */ (document.getElementById(id));
const number = new Intl.NumberFormat("en");
const compare = new Compare($("compare"));

/** Where the focus goes when what had it is gone, by what the stage shows: the first of these that is there. */
const FIRST = { empty: ["choose"], busy: ["cancel"], result: ["divider", "compare"], error: ["again", "other"] };

/** @param {import("./state.js").State} state */
export function draw(state) {
  const focused = document.activeElement;
  const now = stage(state);
  const { item } = now;
  const result = now.kind === "result" ? now.result : null;
  const isEmpty = now.kind === "empty";
  const photo = item && isPhoto(item);
  const withPhotos = isEmpty || photo;

  // The stage
  Object.assign($("stage").dataset, { state: now.kind, job: now.job ?? 0 });
  $("stage").classList.toggle("dragging", state.dragging);
  show({ prompt: isEmpty, busy: now.kind === "busy", failure: now.kind === "error", compare: Boolean(result) });
  write("busy-text", now.kind === "busy" ? `${item.file.name}: ${now.text}` : "");
  write("error", now.kind === "error" ? [item?.file.name, now.text].filter(Boolean).join(": ") : "");
  show({ again: now.kind === "error" && now.again, other: !state.fault });
  compare.draw(result, item?.file.name);

  // What is said about it
  const notice = state.notice?.item === state.selected && result ? state.notice : null;
  write("status", now.kind === "busy" ? `${item.file.name}: ${now.text}` : notice?.text ?? (result ? aboutSize(result) : ""));
  $("status").classList.toggle("unseen", now.kind === "busy"); // the stage shows it
  show({ figures: Boolean(result), "link-row": Boolean(notice?.link) });
  $("link").value = notice?.link ?? "";
  keyed($("figures"), result ? figuresOf(result) : [], ([what]) => what, figure, ([, value], row) => (row.querySelector("dd").textContent = value));
  write("engine", state.engine && `Networks run by ${state.engine}.`);

  // What can be done with it
  show({ actions: Boolean(result), "save-gc": Boolean(result?.original) });
  $("save-png").classList.toggle("primary", Boolean(result) && !result.original);

  // Settings of photos
  const { model, target, free } = state.settings;
  const models = photoModels(state);
  show({ settings: withPhotos && models.length > 0, models: target === null && !item?.map, size: !item?.map });
  keyed(document.querySelector("#models .segments"), models, ({ name }) => name, modelButton, ({ name }, label) => {
    label.querySelector("input").checked = name === model;
  });
  $("target").value = free ? "free" : target ?? "";
  show({ "bytes-row": free });
  if (document.activeElement !== $("bytes")) $("bytes").value = target ?? "";

  // A label map
  show({ "label-map": Boolean(photo && labelModel(state)), "drop-map": Boolean(item?.map) });
  if (item?.map) $("label-map").open = true;
  write("add-map", item?.map ? "Another label map" : "Add a label map");

  // All files
  show({ list: state.items.length > 1 });
  keyed($("files"), state.items, ({ id }) => id, fileRow, (each, row) => drawFile(each, row, each.id === state.selected));
  const done = state.items.filter(({ stand }) => stand.kind === "result").length;
  show({ "save-all": done > 0 });
  write("save-all", `Save ${done === state.items.length ? "all" : `${done} of ${state.items.length}`} as .zip`);

  if (focused !== document.activeElement || !focused?.checkVisibility()) {
    FIRST[now.kind].map($).find((element) => element.checkVisibility())?.focus({ preventScroll: true });
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Words
// ---------------------------------------------------------------------------------------------------------------------

function aboutSize({ shrunkFrom, width, height }) {
  return shrunkFrom
    ? `The photo has ${shrunkFrom.width} × ${shrunkFrom.height} pixels; this page shrank it to ${width} × ${height} first.`
    : "";
}

/** @returns {[what: string, value: string][]} */
function figuresOf({ width, height, bytes, model, coded, encoding, decoding, original }) {
  const isSmaller = coded && (coded.width !== width || coded.height !== height);
  return [
    ["in the file", `${number.format(bytes.length)} bytes`],
    ["bits per pixel", ((8 * bytes.length) / (width * height)).toFixed(4)],
    ["pixels", `${width} × ${height}`],
    ...(isSmaller ? [["coded at", `${coded.width} × ${coded.height}`]] : []),
    ["model", model],
    ...(original ? [["to compress", `${encoding.toFixed(2)} s`]] : []),
    ["to decode", `${decoding.toFixed(2)} s`],
  ];
}

function standOf({ stand }) {
  if (stand.kind === "result") return `${number.format(stand.result.bytes.length)} bytes`;
  return { waiting: "waiting", busy: "at work", error: stand.text }[stand.kind];
}

// ---------------------------------------------------------------------------------------------------------------------
// Elements
// ---------------------------------------------------------------------------------------------------------------------

function show(visible) {
  for (const [id, isVisible] of Object.entries(visible)) $(id).hidden = !isVisible;
}

/** Only what changes is written, so that it is not read out again. */
function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function element(tag, properties, ...children) {
  const it = Object.assign(document.createElement(tag), properties);
  it.append(...children);
  return it;
}

/** Gives a parent one child for each entry, in their order, and keeps the children that are there already. */
function keyed(parent, entries, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const children = entries.map((entry) => {
    const child = old.get(String(keyOf(entry))) ?? make(entry);
    child.dataset.key = keyOf(entry);
    update(entry, child);
    return child;
  });
  if (children.length !== old.size || children.some((child, i) => parent.children[i] !== child)) parent.replaceChildren(...children);
}

const figure = ([what]) => element("div", {}, element("dt", { textContent: what }), element("dd", {}));

const modelButton = ({ name }) => element("label", { textContent: name }, element("input", { type: "radio", name: "model", value: name }));

function fileRow({ id }) {
  const select = element("button", { type: "button", className: "select" }, element("span", { className: "name" }), element("span", { className: "stand" }));
  select.dataset.select = id;
  const save = element("button", { type: "button", className: "save" });
  save.dataset.save = id;
  return element("li", {}, select, save);
}

function drawFile(item, row, isSelected) {
  const { file, stand } = item;
  const [select, save] = row.children;
  const comes = isSelected && select.getAttribute("aria-current") !== "true";
  select.setAttribute("aria-current", String(isSelected));
  if (comes) requestAnimationFrame(() => ($("files").scrollTop = row.offsetTop - row.offsetHeight)); // the list has a scroll bar of its own
  select.querySelector(".name").textContent = file.name;
  select.querySelector(".stand").textContent = standOf(item);
  row.dataset.kind = stand.kind;
  save.hidden = stand.kind !== "result";
  save.textContent = isPhoto(item) ? "Save .gc" : "Save PNG";
  save.setAttribute("aria-label", `${save.textContent} of ${file.name}`);
}
