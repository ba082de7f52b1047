import { describe, expect, test } from "vitest";
import { halfBits, halfToFloat } from "../../src/half.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, expectWithinSumBound, matmulTolerance, nmse, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, stored, VALUES, VALUES_NAMES } from "../values.ts";
import { matrixOf, storedMatrix, WEIGHT_DTYPES } from "./matrix-of.ts";

const gpu = await openTestGpu();

// A workgroup computes 16 rows × 64 columns, a thread 4 × 4.
const SHAPES = [
  { rows: 1, K: 1, N: 1, why: "one product, all else is padding" },
  { rows: 3, K: 3, N: 5, why: "K, N and the rows are no multiples of 4" },
  { rows: 15, K: 63, N: 63, why: "one row and one column less than a workgroup" },
  { rows: 16, K: 64, N: 64, why: "exactly one workgroup" },
  { rows: 17, K: 65, N: 65, why: "one past it in every direction" },
  { rows: 4, K: 768, N: 768, why: "GPT-2's projection" },
  { rows: 17, K: 769, N: 3, why: "odd depth" },
  { rows: 1, K: 6400, N: 8, why: "the deepest product of GPT-2 XL" },
  { rows: 1, K: 3, N: 50257, why: "GPT-2's vocabulary" },
  { rows: 1023, K: 5, N: 7, why: "one row less than a full context" },
  { rows: 1024, K: 3, N: 65, why: "a full context" },
];

describe.each(WEIGHT_DTYPES)("weights in %s", (dtype) => {
  // Bytes add roundings to a sum: of q / 127, and of the product with the scale.
  const more = dtype === "i8" ? 3 : 0;
  interface Case {
    x: Float32Array;
    w: Float32Array;
    bias: Float32Array;
    residual?: Float32Array;
    gelu?: "gelu-tanh" | "gelu-erf";
  }
  const run = ({ x, w, bias, residual, gelu }: Case) =>
    withGuards(gpu, () => {
      const [N, K] = [bias.length, w.length / bias.length];
      const rows = x.length / K;
      const matrix = matrixOf(gpu, w, bias, dtype);
      return matmul(
        Tensor.from(gpu, [rows, K], x),
        matrix.w,
        matrix.bias,
        residual ? { residual: Tensor.from(gpu, [rows, N], residual) } : gelu,
      );
    });
  const expected = ({ x, w, bias, residual, gelu }: Case) =>
    reference.matmul(x, storedMatrix(w, bias.length, dtype), bias, residual ? { residual } : gelu);
  const uniform = (rows: number, K: number, N: number): Case => ({
    x: randomFloats(1, rows * K),
    w: randomFloats(2, K * N),
    bias: randomFloats(3, N),
  });

  test.each(SHAPES)("[$rows, $K] · [$K, $N]: $why", async ({ rows, K, N }) => {
    const given = uniform(rows, K, N);
    const { values, magnitudes, terms } = expected(given);
    const y = await run(given);
    expectClose(y.values, values, matmulTolerance(K, dtype));
    expectWithinSumBound(y.values, values, magnitudes, terms + more);
  });

  test.each(VALUES_NAMES)("values of x and of w: %s", async (name) => {
    for (const changed of [{ x: VALUES[name](17, 65, 4) }, { w: VALUES[name](65, 65, 5) }]) {
      const given = { ...uniform(17, 65, 65), ...changed };
      const { values, magnitudes, terms } = expected(given);
      const y = await run(given);
      expectWithinSumBound(y.values, values, magnitudes, terms + more);
      expect(nmse(y.values, values)).toBeLessThan(TOLERANCE.matmul[dtype].nmse);
    }
  });

  test.each([
    { epilogue: { gelu: "gelu-tanh" } },
    { epilogue: { gelu: "gelu-erf" } },
    { epilogue: { residual: randomFloats(6, 17 * 65) } },
  ] as const)("epilogue %#", async ({ epilogue }) => {
    const given = { ...uniform(17, 65, 65), ...epilogue };
    expectClose((await run(given)).values, expected(given).values, matmulTolerance(768, dtype));
  });

  test("the identity matrix gives back x plus the bias, to the bit", async () => {
    const N = 65;
    const w = Float32Array.from({ length: N * N }, (_, i) => (i % (N + 1) === 0 ? 1 : 0));
    const x = randomFloats(7, 5 * N);
    const { values } = await run({ x, w, bias: new Float32Array(N) });
    // A byte's 127 is 1 but for the rounding of its product with 1 / 127.
    if (dtype === "i8") expectClose(values, x, { nmse: 1e-14, maxAbs: 2 ** -23 });
    else expect(values).toEqual(x);
  });

  test("a row alone and the row in a batch are the same bits", async () => {
    const given = uniform(17, 769, 65);
    const batch = (await run(given)).values;
    for (const r of [0, 3, 16]) {
      const alone = await run({ ...given, x: given.x.slice(r * 769, (r + 1) * 769) });
      expect(alone.values).toEqual(batch.slice(r * 65, (r + 1) * 65));
    }
  });

  test("the same call 20 times gives the same bits", async () => {
    const { x, w, bias } = uniform(5, 65, 65);
    const a = Tensor.from(gpu, [5, 65], x);
    const matrix = matrixOf(gpu, w, bias, dtype);
    await expectSameBits(() => matmul(a, matrix.w, matrix.bias));
  });
});

test("the tolerance refuses a sum that is kept in halves", () => {
  const half = (v: number) => halfToFloat(halfBits(v));
  const [x, w] = [randomFloats(8, 768), stored(randomFloats(9, 768 * 8), "f16")];
  const { values } = reference.matmul(x, w, new Float32Array(8));
  const halves = Array.from({ length: 8 }, (_, n) =>
    x.reduce((sum, v, k) => half(sum + half(v * w[k * 8 + n]!)), 0),
  );
  expect(() => expectClose(halves, values, matmulTolerance(768, "f16"))).toThrow("wanted");
  expect(nmse(halves, values)).toBeGreaterThan(TOLERANCE.matmul.f16.nmse);
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [5, 5], randomFloats(10, 25));
    const bias = Tensor.from(gpu, [5], randomFloats(11, 5));
    matmul(x, x, bias, { residual: x }).free();
    x.free();
    bias.free();
  });
});

describe("wrong calls", () => {
  const x = Tensor.empty(gpu, [4, 8]);
  const w = Tensor.empty(gpu, [8, 5]);
  const bias = Tensor.empty(gpu, [5]);

  test("x's columns are w's rows", () => {
    const other = Tensor.empty(gpu, [9, 5]);
    expect(() => matmul(x, other, bias)).toThrow(
      "matmul: x is [4, 8] but w is [9, 5]; x's columns must equal w's rows",
    );
  });

  test("bias is as wide as w", () => {
    const other = Tensor.empty(gpu, [6]);
    expect(() => matmul(x, w, other)).toThrow("matmul: w is f32 [8, 5] but bias is [6]; wanted [1, 5]");
  });

  test("the residual has the product's shape", () => {
    const residual = Tensor.empty(gpu, [3, 5]);
    expect(() => matmul(x, w, bias, { residual })).toThrow(
      "matmul: the product is [4, 5] but residual is [3, 5]; the shapes must be equal",
    );
  });

  test("weights are no integers", () => {
    const integers = Tensor.empty(gpu, [8, 5], { dtype: "u32", label: "h.0.attn" });
    expect(() => matmul(x, integers, bias)).toThrow("storage: h.0.attn is u32; wanted f32, f16 or i8");
  });
});
