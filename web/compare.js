/**
 * Two pictures, one over the other, with a divider between them; both can be zoomed and moved. Mouse: the wheel zooms, dragging
 * moves the divider, or the pictures where they are zoomed and it is not the divider's handle. Touch: likewise, and two fingers
 * zoom. Keys: + - 0 zoom; arrows move the divider, or with the focus on the pictures, these.
 */

const MOST = 16; // times
const STEP = 1.5; // times, of the buttons and keys
const GRIP = 28; // px from the divider, where a pointer takes hold of it
const PIXELS_SEEN = 3; // CSS px of a pixel, from which on pixels are squares

export class Compare {
  #split = 50; // percent
  #zoom = 1; // of the size that fits
  #x = 0; // px by which the pictures are moved, from the corner
  #y = 0;
  #width = 1; // px of the whole, when the pictures were last moved
  /** @type {any} */
  #result = null;
  /** Where each pointer that is down was last. @type {Map<number, {x: number, y: number}>} */
  #pointers = new Map();
  #dragsDivider = false;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.find = (id) => root.querySelector(`#${id}`);
    this.find("divider").addEventListener("input", ({ target }) => this.#place({ split: Number(target.value) }));
    this.find("zoom-in").addEventListener("click", () => this.#zoomBy(STEP));
    this.find("zoom-out").addEventListener("click", () => this.#zoomBy(1 / STEP));
    this.find("zoom-fit").addEventListener("click", () => this.#place({ zoom: 1, x: 0, y: 0 }));
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("pointerdown", (event) => this.#down(event));
    root.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) root.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    new ResizeObserver(() => this.#resized()).observe(root);
  }

  /** @param {import("./worker.js").Result | null} result @param {string} name of the file */
  draw(result, name) {
    if (result === this.#result) return;
    this.#result = result;
    this.#picture("decoded", result?.decoded, result?.original ? "What comes back" : `Picture of ${name}`);
    this.#picture("original", result?.original, "Original");
    for (const id of ["above", "original-tag", "line", "divider"]) this.find(id).hidden = !result?.original;
    this.find("decoded-tag").textContent = result?.original ? "What comes back" : name ?? "";
    if (result) this.root.style.setProperty("--aspect", String(result.width / result.height));
    this.#pointers.clear();
    this.#place({ zoom: 1, x: 0, y: 0 });
  }

  #picture(id, blob, alt) {
    const image = this.find(id);
    if (image.src) URL.revokeObjectURL(image.src);
    if (blob) Object.assign(image, { src: URL.createObjectURL(blob), alt });
    else image.removeAttribute("src");
  }

  #place({ split = this.#split, zoom = this.#zoom, x = this.#x, y = this.#y }) {
    const { clientWidth: width, clientHeight: height } = this.root;
    this.#width = width || 1;
    this.#split = Math.min(100, Math.max(0, split));
    this.#zoom = Math.min(MOST, Math.max(1, zoom));
    this.#x = Math.min(0, Math.max(width * (1 - this.#zoom), x));
    this.#y = Math.min(0, Math.max(height * (1 - this.#zoom), y));
    this.root.style.setProperty("--split", `${this.#split}%`);
    this.root.style.setProperty("--move", `translate(${this.#x}px, ${this.#y}px) scale(${this.#zoom})`);
    this.root.classList.toggle("zoomed", this.#zoom > 1);
    this.root.classList.toggle("squares", Boolean(this.#result) && (this.#zoom * width) / this.#result.width > PIXELS_SEEN);
    this.find("divider").value = String(this.#split);
    this.find("zoom-fit").textContent = `${this.#zoom.toFixed(1)}×`;
  }

  /** The same part of the pictures stays in sight. */
  #resized() {
    const factor = this.root.clientWidth / this.#width;
    this.#place({ x: this.#x * factor, y: this.#y * factor });
  }

  /** Zooms so that a point stays where it is; by default, the middle. */
  #zoomBy(factor, x = this.root.clientWidth / 2, y = this.root.clientHeight / 2) {
    const real = Math.min(MOST, Math.max(1, this.#zoom * factor)) / this.#zoom;
    this.#place({ zoom: this.#zoom * real, x: x - (x - this.#x) * real, y: y - (y - this.#y) * real });
  }

  #at({ clientX, clientY }) {
    const { left, top } = this.root.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  }

  #wheel(event) {
    event.preventDefault();
    const { x, y } = this.#at(event);
    this.#zoomBy(2 ** (-event.deltaY / 240), x, y);
  }

  #key(event) {
    const zooms = { "+": STEP, "=": STEP, "-": 1 / STEP, 0: 1 / MOST };
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in zooms) this.#zoomBy(zooms[event.key]);
    else if (event.key in moves && event.target === this.root && this.#zoom > 1) {
      const [x, y] = moves[event.key];
      this.#place({ x: this.#x + x, y: this.#y + y });
    } else return;
    event.preventDefault();
  }

  #down(event) {
    if (event.button !== 0 || event.target.closest("button")) return;
    const { x, y } = this.#at(event);
    this.#pointers.set(event.pointerId, { x, y });
    this.root.setPointerCapture(event.pointerId);
    const divided = Boolean(this.#result?.original);
    const near = Math.abs(x - (this.#split / 100) * this.root.clientWidth) < GRIP;
    this.#dragsDivider = divided && this.#pointers.size === 1 && (near || this.#zoom === 1);
    if (this.#dragsDivider) this.#place({ split: (100 * x) / this.root.clientWidth });
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = this.#at(event);
    this.#pointers.set(event.pointerId, now);
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
      this.#zoomBy(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
      this.#place({ x: this.#x + (now.x - before.x) / 2, y: this.#y + (now.y - before.y) / 2 });
    } else if (this.#dragsDivider) {
      this.#place({ split: (100 * now.x) / this.root.clientWidth });
    } else {
      this.#place({ x: this.#x + now.x - before.x, y: this.#y + now.y - before.y });
    }
  }
}
