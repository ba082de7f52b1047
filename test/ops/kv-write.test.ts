import { describe, expect, test } from "vitest";
import { narrowToHalf } from "../../src/half.ts";
import { kvWrite } from "../../src/ops/kv-write.ts";
import { rowStride, Tensor } from "../../src/tensor.ts";
import {
  expectLedgerUnchanged,
  expectSameBits,
  type Output,
  openTestGpu,
  withGuardsAll,
} from "../gpu-fixture.ts";
import * as reference from "../reference.ts";
import { randomFloats, shuffled, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();
const LARGEST_HALF = 65504;

// A workgroup of 64 threads stores 64 quads of one token: a head of D channels has ceil(D / 4).
const SHAPES = [
  { tokens: 1, heads: 1, headSize: 1, slots: 1, why: "one thread works, three of four channels are padding" },
  { tokens: 3, heads: 3, headSize: 5, slots: 7, why: "heads that begin at no multiple of four" },
  { tokens: 2, heads: 3, headSize: 84, slots: 4, why: "63 quads: one thread idle" },
  { tokens: 17, heads: 4, headSize: 64, slots: 32, why: "exactly one workgroup" },
  { tokens: 2, heads: 5, headSize: 52, slots: 4, why: "one quad past it" },
  { tokens: 15, heads: 12, headSize: 64, slots: 16, why: "GPT-2's heads" },
  { tokens: 3, heads: 2, headSize: 65, slots: 16, why: "an odd head" },
  { tokens: 2, heads: 3, headSize: 128, slots: 5, why: "the largest head" },
  { tokens: 1023, heads: 1, headSize: 3, slots: 1024, why: "a whole prompt" },
];

describe.each(["f32", "f16"] as const)("cache in %s", (dtype) => {
  interface Case {
    heads: number;
    headSize: number;
    slots: number;
  }
  /** Key and value cache, full of guard words, after the write. */
  const run = ({ heads, headSize, slots }: Case, qkv: Float32Array, mapping: readonly number[]) =>
    withGuardsAll(
      gpu,
      () => {
        const [k, v] = [0, 1].map(() => Tensor.empty(gpu, [slots, heads, headSize], { dtype }));
        const rows = Tensor.from(gpu, [mapping.length, 3 * heads * headSize], qkv);
        kvWrite(rows, Tensor.from(gpu, [mapping.length], mapping, { dtype: "u32" }), k!, v!);
        return [k!, v!];
      },
      "any",
    );

  /** The bits the caches must then have: slots that no token was mapped to keep what they held. */
  const expected = (
    { heads, headSize, slots }: Case,
    qkv: Float32Array,
    mapping: readonly number[],
    written: readonly Output[],
  ) => {
    const C = heads * headSize;
    const stride = rowStride(headSize);
    const k = new Array<number>(slots * C).fill(0);
    const v = new Array<number>(slots * C).fill(0);
    reference.kvWrite(qkv, mapping, k, v);
    return [k, v].map((values, i) => {
      const bytes = slots * heads * stride * (dtype === "f32" ? 4 : 2);
      const bits = new Uint32Array(bytes / 4).fill(written[i]!.guard);
      for (const slot of mapping)
        for (let h = 0; h < heads; h++) {
          const padded = new Float32Array(stride);
          padded.set(values.slice(slot * C + h * headSize, slot * C + (h + 1) * headSize));
          const halves = narrowToHalf(padded.map((x) => Math.min(Math.max(x, -LARGEST_HALF), LARGEST_HALF)));
          const words = new Uint32Array((dtype === "f32" ? padded : halves).buffer);
          bits.set(words, (slot * heads + h) * words.length);
        }
      return bits;
    });
  };

  test.each(SHAPES)("$tokens tokens of [$heads, $headSize]: $why", async ({ tokens, ...cache }) => {
    const qkv = randomFloats(1, tokens * 3 * cache.heads * cache.headSize);
    const mapping = shuffled(2, cache.slots).slice(0, tokens);
    const written = await run(cache, qkv, mapping);
    expect(written.map((w) => w.bits)).toEqual(expected(cache, qkv, mapping, written));
  });

  const cache = { heads: 3, headSize: 5, slots: 9 };
  const mapping = [8, 0, 5, 2];

  test.each(VALUES_NAMES)("values: %s", async (name) => {
    const qkv = VALUES[name](4, 45, 3);
    const written = await run(cache, qkv, mapping);
    expect(written.map((w) => w.bits)).toEqual(expected(cache, qkv, mapping, written));
  });

  test("the ends of the half range: ties, subnormals, and what is larger saturates", async () => {
    const qkv = new Float32Array(4 * 45);
    const ends = [
      1,
      1 + 2 ** -11,
      1 + 3 * 2 ** -11,
      65504,
      65519,
      65520,
      1e9,
      2 ** -14,
      2 ** -24,
      3 * 2 ** -24,
    ];
    for (let i = 0; i < qkv.length; i++) qkv[i] = ends[i % ends.length]! * (i % 3 === 0 ? -1 : 1);
    const written = await run(cache, qkv, mapping);
    expect(written.map((w) => w.bits)).toEqual(expected(cache, qkv, mapping, written));
  });

  test("the order of the tokens does not matter, only their slots", async () => {
    const qkv = randomFloats(4, 4 * 45);
    const order = [2, 0, 3, 1];
    const moved = Float32Array.from(
      { length: 4 * 45 },
      (_, i) => qkv[order[Math.floor(i / 45)]! * 45 + (i % 45)]!,
    );
    const there = await run(cache, qkv, mapping);
    const same = await run(
      cache,
      moved,
      order.map((t) => mapping[t]!),
    );
    expect(same.map((w) => w.bits)).toEqual(there.map((w) => w.bits));
  });

  test("the same call 20 times gives the same bits", async () => {
    const qkv = Tensor.from(gpu, [4, 45], randomFloats(5, 4 * 45));
    const all = Tensor.from(gpu, [4], [1, 0, 3, 2], { dtype: "u32" });
    await expectSameBits(() => {
      const [k, v] = [0, 1].map(() => Tensor.empty(gpu, [4, 3, 5], { dtype }));
      kvWrite(qkv, all, k!, v!);
      v!.free();
      return k!;
    });
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const qkv = Tensor.from(gpu, [1, 6], randomFloats(6, 6));
    const slot = Tensor.from(gpu, [1], [1], { dtype: "u32" });
    const [k, v] = [0, 1].map(() => Tensor.empty(gpu, [2, 1, 2], { purpose: "kv" }));
    kvWrite(qkv, slot, k!, v!);
    for (const tensor of [qkv, slot, k!, v!]) tensor.free();
  });
});

describe("wrong calls", () => {
  const k = Tensor.empty(gpu, [16, 2, 4]);

  test("qkv holds three vectors of the cache's width", () => {
    const qkv = Tensor.empty(gpu, [3, 23]);
    const slots = Tensor.empty(gpu, [3], { dtype: "u32" });
    expect(() => kvWrite(qkv, slots, k, k)).toThrow(
      "kv-write: qkv is [3, 23] but the cache is [16, 2, 4]; qkv needs 3 · H · D columns",
    );
  });

  test("one slot for each token", () => {
    const qkv = Tensor.empty(gpu, [3, 24]);
    const slots = Tensor.empty(gpu, [2], { dtype: "u32" });
    expect(() => kvWrite(qkv, slots, k, k)).toThrow("kv-write: qkv is [3, 24] but there are 2 slots");
  });
});
