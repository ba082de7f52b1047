import { describe, expect, test } from "vitest";
import { attention, PADDING } from "../../src/ops/attention.ts";
import { Tensor } from "../../src/tensor.ts";
import {
  expectLedgerUnchanged,
  expectSameBits,
  type Output,
  openTestGpu,
  withGuards,
} from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import { randomFloats, VALUES_NAMES } from "../values.ts";
import {
  BATCHES,
  type Batch,
  expectedAttention,
  MIXED,
  makeBatch,
  runContiguous,
} from "./attention-batch.ts";
import { openForms } from "./fused-forms.ts";

const gpu = await openTestGpu();
const forms = await openForms();

const HEAD_SIZES = [
  { headSize: 1, why: "one channel, three of padding" },
  { headSize: 5, why: "heads that begin at no multiple of four" },
  { headSize: 16, why: "one quad a thread for the software adapter's 4" },
  { headSize: 64, why: "GPT-2's" },
  { headSize: 65, why: "one past it, rows with padding" },
  { headSize: 80, why: "novel sizes" },
  { headSize: 96, why: "three quarters of the largest" },
  { headSize: 128, why: "the largest" },
];

describe.each(["f32", "f16"] as const)("keys and values in %s", (dtype) => {
  const tolerance = TOLERANCE.attention[dtype];

  test.each(HEAD_SIZES)("heads of $headSize: $why", async ({ headSize }) => {
    const batch = makeBatch({ heads: 3, headSize, lengths: MIXED }, dtype);
    expectClose((await runContiguous(gpu, batch)).values, expectedAttention(batch), tolerance);
  });

  // 4 on the software adapter, and others; a GPU has one for each of 128 positions.
  test.each([5, 128])("4, 32 and 128 threads give the same bits: heads of %i", async (headSize) => {
    const batch = makeBatch({ heads: 3, headSize, lengths: [...MIXED, [143, 2]] }, dtype);
    const y = await runContiguous(gpu, batch, 4);
    expectClose(y.values, expectedAttention(batch), tolerance);
    expect((await runContiguous(gpu, batch, 32)).bits).toEqual(y.bits);
    for (const { on } of forms) expect((await runContiguous(on, batch)).bits).toEqual(y.bits);
  });

  test.each(BATCHES)("$why", async ({ lengths }) => {
    const batch = makeBatch({ heads: 2, headSize: 16, lengths }, dtype);
    expectClose((await runContiguous(gpu, batch)).values, expectedAttention(batch), tolerance);
  });

  test.each(VALUES_NAMES)("values: %s", async (name) => {
    const batch = makeBatch({ heads: 2, headSize: 16, lengths: MIXED }, dtype, name);
    const expected = expectedAttention(batch);
    for (const { on } of forms) {
      const y = await runContiguous(on, batch);
      expectClose(y.values, expected, scaledTo(expected, tolerance));
    }
  });

  test("GPT-2's twelve heads", async () => {
    const batch = makeBatch(
      {
        heads: 12,
        headSize: 64,
        lengths: [
          [3, 2],
          [0, 4],
        ],
      },
      dtype,
    );
    expectClose((await runContiguous(gpu, batch)).values, expectedAttention(batch), tolerance);
  });

  test("a token that sees only itself gives back its value, to the bit", async () => {
    const batch = makeBatch({ heads: 3, headSize: 5, lengths: [[0, 1]] }, dtype);
    expect([...(await runContiguous(gpu, batch)).values]).toEqual(Array.from(batch.contexts[0]!.values));
  });

  test("values that are all 1 come out as 1: the weights sum to one", async () => {
    const batch = makeBatch({ heads: 2, headSize: 16, lengths: MIXED }, dtype);
    const contexts = batch.contexts.map((c) => ({ ...c, values: new Float32Array(c.length * 32).fill(1) }));
    const { values } = await runContiguous(gpu, { ...batch, contexts });
    expectClose(values, new Float32Array(values.length).fill(1), { nmse: 1e-12, maxAbs: 1e-6 });
  });

  const C = 15;
  const shape = { heads: 3, headSize: 5 };

  test("what comes after a token is not seen: NaN there changes nothing", async () => {
    const batch = makeBatch({ ...shape, lengths: [[0, 40]] }, dtype);
    const blind = (values: ArrayLike<number>) =>
      Float32Array.from(values, (x, i) => (i < 33 * C ? x : Number.NaN));
    const [whole] = batch.contexts;
    const cut = { ...whole!, keys: blind(whole!.keys), values: blind(whole!.values) };
    const expected = (await runContiguous(gpu, batch)).values;
    // Rows 33 to 39 do see NaN.
    const actual = (await runContiguous(gpu, { ...batch, contexts: [cut] })).values;
    expect(actual.slice(0, 33 * C)).toEqual(expected.slice(0, 33 * C));
    expect(actual.slice(33 * C).every(Number.isNaN)).toBe(true);
  });

  test("a prompt in chunks gives the bits of the whole prompt", async () => {
    const whole = makeBatch({ ...shape, lengths: [[0, 40]] }, dtype);
    const { values } = await runContiguous(gpu, whole);
    for (const [past, fresh] of [
      [24, 16],
      [39, 1],
      [33, 7],
    ] as const) {
      const chunk: Batch = {
        ...whole,
        lengths: [[past, fresh]],
        qkv: whole.qkv.slice(past * 3 * C),
        contexts: [{ ...whole.contexts[0]!, fresh }],
      };
      expect((await runContiguous(gpu, chunk)).values).toEqual(values.slice(past * C));
    }
  });

  test("a sequence alone and the sequence in a batch are the same bits", async () => {
    const batch = makeBatch({ ...shape, lengths: MIXED }, dtype);
    const { values } = await runContiguous(gpu, batch);
    let row = 0;
    for (const [s, context] of batch.contexts.entries()) {
      const end = row + context.fresh;
      const alone: Batch = {
        ...batch,
        lengths: [MIXED[s]!],
        qkv: batch.qkv.slice(row * 3 * C, end * 3 * C),
        contexts: [context],
      };
      expect((await runContiguous(gpu, alone)).values).toEqual(values.slice(row * C, end * C));
      row = end;
    }
  });
});

const u32 = (values: number[]) => Tensor.from(gpu, [values.length], values, { dtype: "u32" });
const batchOf = (contextLens: number[], queryStarts: number[], sequenceOf: number[]) => ({
  contextLens: u32(contextLens),
  queryStarts: u32(queryStarts),
  sequenceOf: u32(sequenceOf),
});

test("a row of padding is left alone, and changes nothing for the others", async () => {
  const run = (rows: readonly number[], batch: Parameters<typeof batchOf>) =>
    withGuards(gpu, () => {
      const qkv = randomFloats(2, 36 * 3);
      const queries = rows.flatMap((r) => [...qkv.subarray(36 * r, 36 * (r + 1))]);
      const cache = Tensor.from(gpu, [40, 3, 4], randomFloats(1, 480));
      return attention(
        Tensor.from(gpu, [rows.length, 36], queries),
        cache,
        cache,
        u32([7, 0]),
        batchOf(...batch),
        0.4,
      );
    });
  const alone = await run(
    [0, 2],
    [
      [33, 7],
      [0, 1, 2],
      [0, 1],
    ],
  );
  const padded = await run(
    [0, 1, 2],
    [
      [33, 7],
      [0, 1, 3],
      [0, PADDING, 1],
    ],
  );
  const row = (y: Output, r: number) => [...y.bits.subarray(12 * r, 12 * (r + 1))];
  expect([row(padded, 0), row(padded, 2)]).toEqual([row(alone, 0), row(alone, 1)]);
  expect(row(padded, 1)).toEqual(new Array(12).fill(padded.guard));
});

test("the same call 20 times gives the same bits", async () => {
  const cache = Tensor.from(gpu, [40, 3, 5], randomFloats(1, 600));
  const qkv = Tensor.from(gpu, [2, 45], randomFloats(2, 90));
  const batch = batchOf([33, 7], [0, 1, 2], [0, 1]);
  const strips = u32([7, 0]);
  await expectSameBits(() => attention(qkv, cache, cache, strips, batch, 0.4));
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const cache = Tensor.from(gpu, [2, 1, 2], randomFloats(3, 4), { purpose: "kv" });
    const qkv = Tensor.from(gpu, [1, 6], randomFloats(4, 6));
    const batch = batchOf([2], [0, 1], [0]);
    const strips = u32([0]);
    attention(qkv, cache, cache, strips, batch, 1).free();
    for (const tensor of [cache, qkv, strips, ...Object.values(batch)]) tensor.free();
  });
});

describe("wrong calls", () => {
  const strips = u32([0]);
  const batch = batchOf([3], [0, 3], [0, 0, 0]);

  test("qkv holds three vectors of the cache's width", () => {
    const qkv = Tensor.empty(gpu, [3, 25]);
    const cache = Tensor.empty(gpu, [8, 2, 4]);
    expect(() => attention(qkv, cache, cache, strips, batch, 1)).toThrow(
      "attention: qkv is [3, 25] but the cache is [8, 2, 4]; qkv needs 3 · H · D columns",
    );
  });

  test("a head has at most 128 channels", () => {
    const qkv = Tensor.empty(gpu, [3, 387]);
    const cache = Tensor.empty(gpu, [8, 1, 129]);
    expect(() => attention(qkv, cache, cache, strips, batch, 1)).toThrow(
      "attention: a head of 129 channels; at most 128",
    );
  });

  test("the batch speaks of as many rows as qkv has", () => {
    const qkv = Tensor.empty(gpu, [2, 24]);
    const cache = Tensor.empty(gpu, [8, 2, 4]);
    expect(() => attention(qkv, cache, cache, strips, batch, 1)).toThrow(
      "attention: qkv is [2, 24] but the batch has 3 rows",
    );
  });
});
