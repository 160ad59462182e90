/** The page's modules against files that Python made: node --test tests/web/. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { crc32, pack, unpack } from "../../web/codec/container.js";
import { ContextModel, StaticTables } from "../../web/codec/entropy.js";
import { UserError } from "../../web/codec/errors.js";
import { noise, philox } from "../../web/codec/noise.js";
import { readNpz } from "../../web/codec/npz.js";
import { fromNetwork, paddedSide, toNetwork } from "../../web/codec/pictures.js";
import { RangeDecoder, RangeEncoder } from "../../web/codec/range_coder.js";

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
  static: new StaticTables((await npz("static.npz")).get("frequencies")),
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
    assert.equal(hex(encoder.finish()), payload);
    const decoder = new RangeDecoder(bytesOf(payload));
    assert.equal(tables.map((table) => decoder.decode(table)).join(""), symbols);
  });
});

test("range decoder: a payload that no encoder wrote", () => {
  assert.throws(() => new RangeDecoder(new Uint8Array(3)), UserError);
  const decoder = new RangeDecoder(new Uint8Array(4));
  assert.throws(() => { for (;;) decoder.decode([32768, 32768]); }, /too short/);
});

// ---------------------------------------------------------------------------------------------------------------------
// Entropy models
// ---------------------------------------------------------------------------------------------------------------------

for (const { model, shape, symbols, payload } of golden.entropy) {
  const { height, width, channels } = shape;
  test(`${model} model: ${height}x${width}, ${channels} channels`, () => {
    assert.equal(hex(models[model].encode(digits(symbols), shape)), payload);
    assert.equal(models[model].decode(bytesOf(payload), shape).join(""), symbols);
  });
}

test("entropy models: damage is told, of each bit", () => {
  for (const { model, shape, payload } of [golden.entropy[1], golden.entropy[6]]) {
    for (let bit = 0; bit < 4 * payload.length; bit++) {
      const damaged = bytesOf(payload);
      damaged[bit >> 3] ^= 1 << (bit & 7);
      let symbols;
      try {
        symbols = models[model].decode(damaged, shape);
      } catch (error) {
        assert.ok(error instanceof UserError, error);
        continue;
      }
      assert.equal(hex(models[model].encode(symbols, shape)), hex(damaged)); // else another picture's file: the CRC tells
    }
  }
});

test("entropy models: a payload of another size is refused", () => {
  const { shape, payload, model } = golden.entropy[1];
  for (const wrong of [{ ...shape, height: 4 }, { ...shape, width: 10 }, { ...shape, height: 500 }, { ...shape, channels: 2 }]) {
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

test("container: pack and unpack", () => {
  const { file: said, bytes } = golden.container;
  assert.equal(hex(pack({ ...said, payload: bytesOf(said.payload) })), bytes);
  const { crc, payload, ...rest } = unpack(bytesOf(bytes));
  assert.deepEqual({ ...rest, payload: hex(payload) }, said);
  assert.equal(crc, Buffer.from(bytes, "hex").readUInt32LE(bytes.length / 2 - 4));
});

test("container: each bit flipped, each length cut, a longer file", () => {
  const bytes = bytesOf(golden.container.bytes);
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    const damaged = bytes.slice();
    damaged[bit >> 3] ^= 1 << (bit & 7);
    assert.throws(() => unpack(damaged), UserError);
  }
  for (let length = 0; length < bytes.length; length++) assert.throws(() => unpack(bytes.slice(0, length)), UserError);
  assert.throws(() => unpack(Uint8Array.of(...bytes, 0)), /checksum/);
  assert.throws(() => unpack(new TextEncoder().encode("Dear diary, today ...")), /not a .gc file/);
});

test("container: an empty picture, and one too large", () => {
  const bytes = bytesOf(golden.container.bytes);
  bytes[3] = 0;
  new DataView(bytes.buffer).setUint32(bytes.length - 4, crc32(bytes.subarray(0, -4)), true);
  assert.throws(() => unpack(bytes), /not a valid/);
  const { file: said } = golden.container;
  assert.throws(() => pack({ ...said, width: 65536, payload: new Uint8Array() }), /65535/);
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
