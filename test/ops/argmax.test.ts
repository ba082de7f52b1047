import { describe, expect, test } from "vitest";
import { argmax } from "../../src/ops/argmax.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import * as reference from "../reference.ts";
import { randomFloats, shuffled, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();
const { NaN: NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY } = Number;

// 64 threads stride over a row's columns.
const SHAPES = [
  { rows: 1, cols: 1, why: "nothing to choose" },
  { rows: 3, cols: 3, why: "most threads idle" },
  { rows: 2, cols: 63, why: "one thread idle" },
  { rows: 1, cols: 64, why: "exactly one column a thread" },
  { rows: 15, cols: 65, why: "one column past it" },
  { rows: 17, cols: 769, why: "several columns a thread" },
  { rows: 1023, cols: 5, why: "many rows" },
  { rows: 3, cols: 50257, why: "GPT-2's vocabulary" },
];

const run = async (rows: number, cols: number, x: ArrayLike<number>) => {
  const { bits } = await withGuards(gpu, () => argmax(Tensor.from(gpu, [rows, cols], x)));
  return [...bits];
};

test.each(SHAPES)("[$rows, $cols]: $why", async ({ rows, cols }) => {
  const x = randomFloats(1, rows * cols);
  expect(await run(rows, cols, x)).toEqual(reference.argmax(x, cols));
});

test.each(VALUES_NAMES)("values: %s", async (name) => {
  const x = VALUES[name](17, 769, 2);
  expect(await run(17, 769, x)).toEqual(reference.argmax(x, 769));
});

test("all elements below zero: the zeros of the padding do not win", async () => {
  const x = randomFloats(3, 5 * 65).map((v) => v - 2);
  expect(await run(5, 65, x)).toEqual(reference.argmax(x, 65));
});

test("the largest is found in every column", async () => {
  const x = new Float32Array(130 * 130).fill(-5);
  for (let r = 0; r < 130; r++) x[r * 130 + r] = 0.25;
  expect(await run(130, 130, x)).toEqual(Array.from({ length: 130 }, (_, r) => r));
});

test("on ties the lowest index wins, whichever threads hold them", async () => {
  const ties = [
    [0, 129],
    [1, 64, 65],
    [63, 127],
    [64, 128],
    [5, 6, 7, 69, 70],
  ];
  const x = new Float32Array(ties.length * 130).fill(-1);
  ties.forEach((columns, r) => {
    for (const c of columns) x[r * 130 + c] = 3;
  });
  expect(await run(ties.length, 130, x)).toEqual(ties.map((columns) => columns[0]));
});

test("a NaN is never chosen, a row of nothing but NaN gives 0, and infinities count", async () => {
  const rows = [
    { fill: NAN, at: {}, best: 0 },
    { fill: NAN, at: { 70: NEGATIVE_INFINITY }, best: 70 },
    { fill: NEGATIVE_INFINITY, at: {}, best: 0 },
    { fill: NEGATIVE_INFINITY, at: { 0: NAN }, best: 1 },
    { fill: 1, at: { 3: NAN, 66: 2, 67: NAN }, best: 66 },
    { fill: 1, at: { 40: POSITIVE_INFINITY, 41: NAN }, best: 40 },
  ];
  const x = new Float32Array(rows.length * 100);
  rows.forEach(({ fill, at }, r) => {
    x.fill(fill, r * 100, (r + 1) * 100);
    for (const [c, value] of Object.entries(at)) x[r * 100 + Number(c)] = value;
  });
  expect(await run(rows.length, 100, x)).toEqual(rows.map(({ best }) => best));
});

describe("properties", () => {
  test("it moves with its element when the columns are shuffled", async () => {
    const x = randomFloats(4, 769);
    const order = shuffled(5, 769);
    const moved = order.map((c) => x[c]!);
    const [before] = await run(1, 769, x);
    const [after] = await run(1, 769, moved);
    expect(order[after!]).toBe(before);
  });

  test("the same call 20 times gives the same answer", async () => {
    const x = Tensor.from(gpu, [17, 769], randomFloats(6, 17 * 769));
    await expectSameBits(() => argmax(x));
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [4, 5], randomFloats(7, 20));
    argmax(x).free();
    x.free();
  });
});

test("a tensor that was freed is refused by name", () => {
  const x = Tensor.empty(gpu, [200, 3], { label: "logits" });
  x.free();
  // The result is small: it does not take the freed buffer.
  expect(() => argmax(x)).toThrow("argmax: uses logits, which was freed");
});
