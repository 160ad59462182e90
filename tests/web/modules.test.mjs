/** The page's modules against files that Python made: node --test tests/web/. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { bestFile, smallestScale } from "../../web/codec/best_file.js";
import { codedSize, crc32, join, looksLikeGc, pack, split, unpack } from "../../web/codec/container.js";
import { ContextModel, StaticTables } from "../../web/codec/entropy.js";
import { UserError } from "../../web/codec/errors.js";
import { readVarint, varint } from "../../web/codec/integers.js";
import { classesOf, labelCode, mapSymbols, oneHotBlocks } from "../../web/codec/label_code.js";
import { noise, philox } from "../../web/codec/noise.js";
import { readNpz } from "../../web/codec/npz.js";
import { fromNetwork, paddedSide, resize, toNetwork } from "../../web/codec/pictures.js";
import { psnr, quality } from "../../web/codec/quality.js";
import { RangeDecoder, RangeEncoder } from "../../web/codec/range_coder.js";
import { fromText, linkTo, toText } from "../../web/share.js";
import * as states from "../../web/state.js";
import { withoutOrientation } from "../../web/webp.js";

const file = (name) => readFile(new URL(`golden/${name}`, import.meta.url));
const npz = async (name) => {
  const bytes = await file(name);
  return readNpz(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};
const golden = JSON.parse(await file("golden.json"));
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bytesOf = (text) => new Uint8Array(Buffer.from(text, "hex"));
const digits = (text) => Uint8Array.from(text, Number);
const models = {
  context: new ContextModel(await npz("context.npz")),
  classes: new ContextModel(await npz("classes.npz")),
  static: new StaticTables((await npz("static.npz")).get("frequencies")),
  equal: StaticTables.equal(3, 5),
};

// ---------------------------------------------------------------------------------------------------------------------
// Range coder
// ---------------------------------------------------------------------------------------------------------------------

golden.range_coder.forEach(({ rows, chosen, symbols, payload }, i) => {
  test(`range coder: case ${i}, ${symbols.length} symbols`, () => {
    const encoder = new RangeEncoder();
    const tables = [...chosen].map((index) => rows[index]);
    tables.forEach((table, at) => {
      const symbol = Number(symbols[at]);
      encoder.encode(table.slice(0, symbol).reduce((a, b) => a + b, 0), table[symbol]);
    });
    assert.equal(hex(encoder.payload()), payload);
    const decoder = new RangeDecoder(bytesOf(payload));
    assert.equal(tables.map((table) => decoder.decode(table)).join(""), symbols);
  });
});

test("range decoder: a payload that no encoder wrote", () => {
  for (const length of [0, 3, 4]) {
    const decoder = new RangeDecoder(new Uint8Array(length));
    for (let bit = 0; bit < 8 * length + 32; bit++) assert.equal(decoder.decode([32768, 32768]), 0);
    assert.throws(() => decoder.decode([32768, 32768]), /too short/);
  }
  const beyond = new RangeDecoder(new Uint8Array(8).fill(255));
  assert.throws(() => beyond.decode([32768, 32768]), /cannot be decoded/);
});

// ---------------------------------------------------------------------------------------------------------------------
// Entropy models
// ---------------------------------------------------------------------------------------------------------------------

for (const { model, shape, mask: where, symbols, payload } of golden.entropy) {
  const { height, width, channels } = shape;
  test(`${model} model: ${height}x${width}, ${channels} channels${where ? ", masked" : ""}`, () => {
    const mask = where && digits(where);
    assert.equal(hex(models[model].encode(digits(symbols), shape, mask)), payload);
    assert.equal(models[model].decode(bytesOf(payload), shape, mask).join(""), symbols);
  });
}

test("entropy models: damage is an error, or the payload of other symbols", () => {
  for (const { model, shape, payload } of [golden.entropy[1], golden.entropy[6]]) {
    const bytes = bytesOf(payload);
    const flipped = Array.from({ length: 4 * payload.length }, (_, bit) => bytes.with(bit >> 3, bytes[bit >> 3] ^ (1 << (bit & 7))));
    const cut = Array.from({ length: bytes.length }, (_, length) => bytes.slice(0, length));
    let refused = 0;
    for (const damaged of [...flipped, ...cut]) {
      let symbols;
      try {
        symbols = models[model].decode(damaged, shape);
      } catch (error) {
        assert.ok(error instanceof UserError, error);
        refused++;
        continue;
      }
      assert.equal(hex(models[model].encode(symbols, shape)), hex(damaged)); // only the file's checksum tells these
    }
    assert.ok(refused > 0);
    for (const more of [[0], [0, 0, 0, 0], [1, 2, 3, 4, 5]]) {
      assert.throws(() => models[model].decode(Uint8Array.of(...bytes, ...more), shape), /not that of its image size/);
    }
  }
});

test("entropy models: a payload of another size is refused", () => {
  const { shape, payload, model } = golden.entropy[1];
  for (const wrong of [{ ...shape, height: 2 }, { ...shape, height: 500 }, { ...shape, width: 5 }, { ...shape, channels: 1 }]) {
    assert.throws(() => models[model].decode(bytesOf(payload), wrong), UserError);
  }
});

test("context model: arrays that do not fit are refused", async () => {
  const arrays = await npz("context.npz");
  arrays.delete("bias2");
  assert.throws(() => new ContextModel(arrays), /bias2/);
  assert.throws(() => new ContextModel(new Map()), UserError);
});

// ---------------------------------------------------------------------------------------------------------------------
// Container
// ---------------------------------------------------------------------------------------------------------------------

/** A file of these bytes, with the checksum that belongs to them. */
function withChecksum(...bytes) {
  const data = Uint8Array.of(...bytes, 0, 0, 0, 0);
  new DataView(data.buffer).setUint32(bytes.length, crc32(data.subarray(0, -4)), true);
  return data;
}

golden.containers.forEach(({ file: said, bytes }, i) => {
  test(`container: case ${i}, pack and unpack`, () => {
    assert.equal(hex(pack({ ...said, payload: bytesOf(said.payload) })), bytes);
    const { crc, payload, ...rest } = unpack(bytesOf(bytes));
    assert.deepEqual({ ...rest, payload: hex(payload) }, said);
    assert.equal(crc, Buffer.from(bytes, "hex").readUInt32LE(bytes.length / 2 - 4));
    assert.ok(looksLikeGc(bytesOf(bytes)));
  });
});

test("container: the size at which an image is coded, at every scale", () => {
  for (const { image, coded } of golden.coded_sizes) assert.deepEqual(codedSize(image), coded);
});

test("container: each bit flipped, each length cut, a longer file", () => {
  const bytes = bytesOf(golden.containers[1].bytes);
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    const damaged = bytes.slice();
    damaged[bit >> 3] ^= 1 << (bit & 7);
    assert.throws(() => unpack(damaged), UserError);
  }
  for (let length = 0; length < bytes.length; length++) assert.throws(() => unpack(bytes.slice(0, length)), UserError);
  assert.throws(() => unpack(Uint8Array.of(...bytes, 0)), /checksum/);
  assert.throws(() => unpack(new TextEncoder().encode("Dear diary, today ...")), /not a .gc file/);
  assert.throws(() => unpack(new TextEncoder().encode("good day")), /not a .gc file/);
});

test("container: older versions are refused by name", () => {
  for (const version of [1, 2]) {
    const old = Uint8Array.of(0x67, 0x63, version, 8, ...new Uint8Array(20));
    assert.ok(looksLikeGc(old));
    assert.throws(() => unpack(old), new RegExp(`format version ${version}; this page reads version 3`));
  }
});

test("container: headers that no encoder writes, and a picture too large", () => {
  const model = [1, 2, 3, 4];
  const wrong = [
    [[0x67, 0x80, 0, 5, ...model], /0x5 pixels/],
    [[0x67, 0xc0, 5, 5, 0, ...model], /0 channels/],
    [[0x67, 0x80, 0x85, 0, 5, ...model], /too long/], // 5, in two bytes
    [[0x67, 0x80, 0xff, 0xff, 0xff, 0xff, 5, ...model], /too long/],
    [[0x67, 0x80, 0xff, 0xff, 0x7f, 5, ...model], /2097151x5/],
    [[0x67, 0xc0, 0x85, 1, 5, 7, 1, 2, 3], /header/],
    [[0x67, 0x80, 0x85, 0x85, 0x85, 0x85, 0x85, 0x85], /too long/],
  ];
  for (const [bytes, message] of wrong) assert.throws(() => unpack(withChecksum(...bytes)), message);
  const { file: said } = golden.containers[0];
  assert.throws(() => pack({ ...said, width: 65536, payload: new Uint8Array() }), /65535/);
});

test("integers: of variable length", () => {
  for (const number of [0, 1, 127, 128, 16383, 16384, 65535, 2 ** 28 - 1]) {
    const bytes = varint(number);
    assert.deepEqual(readVarint(Uint8Array.of(9, ...bytes, 9), 1), [number, 1 + bytes.length]);
    assert.throws(() => readVarint(Uint8Array.from(bytes.slice(0, -1)), 0), /ends within/);
  }
});

test("container: sections of a payload", () => {
  for (const { sections, payload } of golden.payloads) {
    assert.equal(hex(join(sections.map(bytesOf))), payload);
    assert.deepEqual(split(bytesOf(payload), sections.length).map(hex), sections);
  }
  const whole = bytesOf(golden.payloads[2].payload);
  for (const length of [0, 1, 100, 205]) assert.throws(() => split(whole.slice(0, length), 3), /ends within/);
});

// ---------------------------------------------------------------------------------------------------------------------
// Label maps
// ---------------------------------------------------------------------------------------------------------------------

golden.label_codes.forEach(({ map, code, shape, symbols, seen }, i) => {
  test(`label maps: case ${i}, blocks of ${code.side} px`, () => {
    if (!code.boundaries) assert.deepEqual([...mapSymbols(digits(map.classes), map, code)], symbols);
    assert.equal(oneHotBlocks(Uint8Array.from(symbols), shape, code).join(""), seen);
  });
});

test("label maps: the classes of colours and of indices", () => {
  const config = { use_conditional_GAN: true, semantic_code: "lossless", n_classes: 3, semantic_scale: 8, use_instances: false,
    classes: "Sky 128 128 128, Two Words 1 2 3, Void 0 0 0" };
  const code = labelCode(config);
  const picture = (...colours) => ({ width: colours.length, height: 1, data: Uint8ClampedArray.from(colours.flatMap((c) => [...c, 255])) });
  assert.deepEqual([...classesOf(picture([1, 2, 3], [128, 128, 128], [9, 9, 9], [0, 0, 0]), code)], [1, 0, 2, 2]);
  assert.deepEqual([...classesOf(picture([0, 0, 0], [1, 1, 1], [2, 2, 2]), code)], [0, 1, 2]);
  assert.throws(() => classesOf(picture([7, 8, 9], [3, 3, 3]), code), /Hardly any pixel/);
  assert.equal(labelCode({ ...config, semantic_code: "none" }), null);
  assert.equal(labelCode({ ...config, use_conditional_GAN: false }), null);
});

// ---------------------------------------------------------------------------------------------------------------------
// Noise, arrays, pictures
// ---------------------------------------------------------------------------------------------------------------------

test("noise: the generator's words, and their values", () => {
  const { crc, words, values } = golden.noise;
  const block = new Uint32Array(8);
  for (let i = 0; i < words.length; i += 4) {
    philox(1 + i / 4, [crc, 0], block);
    assert.deepEqual([...new BigUint64Array(block.buffer)].map((word) => word.toString(16).padStart(16, "0")), words.slice(i, i + 4));
  }
  assert.equal(hex(new Uint8Array(noise(1001, crc).buffer)), values);
  assert.notEqual(noise(8, crc)[0], noise(8, crc, 1)[0]);
});

test("npz: all types", async () => {
  const arrays = await npz("arrays.npz");
  assert.deepEqual([...arrays.keys()].sort(), Object.keys(golden.arrays).sort());
  for (const [name, { dtype, shape, data }] of Object.entries(golden.arrays)) {
    const array = arrays.get(name);
    assert.deepEqual({ dtype: array.dtype, shape: array.shape, data: [...array.data] }, { dtype, shape, data }, name);
  }
});

test("npz: what is none", async () => {
  await assert.rejects(readNpz(new ArrayBuffer(5)), UserError);
  await assert.rejects(readNpz(new ArrayBuffer(500)), UserError);
});

test("pictures: padded by repetition, cropped again", () => {
  assert.deepEqual([1, 32, 33, 48, 768].map(paddedSide), [32, 32, 48, 48, 768]);
  const [width, height] = [37, 5];
  const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => (i % 4 === 3 ? 255 : (i * 89) % 256));
  const x = toNetwork({ width, height, data });
  assert.equal(x.length, 48 * 32 * 3);
  const at = (row, column) => [...x.subarray(3 * (row * 48 + column), 3 * (row * 48 + column) + 3)];
  assert.deepEqual(at(31, 47), at(4, 36));
  assert.deepEqual(at(2, 40), at(2, 36));
  assert.deepEqual(fromNetwork(x, width, height), { width, height, data });
  assert.deepEqual([...fromNetwork(new Float32Array(32 * 32 * 3).fill(2), 1, 1).data], [255, 255, 255, 255]);
});

/** A picture of these RGB bytes. */
function pictureOf({ width, height, data }) {
  const rgba = [];
  for (const [i, byte] of bytesOf(data).entries()) rgba.push(byte, ...(i % 3 === 2 ? [255] : []));
  return { width, height, data: Uint8ClampedArray.from(rgba) };
}

test("pictures: enlarged and shrunk as Pillow does it", () => {
  for (const { resized, ...own } of golden.resizings) {
    const expected = pictureOf(resized);
    const { width, height, data } = resize(pictureOf(own), resized.width, resized.height);
    assert.deepEqual([width, height, data.length], [expected.width, expected.height, expected.data.length]);
    assert.ok(data.every((value, i) => Math.abs(value - expected.data[i]) <= 1));
    const different = data.filter((value, i) => value !== expected.data[i]).length;
    assert.ok(different <= 0.001 * data.length, `${different} of ${data.length} values`);
  }
});

// ---------------------------------------------------------------------------------------------------------------------
// Budgets
// ---------------------------------------------------------------------------------------------------------------------

/** What make_golden.py's `qualities` makes by the same formula. */
function waves(width, height) {
  const at = (i, shift) => {
    const [c, x, y] = [i % 4, Math.floor(i / 4) % width, Math.floor(i / 4 / width)];
    return c === 3 ? 255 : (x * y + 31 * x * (c + 1) + 7 * y * shift) % 256;
  };
  const make = (value) => ({ width, height, data: Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => value(i)) });
  return [make((i) => at(i, 1)), make((i) => Math.floor((3 * at(i, 1) + at(i, 2)) / 4))];
}

test("quality: that of evaluation/metrics.py", () => {
  for (const { width, height, ...expected } of golden.qualities) {
    const [a, b] = waves(width, height);
    assert.ok(Math.abs(quality(a, b) - expected.quality) < 1e-4, `${quality(a, b)} is not ${expected.quality}`);
    assert.ok(Math.abs(psnr(a, b) - expected.psnr) < 1e-9);
  }
});

test("budget: the largest coded size that fits, whatever is guessed first", async () => {
  const sizes = Array.from({ length: 64 }, (_, scale) => 14 + Math.round(1300 * 2 ** (-scale / 5)));
  for (const budget of [15, 20, 100, 340, 1000, 1313, 1314, 5000]) {
    const expected = sizes.findIndex((size) => size <= budget);
    for (const guess of [0, 10, 63]) {
      const found = await smallestScale(async (scale) => new Uint8Array(sizes[scale]), budget, guess);
      assert.equal(found, expected < 0 ? null : expected);
    }
  }
  assert.equal(await smallestScale(async () => new Uint8Array(14), 14, 0), null);
});

test("budget: of the models' files, the one whose picture is most alike; or what would be enough", async () => {
  const [picture, other] = waves(40, 30);
  const codec = (size, decoded) => ({
    encode: async (_, __, scale) => ({ bytes: new Uint8Array(Math.max(20, size - scale)) }),
    decode: async () => ({ picture: decoded, seconds: { network: 1 } }),
  });
  const found = await bestFile(picture, [codec(50, other), codec(60, picture), codec(90, picture)], 45);
  assert.deepEqual([found.codec, found.bytes.length], [1, 45]);
  await assert.rejects(bestFile(picture, [codec(120, other), codec(110, other)], 40), /does not fit into 40 bytes; 47 are enough/);
});

// ---------------------------------------------------------------------------------------------------------------------
// The page's own modules
// ---------------------------------------------------------------------------------------------------------------------

test("links: any bytes, and what is none", () => {
  const bytes = Uint8Array.from({ length: 70_001 }, (_, i) => (i * i) % 251);
  for (const part of [bytes, bytes.subarray(0, 1), bytes.subarray(3, 5), Uint8Array.of(255, 254, 253, 252)]) {
    assert.equal(toText(part), Buffer.from(part).toString("base64url"));
    assert.deepEqual(fromText(toText(part)), Uint8Array.from(part));
  }
  assert.equal(linkTo(bytes.subarray(0, 3), "https://here/page?x#old"), "https://here/page?x#AAEE");
  for (const text of ["", "a", "ab+c", "a b", "AAAA=", "é"]) assert.throws(() => fromText(text), /damaged/);
});

/** A WebP file of these chunks. */
function webp(...chunks) {
  const parts = chunks.flatMap(([name, data]) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(data.length);
    return [Buffer.from(name), length, Buffer.from(data), Buffer.alloc(data.length % 2)];
  });
  return new Uint8Array(Buffer.concat([Buffer.from("RIFF____WEBP"), ...parts]));
}

test("webp: the orientation, which is hidden from the browser", () => {
  const little = [0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0];
  const big = [0x4d, 0x4d, 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0];
  const named = [...Buffer.from("Exif"), 0, 0, ...little];
  for (const [exif, orientation] of [[little, 6], [big, 8], [named, 6], [little.slice(0, 15), 1], [[], 1], [little.with(18, 9), 1]]) {
    const found = withoutOrientation(webp(["VP8L", [1, 2, 3]], ["EXIF", exif]));
    assert.equal(found.orientation, orientation);
    assert.ok(!Buffer.from(found.bytes).includes("EXIF"));
  }
  assert.equal(withoutOrientation(webp(["VP8L", [1]])).orientation, 1);
  assert.equal(withoutOrientation(new Uint8Array(30)), null);
  assert.equal(withoutOrientation(webp(["VP8L", [1]]).subarray(0, 15)).orientation, 1);
});

const MODELS = [["photo_c4", false], ["photo_c8", false], ["street", true]].map(([name, labels]) => ({ name, folder: name, fingerprint: name, label_map: labels, compresses: true }));
const named = (name) => /** @type {any} */ ({ name });

/** A state with these files; the first is done. */
function worked(...names) {
  const state = states.started(states.opened(states.modelsListed(states.EMPTY, MODELS), names.map(named)), 1);
  return states.finished(state, state.count, { original: {}, engine: "WebAssembly" });
}

test("states: files wait for the list of models, and for one another", () => {
  const early = states.opened(states.EMPTY, [named("a.png"), named("b.png")]);
  assert.equal(states.stage(early).kind, "busy");
  assert.equal(states.next(early), undefined);
  const listed = states.modelsListed(early, MODELS);
  assert.equal(states.next(listed).file.name, "a.png");
  assert.equal(states.next(states.selected(listed, 2)).file.name, "b.png"); // what is looked at comes first
  assert.equal(states.next(states.started(listed, 1)), undefined);
  assert.equal(listed.settings.model, "photo_c8");
  assert.deepEqual(states.photoModels(listed).map(({ name }) => name), ["photo_c4", "photo_c8"]);
});

test("states: another model or size leaves no result of the former, and touches no .gc file", () => {
  const both = worked("a.png", "b.gc");
  const decoded = states.finished(states.started(both, 2), both.count + 1, { engine: "WebAssembly" });
  for (const settings of [{ model: "photo_c4" }, { target: 340 }]) {
    assert.deepEqual(states.chosen(decoded, settings).items.map(({ stand }) => stand.kind), ["waiting", "result"]);
  }
  assert.deepEqual(states.chosen(decoded, { free: true }).items.map(({ stand }) => stand.kind), ["result", "result"]);
});

test("states: answers to a job that nobody wants change nothing", () => {
  const busy = states.started(worked("a.png", "b.png"), 2);
  const job = busy.count;
  assert.ok(states.isWanted(busy, job));
  for (const left of [states.cancelled(busy), states.cleared(busy), states.chosen(busy, { model: "photo_c4" })]) {
    assert.ok(!states.isWanted(left, job));
    assert.equal(states.told(left, job, "late"), left);
    assert.deepEqual(states.failed(left, job, "late", false).items, left.items);
  }
});

test("states: cancelling keeps what is finished, and a click brings the rest back", () => {
  const left = states.cancelled(states.started(worked("a.png", "b.png", "c.png"), 2));
  assert.deepEqual(left.items.map(({ stand }) => stand.kind), ["result", "error", "error"]);
  assert.equal(states.next(left), undefined);
  assert.equal(states.next(states.triedAgain(left, 3)).file.name, "c.png");
});

test("states: a label map brings its own model, and no target", () => {
  const mapped = states.mapGiven(states.chosen(worked("a.png"), { target: 340 }), 1, named("map.png"));
  const { model, target, map } = states.jobOf(mapped, mapped.items[0]);
  assert.deepEqual([model, target, map.name], ["street", null, "map.png"]);
  assert.equal(states.jobOf(mapped, { file: named("b.png"), map: null }).target, 340);
});
