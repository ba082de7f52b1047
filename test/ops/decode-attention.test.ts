import { describe, expect, test } from "vitest";
import type { Gpu } from "../../src/gpu/gpu.ts";
import { readShader } from "../../src/gpu/wgsl.ts";
import { CHUNK, decodeAttention, type SlotLookup } from "../../src/ops/decode-attention.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu } from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import { randomFloats, VALUES_NAMES } from "../values.ts";
import {
  type Batch,
  expectedAttention,
  type Lengths,
  makeBatch,
  runContiguous,
  runDecode,
  runPaged,
} from "./attention-batch.ts";
import { openForms } from "./fused-forms.ts";

const gpu = await openTestGpu();
const forms = await openForms("portable");
const [narrow, wide] = forms.map(({ on }) => on) as [Gpu, Gpu];

/** One new token each, on contexts at both sides of a group of 16 positions and of a chunk of 128, and of three chunks. */
const RAGGED: Lengths = [1, 300, 15, 16, 17, 127, 128, 129].map((length) => [length - 1, 1] as const);

/** A form of the kernel is a form of its loads and loops: f16 keeps to heads at both sides of one round of threads. */
const SHAPES = [
  { heads: 1, headSize: 4, dtype: "f32", why: "one head of one quad" },
  { heads: 3, headSize: 8, dtype: "f32", why: "two quads" },
  { heads: 3, headSize: 64, dtype: "f32", why: "GPT-2's: every thread of 128 has a quad of a group" },
  { heads: 2, headSize: 68, dtype: "f32", why: "one quad past 64, which is another round for some threads" },
  { heads: 2, headSize: 128, dtype: "f32", why: "the largest" },
  { heads: 3, headSize: 64, dtype: "f16", why: "GPT-2's" },
  { heads: 2, headSize: 68, dtype: "f16", why: "a row of halves that is no multiple of 16 bytes" },
] as const;

describe.each(forms.slice(0, 2))("the form for $form", ({ on }) => {
  test.each(SHAPES)("$heads heads of $headSize in $dtype: $why", async ({ dtype, ...shape }) => {
    const batch = makeBatch({ ...shape, lengths: RAGGED }, dtype);
    const { y } = await runDecode(on, batch, { pageSize: 16 });
    expectClose(y.values, expectedAttention(batch), TOLERANCE.attention[dtype]);
  });

  test.each([
    { heads: 3, headSize: 64, dtype: "f16" },
    { heads: 2, headSize: 80, dtype: "f32" },
  ] as const)(
    "decode, attention and paged-attention are the same bits: $heads heads of $headSize in $dtype",
    async ({ dtype, ...shape }) => {
      const batch = makeBatch({ ...shape, lengths: RAGGED }, dtype);
      const { bits } = (await runDecode(on, batch, "contiguous")).y;
      expect((await runDecode(on, batch, { pageSize: 16 })).y.bits).toEqual(bits);
      expect((await runContiguous(on, batch)).bits).toEqual(bits);
      expect((await runPaged(on, batch, { pageSize: 16 })).bits).toEqual(bits);
    },
  );

  test.each(["f32", "f16"] as const)(
    "the last token of a prompt in one piece has the same bits as decoded: %s",
    async (dtype) => {
      const C = 16;
      for (const length of [17, 129, 300]) {
        const prompt = makeBatch({ heads: 2, headSize: 8, lengths: [[0, length]] }, dtype);
        const last: Batch = {
          ...prompt,
          lengths: [[length - 1, 1]],
          qkv: prompt.qkv.slice((length - 1) * 3 * C),
          contexts: [{ ...prompt.contexts[0]!, fresh: 1 }],
        };
        const { bits } = await runContiguous(on, prompt);
        expect((await runDecode(on, last, "contiguous", 300)).y.bits).toEqual(bits.slice((length - 1) * C));
      }
    },
  );

  test.each(["f32", "f16"] as const)(
    "values: what numerics.md wants every op to see, in %s",
    async (dtype) => {
      for (const name of VALUES_NAMES) {
        const batch = makeBatch({ heads: 2, headSize: 8, lengths: RAGGED }, dtype, name);
        const expected = expectedAttention(batch);
        const { y } = await runDecode(on, batch, "contiguous");
        expectClose(y.values, expected, scaledTo(expected, TOLERANCE.attention[dtype]));
        expect(y.bits).toEqual((await runContiguous(on, batch)).bits);
      }
    },
  );
});

test.each([
  { headSize: 4, dtype: "f16" },
  { headSize: 64, dtype: "f16" },
  { headSize: 128, dtype: "f32" },
] as const)(
  "the forms give the same bits, partial results too: heads of $headSize in $dtype",
  async ({ headSize, dtype }) => {
    const batch = makeBatch({ heads: 2, headSize, lengths: [[299, 1]] }, dtype);
    const first = await runDecode(narrow, batch, { pageSize: 17 });
    for (const { on } of forms.slice(1)) {
      const other = await runDecode(on, batch, { pageSize: 17 });
      expect(other.partials.bits).toEqual(first.partials.bits);
      expect(other.y.bits).toEqual(first.y.bits);
    }
  },
);

test("a sum that is -0 stays so in every form: what is past the context adds nothing", async () => {
  // A weight of 2e-35 times -2e-38: where fma rounds once the product is -0; then a weight of 1 times -0.
  const keys = Float32Array.of(-80, 0, 0, 0, 0, 0, 0, 0);
  const values = Float32Array.of(-2e-38, -2e-38, -2e-38, -2e-38, -0, -0, -0, -0);
  const contexts = [{ length: 2, fresh: 1, keys, values }];
  const qkv = Float32Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  const batch: Batch = { heads: 1, headSize: 4, dtype: "f32", lengths: [[1, 1]], qkv, contexts };
  const { partials } = await runDecode(narrow, batch, "contiguous");
  for (const { on } of forms.slice(1))
    expect((await runDecode(on, batch, "contiguous")).partials.bits).toEqual(partials.bits);
});

test.each(forms)(
  "a key that is not finite spoils its head and no other: the form for $form",
  async ({ on }) => {
    const batch = makeBatch({ heads: 2, headSize: 8, lengths: RAGGED.slice(0, 3) }, "f32");
    const { bits } = (await runDecode(on, batch, "contiguous")).y;
    // The second sequence's second head; its third chunk. Infinity less Infinity is a NaN of the other sign on some CPUs.
    const at = 299 * 16 + 8;
    for (const bad of [[NaN], [Infinity, -Infinity, Infinity, -Infinity]]) {
      const contexts = batch.contexts.map((context, s) => {
        const keys = Float32Array.from(context.keys);
        if (s === 1) keys.set(bad, at);
        return { ...context, keys };
      });
      const y = (await runDecode(on, { ...batch, contexts }, "contiguous")).y;
      expect([...y.values.slice(24, 32)].every(Number.isNaN)).toBe(true);
      for (const [begin, end] of [
        [0, 24],
        [32, 48],
      ] as const)
        expect(y.bits.slice(begin, end)).toEqual(bits.slice(begin, end));
    }
  },
);

const shape = { heads: 3, headSize: 8 };

test("where the pages lie does not matter, to the bit, whatever their size", async () => {
  const batch = makeBatch({ ...shape, lengths: RAGGED }, "f32");
  const { bits } = (await runDecode(gpu, batch, "contiguous")).y;
  for (const pageSize of [8, 16, 17, 256])
    for (const seed of [1, 2]) expect((await runDecode(gpu, batch, { pageSize, seed })).y.bits).toEqual(bits);
});

test("a sequence alone and the sequence in a batch are the same bits", async () => {
  const batch = makeBatch({ ...shape, lengths: RAGGED }, "f32");
  const C = 24;
  const { bits } = (await runDecode(gpu, batch, "contiguous")).y;
  for (const [s, context] of batch.contexts.entries()) {
    const qkv = batch.qkv.slice(s * 3 * C, (s + 1) * 3 * C);
    const alone: Batch = { ...batch, lengths: [RAGGED[s]!], qkv, contexts: [context] };
    expect((await runDecode(gpu, alone, "contiguous")).y.bits).toEqual(bits.slice(s * C, (s + 1) * C));
  }
});

test("room for a longer context changes no bit, and chunks past the context are not touched", async () => {
  const batch = makeBatch({ ...shape, lengths: [[129, 1]] }, "f32");
  const short = await runDecode(wide, batch, "contiguous");
  const long = await runDecode(wide, batch, "contiguous", 1024);
  expect(long.y.bits).toEqual(short.y.bits);
  const width = shape.headSize + 4;
  for (let head = 0; head < shape.heads; head++) {
    const row = long.partials.bits.slice(head * 8 * width, (head + 1) * 8 * width);
    expect(row.slice(0, 2 * width)).toEqual(
      short.partials.bits.slice(head * 2 * width, (head + 1) * 2 * width),
    );
    expect(row.slice(2 * width).every((word) => word === long.partials.guard)).toBe(true);
  }
});

test("a chunk leaves its values unnormalised, their maximum, the sum of weights and two zeros", async () => {
  const lengths: Lengths = [[130, 1]];
  const batch = makeBatch({ heads: 1, headSize: 4, lengths }, "f32");
  const { keys, values } = batch.contexts[0]!;
  const { partials } = await runDecode(gpu, batch, "contiguous");
  for (const [chunk, first, end] of [
    [0, 0, 128],
    [1, 128, 131],
  ] as const) {
    const positions = Array.from({ length: end - first }, (_, i) => first + i);
    const dot = (p: number) => [0, 1, 2, 3].reduce((sum, d) => sum + batch.qkv[d]! * keys[p * 4 + d]!, 0) / 2;
    const largest = Math.max(...positions.map(dot));
    const weights = positions.map((p) => Math.exp(dot(p) - largest));
    const sums = [0, 1, 2, 3].map((d) =>
      weights.reduce((sum, w, i) => sum + w * values[(first + i) * 4 + d]!, 0),
    );
    const expected = [...sums, largest, weights.reduce((a, b) => a + b), 0, 0];
    expectClose(
      partials.values.slice(chunk * 8, chunk * 8 + 8),
      expected,
      scaledTo(expected, TOLERANCE.attention.f32),
    );
  }
});

test("what the shaders call CHUNK is the host's", () => {
  expect(readShader("attend-chunk")).toContain(`const CHUNK = ${CHUNK}u;`);
  expect(readShader("merge-chunks")).toContain(`const MERGED_CHUNK = ${CHUNK}u;`);
});

const u32 = (values: number[], dims = [values.length]) => Tensor.from(gpu, dims, values, { dtype: "u32" });
const stripsAt = (...starts: number[]): SlotLookup => ({
  part: "slots-contiguous",
  table: u32(starts),
  pageSize: 1,
});

test("the same call 20 times gives the same bits", async () => {
  const cache = Tensor.from(gpu, [40, 3, 8], randomFloats(1, 960));
  const q = Tensor.from(gpu, [2, 24], randomFloats(2, 48));
  const strips = stripsAt(7, 0);
  const lens = u32([33, 7]);
  await expectSameBits(() => decodeAttention(q, cache, cache, strips, lens, 33, 0.4));
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const cache = Tensor.from(gpu, [2, 1, 4], randomFloats(3, 8), { purpose: "kv" });
    const q = Tensor.from(gpu, [1, 4], randomFloats(4, 4));
    const strips = stripsAt(0);
    const lens = u32([2]);
    decodeAttention(q, cache, cache, strips, lens, 2, 1).free();
    for (const tensor of [cache, q, strips.table, lens]) tensor.free();
  });
});

describe("wrong calls", () => {
  const q = Tensor.empty(gpu, [2, 8]);
  const cache = Tensor.empty(gpu, [40, 2, 4]);
  const strips = stripsAt(0, 20);
  const lens = u32([3, 4]);

  test("q holds the queries alone", () => {
    const qkv = Tensor.empty(gpu, [2, 24]);
    expect(() => decodeAttention(qkv, cache, cache, strips, lens, 4, 1)).toThrow(
      "decode-attention: q is [2, 24] but the cache is [40, 2, 4]; q needs H · D columns",
    );
  });

  test.each([6, 132])("a head of %i channels", (headSize) => {
    const wrong = Tensor.empty(gpu, [8, 1, headSize]);
    const queries = Tensor.empty(gpu, [2, headSize]);
    expect(() => decodeAttention(queries, wrong, wrong, strips, lens, 4, 1)).toThrow(
      `decode-attention: a head of ${headSize} channels; wanted a multiple of 4, at most 128`,
    );
  });

  test("there is a context for each query", () => {
    expect(() => decodeAttention(q, cache, cache, strips, u32([3]), 4, 1)).toThrow(
      "decode-attention: q is [2, 8] but there are 1 contexts",
    );
  });

  test.each([0, 1.5])("a longest context of %d", (maxContext) => {
    expect(() => decodeAttention(q, cache, cache, strips, lens, maxContext, 1)).toThrow(
      `decode-attention: maxContext is ${maxContext}, wanted a positive integer`,
    );
  });

  test("a strip for each sequence", () => {
    expect(() => decodeAttention(q, cache, cache, stripsAt(0), lens, 4, 1)).toThrow(
      "decode-attention: the table is [1]; 2 sequences of up to 4 tokens need [2]",
    );
  });

  test("a page for every position", () => {
    const pages: SlotLookup = { part: "slots-paged", table: u32([0, 1, 2, 3], [2, 2]), pageSize: 8 };
    expect(() => decodeAttention(q, cache, cache, pages, lens, 17, 1)).toThrow(
      "decode-attention: the table is [2, 2]; 2 sequences of up to 17 tokens need [2, 3] or more columns for pages of 8",
    );
    expect(() => decodeAttention(q, cache, cache, pages, lens, 16, 1).free()).not.toThrow();
  });
});
