/**
 * What the page knows, and what can happen to it. view.js draws everything from this, and app.js sends what is to be done to the
 * worker; nothing else holds the truth. Each function below takes a state and returns the next one.
 *
 *     empty ──files──▶ busy with X ──▶ result of X, error about X
 *                          ▲                │  another model or size, or another try
 *                          └────────────────┘
 */

/**
 * @typedef {{name: string, folder: string, fingerprint: string, label_map: boolean, compresses: boolean}} ModelInfo what
 *     models.json says. label_map: its files have one; compresses: whether this page can also make its files
 * @typedef {{model: string, target: number | null, free: boolean}} Settings of photos. target: bytes, at most; `model` counts
 *     where there is none. free: the number is the visitor's own, and none of the menu's
 *
 * @typedef {{kind: "waiting"}
 *     | {kind: "busy", job: number, text: string}
 *     | {kind: "result", job: number, result: import("./worker.js").Result}
 *     | {kind: "error", job: number, text: string, again: boolean}} Stand of a file's work. again: another try may help
 * @typedef {{id: number, file: File, map: File | null, stand: Stand}} Item a file, and the label map that belongs to it
 *
 * @typedef {object} State
 * @property {ModelInfo[] | null} models null until the list has arrived
 * @property {string} fault what is wrong with the page itself; "" if nothing is
 * @property {Settings} settings
 * @property {Item[]} items
 * @property {number} selected the id of the one on the stage; 0 if there is none
 * @property {number} count of ids and jobs that were given away
 * @property {boolean} dragging whether files are held over the page
 * @property {string} engine what runs the networks; "" until it is known
 * @property {{item: number, text: string, link: string} | null} notice what was done about an item, such as a link copied
 */

/** @type {State} */
export const EMPTY = {
  models: null, fault: "", settings: { model: "", target: null, free: false }, items: [], selected: 0, count: 0, dragging: false,
  engine: "", notice: null,
};
const USUAL_MODEL = "photo_c8"; // as compress.py

// ---------------------------------------------------------------------------------------------------------------------
// Questions
// ---------------------------------------------------------------------------------------------------------------------

export const selectedItem = (state) => state.items.find(({ id }) => id === state.selected);

/** What the stage shows. @returns {{kind: "empty" | "busy" | "result" | "error", item?: Item, text?: string, result?: any, again?: boolean, job?: number}} */
export function stage(state) {
  const item = selectedItem(state);
  if (state.fault && item?.stand.kind !== "result") return { kind: "error", text: state.fault, again: false };
  if (!item) return { kind: "empty" };
  if (item.stand.kind !== "waiting") return { ...item.stand, item };
  return { kind: "busy", item, text: state.models ? "Waiting for the files before it …" : "Waiting for the list of models …" };
}

/** Whether a file is to be compressed; what only turns out to be a .gc file when it is read counts as that from then on. */
export function isPhoto({ file, stand }) {
  return stand.kind === "result" ? Boolean(stand.result.original) : !/\.gc$/i.test(file.name);
}

/** The models that have a button: those that make files of photos alone. */
export const photoModels = (state) => (state.models ?? []).filter((model) => model.compresses && !model.label_map);

/** The model that makes files of photos with label maps, if there is one. */
export const labelModel = (state) => (state.models ?? []).find((model) => model.compresses && model.label_map);

export const isWanted = (state, job) => state.items.some(({ stand }) => stand.kind === "busy" && stand.job === job);

/** The file to work on next: the one on the stage before the others. */
export function next(state) {
  if (!state.models || state.fault || state.items.some(({ stand }) => stand.kind === "busy")) return undefined;
  const waiting = state.items.filter(({ stand }) => stand.kind === "waiting");
  return waiting.find(({ id }) => id === state.selected) ?? waiting[0];
}

/** What the worker is told of an item's work. Photos without a label map are fitted into the target, if there is one. */
export function jobOf(state, { file, map }) {
  const { model, target } = state.settings;
  return { file, map, models: state.models, model: map ? labelModel(state)?.name : model, target: map ? null : target };
}

// ---------------------------------------------------------------------------------------------------------------------
// What can happen
// ---------------------------------------------------------------------------------------------------------------------

/** @param {ModelInfo[]} models */
export function modelsListed(state, models) {
  const names = photoModels({ models }).map(({ name }) => name);
  return { ...state, models, settings: { ...state.settings, model: names.includes(USUAL_MODEL) ? USUAL_MODEL : names[0] ?? "" } };
}

export const broken = (state, fault) => ({ ...state, fault });

/**
 * @param {File[]} files are put at the list's end; the first of them comes on the stage
 * @param {string} error if it is known that they cannot be read
 */
export function opened(state, files, error = "") {
  if (!files.length) return state;
  const count = state.count + files.length;
  const stand = error ? { kind: "error", job: count, text: error, again: false } : { kind: "waiting" };
  const items = files.map((file, i) => ({ id: state.count + 1 + i, file, map: null, stand }));
  return { ...state, items: [...state.items, ...items], selected: items[0].id, count, notice: null };
}

export const selected = (state, id) => ({ ...state, selected: id });

/** Other settings: photos are compressed anew, and what was made of them before is gone at once. */
export function chosen(state, settings) {
  const anew = { ...state, settings: { ...state.settings, ...settings }, notice: null };
  const same = JSON.stringify(jobOf(anew, {})) === JSON.stringify(jobOf(state, {}));
  return same ? anew : waiting(anew, (item) => isPhoto(item) && !item.map);
}

/** @param {File | null} map null: without it */
export function mapGiven(state, id, map) {
  return waiting(changed(state, id, (item) => ({ ...item, map })), (item) => item.id === id);
}

export const triedAgain = (state, id) => waiting(state, (item) => item.id === id);

export const started = (state, id) => ({ ...stood(state, id, { kind: "busy", job: state.count + 1, text: "Reading …" }), count: state.count + 1 });

export const told = (state, job, text) => answered(state, job, { kind: "busy", text });

export const finished = (state, job, result) => ({ ...answered(state, job, { kind: "result", result }), engine: result.engine });

export const failed = (state, job, text, again) => answered(state, job, { kind: "error", text, again });

/** Everything that is not finished is given up; a click brings it back. */
export function cancelled(state) {
  const open = (stand) => stand.kind === "busy" || stand.kind === "waiting";
  const stand = ({ job = 0 }) => ({ kind: "error", job, text: "Cancelled.", again: true });
  return { ...state, items: state.items.map((item) => (open(item.stand) ? { ...item, stand: stand(item.stand) } : item)) };
}

/** All files go; the settings stay. */
export const cleared = (state) => ({ ...state, items: [], selected: 0, notice: null });

export const noticed = (state, item, text, link = "") => ({ ...state, notice: { item, text, link } });

export const dragged = (state, dragging) => ({ ...state, dragging });

// ---------------------------------------------------------------------------------------------------------------------

function changed(state, id, change) {
  return { ...state, items: state.items.map((item) => (item.id === id ? change(item) : item)) };
}

const stood = (state, id, stand) => changed(state, id, (item) => ({ ...item, stand }));

/** What the worker says about a job that nobody wants any more is dropped. */
function answered(state, job, stand) {
  const item = state.items.find((each) => each.stand.kind === "busy" && each.stand.job === job);
  return item ? stood(state, item.id, { job, ...stand }) : state;
}

function waiting(state, which) {
  const items = state.items.map((item) => (which(item) ? { ...item, stand: { kind: "waiting" } } : item));
  return { ...state, items, notice: null };
}
