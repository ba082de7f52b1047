import { describe, expect, test } from "vitest";
import { Kernel } from "../../src/gpu/kernel.ts";
import { matmul, productArguments } from "../../src/ops/matmul.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { type Epilogue, sharesForm } from "../../src/ops/product.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, expectWithinSumBound, matmulTolerance, nmse, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, stored, VALUES, VALUES_NAMES } from "../values.ts";
import { matrixOf, WEIGHT_DTYPES } from "./matrix-of.ts";
import type { TableDtype } from "./table-of.ts";

const gpu = await openTestGpu();

// A workgroup owns 4 · COLUMNS columns of one row: 8 or 16 on a GPU, 256 on the software adapter. A share is 24 of k.
const SHAPES = [
  { rows: 1, K: 1, N: 1, why: "one product, all else is padding" },
  { rows: 3, K: 3, N: 3, why: "fewer quads of k than threads that split it" },
  { rows: 1, K: 63, N: 31, why: "one column less than a workgroup of a GPU" },
  { rows: 2, K: 128, N: 32, why: "exactly one workgroup of a GPU, one quad of k a thread" },
  { rows: 4, K: 129, N: 33, why: "one past it in both directions" },
  { rows: 1, K: 64, N: 256, why: "exactly one workgroup of the software adapter" },
  { rows: 3, K: 65, N: 257, why: "one past it" },
  { rows: 1, K: 768, N: 768, why: "GPT-2's projection" },
  { rows: 2, K: 769, N: 65, why: "odd depth" },
  { rows: 1, K: 6400, N: 8, why: "the deepest product of GPT-2 XL" },
  { rows: 1, K: 3, N: 50257, why: "GPT-2's vocabulary" },
  { rows: 17, K: 5, N: 7, why: "more rows than it is for" },
];

/**
 * The op, and the kernel with what the op chooses on a GPU, on the software adapter, and something between. The op's own form
 * sees the weights in both storages; the others see f32 here, and every storage where they are compared with matmul bit by bit.
 */
const FORMS = [
  { form: "as the op runs it here", dtypes: ["f32", "f16"] as const, matvec },
  ...[
    { COLUMNS: 4, SPLIT: 32 },
    { COLUMNS: 2, SPLIT: 128 },
    { COLUMNS: 64, SPLIT: 1 },
    { COLUMNS: 5, SPLIT: 3 },
  ].map((shape) => ({
    form: `COLUMNS ${shape.COLUMNS}, SPLIT ${shape.SPLIT}`,
    dtypes: ["f32"] as const,
    matvec: (x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue) => {
      const { y, buffers, parts, constants } = productArguments("matvec", x, w, bias, epilogue);
      const form =
        shape.SPLIT === 1
          ? { part: "alone", constants: shape, workgroups: Math.ceil(constants.N_QUADS / shape.COLUMNS) }
          : sharesForm(x.cols, constants.N_QUADS, shape.COLUMNS, shape.SPLIT);
      new Kernel("matvec").run(x.gpu, buffers, {}, [form.workgroups, x.rows], {
        parts: [...parts, form.part],
        constants: { ...constants, ...form.constants },
      });
      return y;
    },
  })),
];

interface Case {
  x: Float32Array;
  w: Float32Array;
  bias: Float32Array;
  residual?: Float32Array;
  gelu?: "gelu-tanh" | "gelu-erf";
}
const run = (op: typeof matvec, dtype: TableDtype, { x, w, bias, residual, gelu }: Case) =>
  withGuards(gpu, () => {
    const [N, K] = [bias.length, w.length / bias.length];
    const rows = x.length / K;
    const matrix = matrixOf(gpu, w, bias, dtype);
    return op(
      Tensor.from(gpu, [rows, K], x),
      matrix.w,
      matrix.bias,
      residual ? { residual: Tensor.from(gpu, [rows, N], residual) } : gelu,
    );
  });
const uniform = (rows: number, K: number, N: number): Case => ({
  x: randomFloats(1, rows * K),
  w: randomFloats(2, K * N),
  bias: randomFloats(3, N),
});

describe.each(FORMS)("$form", ({ matvec: op, dtypes }) => {
  describe.each(dtypes)("weights in %s", (dtype) => {
    const expected = ({ x, w, bias, residual, gelu }: Case) =>
      reference.matmul(x, stored(w, dtype), bias, residual ? { residual } : gelu);

    test.each(SHAPES)("[$rows, $K] · [$K, $N]: $why", async ({ rows, K, N }) => {
      const given = uniform(rows, K, N);
      const { values, magnitudes, terms } = expected(given);
      const y = await run(op, dtype, given);
      expectClose(y.values, values, matmulTolerance(K, dtype));
      expectWithinSumBound(y.values, values, magnitudes, terms);
    });

    test.each(VALUES_NAMES)("values of x and of w: %s", async (name) => {
      for (const changed of [{ x: VALUES[name](2, 65, 4) }, { w: VALUES[name](65, 65, 5) }]) {
        const given = { ...uniform(2, 65, 65), ...changed };
        const { values, magnitudes, terms } = expected(given);
        const y = await run(op, dtype, given);
        expectWithinSumBound(y.values, values, magnitudes, terms);
        expect(nmse(y.values, values)).toBeLessThan(TOLERANCE.matmul[dtype].nmse);
      }
    });

    test.each([
      { epilogue: { gelu: "gelu-tanh" } },
      { epilogue: { gelu: "gelu-erf" } },
      { epilogue: { residual: randomFloats(6, 2 * 65) } },
    ] as const)("epilogue %#", async ({ epilogue }) => {
      const given = { ...uniform(2, 65, 65), ...epilogue };
      expectClose((await run(op, dtype, given)).values, expected(given).values, matmulTolerance(768, dtype));
    });

    test("a row alone and the row in a batch are the same bits", async () => {
      const given = uniform(3, 769, 65);
      const batch = await run(op, dtype, given);
      const alone = await run(op, dtype, { ...given, x: given.x.slice(2 * 769) });
      expect(alone.values).toEqual(batch.values.slice(2 * 65));
    });

    test("the same call 20 times gives the same bits", async () => {
      const { x, w, bias } = uniform(1, 65, 65);
      const [a, b, c] = [
        Tensor.from(gpu, [1, 65], x),
        Tensor.from(gpu, [65, 65], w, { dtype }),
        Tensor.from(gpu, [65], bias),
      ];
      await expectSameBits(() => op(a, b, c));
    });
  });
});

describe.each(FORMS)("$form", ({ matvec: op }) => {
  // What matmul gives for bytes is compared with the reference in its own test.
  test.each(WEIGHT_DTYPES)("is matmul, bit for bit, weights in %s", async (dtype) => {
    for (const [rows, K, N] of [
      [1, 769, 65],
      [4, 65, 257],
      [1, 6400, 8],
    ] as const) {
      const given = uniform(rows, K, N);
      expect((await run(op, dtype, given)).bits).toEqual((await run(matmul, dtype, given)).bits);
    }
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [5, 5], randomFloats(10, 25));
    const bias = Tensor.from(gpu, [5], randomFloats(11, 5));
    matvec(x, x, bias, { residual: x }).free();
    x.free();
    bias.free();
  });
});

test("a wrong call is refused in matvec's own name", () => {
  const x = Tensor.empty(gpu, [1, 768]);
  const w = Tensor.empty(gpu, [1024, 5]);
  const bias = Tensor.empty(gpu, [5]);
  expect(() => matvec(x, w, bias)).toThrow(
    "matvec: x is [1, 768] but w is [1024, 5]; x's columns must equal w's rows",
  );
});
