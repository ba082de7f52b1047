import { describe, expect, test } from "vitest";
import { pagedAttention } from "../../src/ops/paged-attention.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu } from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import { randomFloats, VALUES_NAMES } from "../values.ts";
import {
  BATCHES,
  type Batch,
  expectedAttention,
  MIXED,
  makeBatch,
  runContiguous,
  runPaged,
} from "./attention-batch.ts";
import { openForms } from "./fused-forms.ts";

const gpu = await openTestGpu();
const forms = await openForms("portable");
const PAGE_SIZES = [8, 16, 17, 256];

describe.each(["f32", "f16"] as const)("keys and values in %s", (dtype) => {
  const tolerance = TOLERANCE.attention[dtype];

  test.each([1, 5, 64, 65, 128])("heads of %i", async (headSize) => {
    const batch = makeBatch({ heads: 3, headSize, lengths: MIXED }, dtype);
    const paged = await runPaged(gpu, batch, { pageSize: 16 });
    expectClose(paged.values, expectedAttention(batch), tolerance);
    expect(paged.bits).toEqual((await runContiguous(gpu, batch)).bits);
  });

  test.each(forms)("the form for $form", async ({ on }) => {
    const batch = makeBatch({ heads: 2, headSize: 16, lengths: [...MIXED, [143, 2]] }, dtype);
    const paged = await runPaged(on, batch, { pageSize: 16 });
    expect(paged.bits).toEqual((await runContiguous(on, batch)).bits);
    expectClose(paged.values, expectedAttention(batch), tolerance);
  });

  // The address of a slot is reckoned alike in both storages.
  describe.each(dtype === "f32" ? PAGE_SIZES : [16])("pages of %i slots", (pageSize) => {
    test.each(BATCHES)("$why: correct, and the bits of contiguous memory", async ({ lengths }) => {
      const batch = makeBatch({ heads: 2, headSize: 16, lengths }, dtype);
      const paged = await runPaged(gpu, batch, { pageSize });
      expectClose(paged.values, expectedAttention(batch), tolerance);
      expect(paged.bits).toEqual((await runContiguous(gpu, batch)).bits);
    });

    test("where the pages lie does not matter, to the bit", async () => {
      const batch = makeBatch({ heads: 3, headSize: 5, lengths: MIXED }, dtype);
      const here = await runPaged(gpu, batch, { pageSize, seed: 1 });
      for (const seed of [2, 3])
        expect((await runPaged(gpu, batch, { pageSize, seed })).bits).toEqual(here.bits);
    });
  });

  test.each(VALUES_NAMES)("values: %s", async (name) => {
    const batch = makeBatch({ heads: 2, headSize: 16, lengths: MIXED }, dtype, name);
    const expected = expectedAttention(batch);
    const y = await runPaged(gpu, batch, { pageSize: 16 });
    expectClose(y.values, expected, scaledTo(expected, tolerance));
  });

  test("sequences that share the pages of a common prefix get the bits they would get alone", async () => {
    const lengths = [
      [39, 1],
      [32, 9],
      [45, 1],
    ] as const;
    const own = makeBatch({ heads: 3, headSize: 5, lengths }, dtype);
    const prefix = 32 * 15;
    const shared: Batch = {
      ...own,
      contexts: own.contexts.map((c) => ({
        ...c,
        keys: Float32Array.from(c.keys, (x, i) => (i < prefix ? own.contexts[0]!.keys[i]! : x)),
        values: Float32Array.from(c.values, (x, i) => (i < prefix ? own.contexts[0]!.values[i]! : x)),
      })),
    };
    const apart = await runPaged(gpu, shared, { pageSize: 16 });
    const together = await runPaged(gpu, shared, { pageSize: 16, sharedPages: 2 });
    expect(together.bits).toEqual(apart.bits);
    expectClose(together.values, expectedAttention(shared), tolerance);
  });
});

const u32 = (values: number[], shape = [values.length]) => Tensor.from(gpu, shape, values, { dtype: "u32" });
const batchOf = (contextLens: number[], queryStarts: number[], sequenceOf: number[]) => ({
  contextLens: u32(contextLens),
  queryStarts: u32(queryStarts),
  sequenceOf: u32(sequenceOf),
});

test("the same call 20 times gives the same bits", async () => {
  const cache = Tensor.from(gpu, [48, 3, 5], randomFloats(1, 720));
  const qkv = Tensor.from(gpu, [2, 45], randomFloats(2, 90));
  const batch = batchOf([20, 7], [0, 1, 2], [0, 1]);
  const table = u32([2, 0, 1, 1], [2, 2]);
  await expectSameBits(() => pagedAttention(qkv, cache, cache, table, 16, batch, 0.4));
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const cache = Tensor.from(gpu, [16, 1, 2], randomFloats(3, 32), { purpose: "kv" });
    const qkv = Tensor.from(gpu, [1, 6], randomFloats(4, 6));
    const batch = batchOf([2], [0, 1], [0]);
    const table = u32([1], [1, 1]);
    pagedAttention(qkv, cache, cache, table, 8, batch, 1).free();
    for (const tensor of [cache, qkv, table, ...Object.values(batch)]) tensor.free();
  });
});

describe("wrong calls", () => {
  const cache = Tensor.empty(gpu, [16, 2, 4]);
  const batch = batchOf([3], [0, 3], [0, 0, 0]);

  test("the page table has one row for each sequence", () => {
    const qkv = Tensor.empty(gpu, [3, 24]);
    const table = u32([0, 0], [2, 1]);
    expect(() => pagedAttention(qkv, cache, cache, table, 8, batch, 1)).toThrow(
      "paged-attention: the page table is [2, 1] but there are 1 sequences",
    );
  });

  test("what attention refuses is refused in paged-attention's name", () => {
    const qkv = Tensor.empty(gpu, [3, 25]);
    const table = u32([0], [1, 1]);
    expect(() => pagedAttention(qkv, cache, cache, table, 8, batch, 1)).toThrow(
      "paged-attention: qkv is [3, 25] but the cache is [16, 2, 4]; qkv needs 3 · H · D columns",
    );
  });
});
