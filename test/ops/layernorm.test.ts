import { describe, expect, test } from "vitest";
import { layernorm } from "../../src/ops/layernorm.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, scaledTo, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, stored, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();
const EPSILON = 1e-5;

// 64 threads stride over a row's columns.
const SHAPES = [
  { rows: 1, cols: 1, why: "a row of one has no variance: y is the bias" },
  { rows: 3, cols: 3, why: "most threads idle, one element of padding" },
  { rows: 2, cols: 63, why: "one thread idle" },
  { rows: 1, cols: 64, why: "exactly one column a thread" },
  { rows: 16, cols: 65, why: "one column past it" },
  { rows: 17, cols: 768, why: "GPT-2's width" },
  { rows: 15, cols: 769, why: "and one" },
  { rows: 1024, cols: 5, why: "many rows" },
  { rows: 1, cols: 6400, why: "wider than any GPT-2" },
];

/** Weight and bias as one tensor [2, C]. */
const normOf = (weight: Float32Array, bias: Float32Array) =>
  Tensor.from(gpu, [2, weight.length], [...weight, ...bias]);

const run = (rows: number, x: Float32Array, weight: Float32Array, bias: Float32Array, epsilon = EPSILON) =>
  withGuards(gpu, () => {
    const cols = weight.length;
    return layernorm(Tensor.from(gpu, [rows, cols], x), normOf(weight, bias), epsilon);
  });

test.each(SHAPES)("[$rows, $cols]: $why", async ({ rows, cols }) => {
  const [x, weight, bias] = [randomFloats(1, rows * cols), randomFloats(2, cols), randomFloats(3, cols)];
  const y = await run(rows, x, weight, bias);
  expectClose(y.values, reference.layernorm(x, weight, bias, EPSILON), TOLERANCE.layernorm.f32);
});

test.each(VALUES_NAMES)("values: %s", async (name) => {
  const [x, weight, bias] = [VALUES[name](5, 769, 4), randomFloats(5, 769), randomFloats(6, 769)];
  const y = await run(5, x, weight, bias);
  const expected = reference.layernorm(x, weight, bias, EPSILON);
  expectClose(y.values, expected, scaledTo(expected, TOLERANCE.layernorm.f32));
});

test("as f16: the nearest halves, zero behind the row", async () => {
  const [x, weight, bias] = [randomFloats(1, 3 * 65), randomFloats(2, 65), randomFloats(3, 65)];
  const wide = await run(3, x, weight, bias);
  const y = await withGuards(gpu, () =>
    layernorm(Tensor.from(gpu, [3, 65], x), normOf(weight, bias), EPSILON, "f16"),
  );
  expect(y.values).toEqual(stored(wide.values, "f16"));
});

test("epsilon lies inside the root, as large as it may be", async () => {
  const [x, weight, bias] = [randomFloats(7, 3 * 65), randomFloats(8, 65), randomFloats(9, 65)];
  for (const epsilon of [1e-12, 0.5]) {
    const y = await run(3, x, weight, bias, epsilon);
    expectClose(y.values, reference.layernorm(x, weight, bias, epsilon), TOLERANCE.layernorm.f32);
  }
});

describe("properties", () => {
  const [weight, bias] = [randomFloats(10, 769), randomFloats(11, 769)];

  test("a shift of 1000 is not seen: the variance is taken in two passes", async () => {
    // Multiples of 2^-10 stay exact when 1000 is added; one pass would lose the variance of 1/3 beside a mean square of 1e6.
    const x = randomFloats(12, 3 * 769).map((v) => Math.round(v * 1024) / 1024);
    const expected = (await run(3, x, weight, bias)).values;
    const shifted = await run(
      3,
      x.map((v) => v + 1000),
      weight,
      bias,
    );
    // The mean itself is rounded at the size of 1000: 2^-14 of an element's spread.
    expectClose(shifted.values, expected, { nmse: 1e-7, maxAbs: 5e-4 });
  });

  test("mean 0 and variance 1, whatever the scale of the input", async () => {
    const x = randomFloats(13, 769).map((v) => 50 * v + 7);
    const { values } = await run(1, x, new Float32Array(769).fill(1), new Float32Array(769), 0);
    expect(Math.abs(values.reduce((a, b) => a + b) / 769)).toBeLessThan(1e-5);
    expect(values.reduce((a, b) => a + b * b, 0) / 769).toBeCloseTo(1, 5);
  });

  test("a row alone and the row in a batch are the same bits", async () => {
    const x = randomFloats(14, 5 * 769);
    const batch = await run(5, x, weight, bias);
    const alone = await run(1, x.slice(3 * 769, 4 * 769), weight, bias);
    expect(alone.values).toEqual(batch.values.slice(3 * 769, 4 * 769));
  });

  test("the same call 20 times gives the same bits", async () => {
    const x = Tensor.from(gpu, [3, 769], randomFloats(15, 3 * 769));
    const norm = normOf(weight, bias);
    await expectSameBits(() => layernorm(x, norm, EPSILON));
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [4, 5], randomFloats(16, 20));
    const norm = normOf(randomFloats(17, 5), randomFloats(18, 5));
    layernorm(x, norm, EPSILON).free();
    x.free();
    norm.free();
  });
});

test("weights of another width are refused", () => {
  const x = Tensor.empty(gpu, [4, 768]);
  for (const shape of [[768], [2, 767]])
    expect(() => layernorm(x, Tensor.empty(gpu, shape), EPSILON)).toThrow(
      `layernorm: x is [4, 768] but norm is [${shape.join(", ")}]; wanted [2, 768]`,
    );
});
