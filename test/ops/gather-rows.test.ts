import { describe, expect, test } from "vitest";
import { gatherRows } from "../../src/ops/gather-rows.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, shuffled, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();

// A workgroup copies 64 quads, 256 elements, of one row.
const SHAPES = [
  { from: 1, cols: 1, rows: [0], why: "one thread works" },
  { from: 3, cols: 3, rows: [2, 0], why: "last and first row, one element of padding" },
  { from: 5, cols: 63, rows: [4, 4, 4, 1], why: "a row more than once" },
  { from: 2, cols: 256, rows: [1], why: "exactly one workgroup" },
  { from: 17, cols: 257, rows: [16, 3], why: "one thread past it" },
  { from: 16, cols: 769, rows: [0, 15, 7], why: "several workgroups a row" },
  { from: 3, cols: 5, rows: Array.from({ length: 1024 }, (_, i) => i % 3), why: "more rows than there are" },
];

const run = (x: Float32Array, cols: number, rows: readonly number[]) =>
  withGuards(gpu, () =>
    gatherRows(
      Tensor.from(gpu, [x.length / cols, cols], x),
      Tensor.from(gpu, [rows.length], rows, { dtype: "u32" }),
    ),
  );

test.each(SHAPES)("from [$from, $cols]: $why", async ({ from, cols, rows }) => {
  const x = randomFloats(1, from * cols);
  const y = await run(x, cols, rows);
  expectClose(y.values, reference.gatherRows(x, rows, cols), TOLERANCE.copy.f32);
});

test.each(VALUES_NAMES)("values: %s", async (name) => {
  const x = VALUES[name](17, 65, 2);
  const y = await run(x, 65, [16, 8, 0]);
  expectClose(y.values, reference.gatherRows(x, [16, 8, 0], 65), TOLERANCE.copy.f32);
});

describe("properties", () => {
  test("a permutation and then its inverse give back the same bits", async () => {
    const x = randomFloats(3, 17 * 65);
    const order = shuffled(4, 17);
    const inverse = order.map((_, i) => order.indexOf(i));
    const there = await run(x, 65, order);
    const back = await run(there.values, 65, inverse);
    expect(back.values).toEqual(x);
  });

  test("the same call 20 times gives the same bits", async () => {
    const x = Tensor.from(gpu, [17, 65], randomFloats(5, 17 * 65));
    const rows = Tensor.from(gpu, [2], [16, 1], { dtype: "u32" });
    await expectSameBits(() => gatherRows(x, rows));
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [4, 5], randomFloats(6, 20));
    const rows = Tensor.from(gpu, [1], [3], { dtype: "u32" });
    gatherRows(x, rows).free();
    x.free();
    rows.free();
  });
});

test("rows that were freed are refused by name", () => {
  const x = Tensor.empty(gpu, [2, 3]);
  const rows = Tensor.empty(gpu, [100], { dtype: "u32", label: "last rows" });
  rows.free();
  // The result must not take the freed buffer: it is of another size class.
  expect(() => gatherRows(x, rows)).toThrow("gather-rows: uses last rows, which was freed");
});
