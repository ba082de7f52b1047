import { describe, expect, test } from "vitest";
import type { Gpu } from "../../src/gpu/gpu.ts";
import type { GeluForm } from "../../src/ops/gelu.ts";
import { layernorm } from "../../src/ops/layernorm.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { normMatvec } from "../../src/ops/norm-matvec.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, withGuards } from "../gpu-fixture.ts";
import { expectClose, matmulTolerance, scaledTo } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, VALUES, VALUES_NAMES } from "../values.ts";
import { openForms } from "./fused-forms.ts";
import { matrixOf, storedMatrix, WEIGHT_DTYPES } from "./matrix-of.ts";
import type { TableDtype } from "./table-of.ts";

const FORMS = await openForms();
const EPSILON = 1e-5;

// A share is 24 rows of w, a group 8 shares. A workgroup owns 8 columns, 16 from 2,045 on, and 256 on the software adapter; its
// threads are fewer than the 16 lanes of the norm where K is below 169, unless the host asks for more.
const SHAPES = [
  { rows: 1, K: 1, N: 1, why: "one product, all else is padding; a single value is its own mean" },
  { rows: 5, K: 3, N: 5, why: "fewer columns of x than a quad" },
  { rows: 2, K: 24, N: 8, why: "exactly one share, exactly one workgroup" },
  { rows: 1, K: 25, N: 2053, why: "one past a share; workgroups of 16 columns, the last not full" },
  // SwiftShader takes up to a second to compile for rows as wide as these, so one storage must do.
  { rows: 5, K: 192, N: 12, dtypes: ["f32"], why: "exactly a group" },
  {
    rows: 2,
    K: 385,
    N: 257,
    dtypes: ["i8"],
    why: "one past a group; one past a workgroup of the software adapter",
  },
  { rows: 1, K: 768, N: 3072, dtypes: ["f16"], why: "GPT-2's MLP" },
  {
    rows: 1,
    K: 1600,
    N: 2053,
    dtypes: ["i8"],
    why: "GPT-2 XL's width: more than 256 threads, were they allowed",
  },
] as const;

interface Case {
  readonly x: Float32Array;
  readonly weight: Float32Array;
  readonly shift: Float32Array;
  readonly w: Float32Array;
  readonly bias: Float32Array;
  readonly gelu?: GeluForm;
}
const uniform = (rows: number, K: number, N: number): Case => ({
  x: randomFloats(1, rows * K),
  weight: randomFloats(2, K),
  shift: randomFloats(3, K),
  w: randomFloats(4, K * N),
  bias: randomFloats(5, N),
});

/** The fused kernel, or the two that it stands for, between guard words. */
const run = (on: Gpu, dtype: TableDtype, how: "fused" | "chain", { x, weight, shift, w, bias, gelu }: Case) =>
  withGuards(on, () => {
    const K = weight.length;
    const input = Tensor.from(on, [x.length / K, K], x);
    const norm = Tensor.from(on, [2, K], [...weight, ...shift]);
    const matrix = matrixOf(on, w, bias, dtype);
    if (how === "fused") return normMatvec(input, norm, EPSILON, matrix.w, matrix.bias, gelu);
    return matvec(layernorm(input, norm, EPSILON), matrix.w, matrix.bias, gelu);
  });

describe.each(FORMS)("the form for $form", ({ on }) => {
  test.each(SHAPES)(
    "[$rows, $K] · [$K, $N] is layernorm and matvec, bit for bit: $why",
    async ({ rows, K, N, ...shape }) => {
      const given = uniform(rows, K, N);
      const normed = reference.layernorm(given.x, given.weight, given.shift, EPSILON);
      for (const dtype of "dtypes" in shape ? shape.dtypes : WEIGHT_DTYPES) {
        const fused = await run(on, dtype, "fused", given);
        expect(fused.bits).toEqual((await run(on, dtype, "chain", given)).bits);
        const { values } = reference.matmul(normed, storedMatrix(given.w, N, dtype), given.bias);
        expectClose(fused.values, values, scaledTo(values, matmulTolerance(K, dtype)));
      }
    },
  );

  test.each(["gelu-tanh", "gelu-erf"] as const)("%s", async (gelu) => {
    const given = { ...uniform(2, 65, 65), gelu };
    const normed = reference.layernorm(given.x, given.weight, given.shift, EPSILON);
    const fused = await run(on, "f16", "fused", given);
    expect(fused.bits).toEqual((await run(on, "f16", "chain", given)).bits);
    const { values } = reference.matmul(normed, storedMatrix(given.w, 65, "f16"), given.bias, gelu);
    expectClose(fused.values, values, scaledTo(values, matmulTolerance(768, "f16")));
  });

  test.each(VALUES_NAMES)("the bits of the two for values of x: %s", async (name) => {
    const given = { ...uniform(2, 65, 65), x: VALUES[name](2, 65, 6) };
    expect((await run(on, "f32", "fused", given)).bits).toEqual((await run(on, "f32", "chain", given)).bits);
  });

  test("a row alone and the row in a batch are the same bits", async () => {
    const given = uniform(3, 385, 65);
    const batch = await run(on, "i8", "fused", given);
    const alone = await run(on, "i8", "fused", { ...given, x: given.x.slice(2 * 385) });
    expect(alone.values).toEqual(batch.values.slice(2 * 65));
  });

  test("the same call 20 times gives the same bits", async () => {
    const [x, norm, bias] = [
      [1, 65],
      [2, 65],
      [1, 65],
    ].map((shape) => Tensor.from(on, shape, randomFloats(7, shape[0]! * 65)));
    const w = Tensor.from(on, [65, 65], randomFloats(8, 65 * 65));
    await expectSameBits(() => normMatvec(x!, norm!, EPSILON, w, bias!));
  });
});

test("a row of NaN gives nothing but NaN, and leaves the other rows alone", async () => {
  const given = uniform(3, 64, 64);
  const spoilt = { ...given, x: given.x.map((v, i) => (i === 70 ? Number.NaN : v)) };
  for (const { on } of FORMS) {
    const [clean, dirty] = [await run(on, "f32", "fused", given), await run(on, "f32", "fused", spoilt)];
    expect(dirty.values.slice(64, 128).every(Number.isNaN)).toBe(true);
    expect(dirty.values.slice(0, 64)).toEqual(clean.values.slice(0, 64));
    expect(dirty.values.slice(128)).toEqual(clean.values.slice(128));
  }
});

test("the ledger is back where it started", async () => {
  const { on } = FORMS[0]!;
  await expectLedgerUnchanged(on, () => {
    const [x, norm, w, bias] = [
      [1, 5],
      [2, 5],
      [5, 3],
      [1, 3],
    ].map((shape) => Tensor.from(on, shape, randomFloats(9, shape[0]! * shape[1]!)));
    normMatvec(x!, norm!, EPSILON, w!, bias!).free();
    for (const tensor of [x, norm, w, bias]) tensor!.free();
  });
});

describe("wrong calls", () => {
  const { on } = FORMS[0]!;
  const empty = (...shape: number[]) => Tensor.empty(on, shape);
  const [x, norm, w, bias] = [empty(2, 8), empty(2, 8), empty(8, 5), empty(1, 5)];
  const call = (changed: { norm?: Tensor; w?: Tensor; bias?: Tensor }) => () =>
    normMatvec(x, changed.norm ?? norm, EPSILON, changed.w ?? w, changed.bias ?? bias);

  test("norm has a row of weights and a row of biases as wide as x", () => {
    expect(call({ norm: empty(2, 9) })).toThrow("norm-matvec: x is [2, 8] but norm is [2, 9]; wanted [2, 8]");
    expect(call({ norm: empty(1, 8) })).toThrow("norm is [1, 8]");
  });

  test("x's columns are w's rows", () => {
    expect(call({ w: empty(9, 5) })).toThrow(
      "norm-matvec: x is [2, 8] but w is [9, 5]; x's columns must equal w's rows",
    );
  });

  test("bias is as wide as w, and has scales where w is bytes", () => {
    expect(call({ bias: empty(1, 6) })).toThrow(
      "norm-matvec: w is f32 [8, 5] but bias is [1, 6]; wanted [1, 5]",
    );
    const bytes = Tensor.empty(on, [8, 5], { dtype: "i8" });
    expect(call({ w: bytes })).toThrow("norm-matvec: w is i8 [8, 5] but bias is [1, 5]; wanted [2, 5]");
  });
});
