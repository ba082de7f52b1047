import { describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { loadKernel } from "../../src/gpu/wgsl.ts";
import { kvWrite, matrixQkv } from "../../src/ops/kv-write.ts";
import { matrixMatmul } from "../../src/ops/matmul.ts";
import { matrixMatmulTransposed } from "../../src/ops/matmul-transposed.ts";
import { hasMatrixForm, matrixTile } from "../../src/ops/matrix-form.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectSameBits, type Output, openTestGpu, withGuards, withGuardsAll } from "../gpu-fixture.ts";
import { expectClose, expectWithinSumBound, matmulTolerance, nmse } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, stored, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();
const probe = Tensor.empty(gpu, [4, 4], { dtype: "f16" });
const here = hasMatrixForm(gpu, probe);
probe.free();
const missing = here ? "" : " (skipped: this adapter has no subgroup matrices of 16 × 16 × 16 halves)";

const TILES = ["matrix-tile-32", "matrix-tile-64", "matrix-tile-128"];

test.each(
  ["matmul-subgroup-matrix", "matmul-transposed-subgroup-matrix", "kv-write-subgroup-matrix"].flatMap(
    (kernel) => TILES.map((tile) => [kernel, tile] as const),
  ),
)("%s with %s is WGSL that Dawn accepts, on any machine", async (kernel, tile) => {
  const everything = await Gpu.open({ backend: "null" });
  try {
    const { code, features } = loadKernel(kernel, [tile]);
    expect(features).toContain("chromium-experimental-subgroup-matrix");
    const { messages } = await everything.device.createShaderModule({ code }).getCompilationInfo();
    expect(messages.filter(({ type }) => type === "error").map((m) => m.message)).toEqual([]);
  } finally {
    await everything.close();
  }
});

test("small tiles where large ones would be too few for a GPU", () => {
  expect(matrixTile(1, 768)).toEqual({ part: "matrix-tile-32", workgroups: [24, 1] });
  expect(matrixTile(256, 768)).toEqual({ part: "matrix-tile-32", workgroups: [24, 8] });
  expect(matrixTile(256, 2304)).toEqual({ part: "matrix-tile-64", workgroups: [36, 4] });
  expect(matrixTile(2048, 768)).toEqual({ part: "matrix-tile-128", workgroups: [6, 16] });
  expect(matrixTile(256, 50257)).toEqual({ part: "matrix-tile-128", workgroups: [393, 2] });
  expect(matrixTile(1, 50257)).toEqual({ part: "matrix-tile-32", workgroups: [1571, 1] });
});

// Tiles of 32 × 32 with steps of 64 over k; of 64 × 64 or 128 × 128 with steps of 32.
const SHAPES = [
  { rows: 1, K: 1, N: 1, why: "one product, all else is padding" },
  { rows: 3, K: 63, N: 5, why: "K, N and the rows are no multiples of 4" },
  { rows: 31, K: 64, N: 31, why: "one row and one column less than a small tile" },
  { rows: 32, K: 128, N: 32, why: "exactly one small tile" },
  { rows: 33, K: 129, N: 33, why: "one past it in every direction" },
  { rows: 64, K: 768, N: 6144, why: "middle tiles" },
  { rows: 66, K: 65, N: 12289, why: "large tiles that are not full" },
  { rows: 2, K: 6400, N: 8, why: "the deepest product of GPT-2 XL" },
];

/** What the tensor cores are given. */
const halves = (values: Float32Array): Float32Array => stored(values, "f16");

/** Tensor cores cut off what other units round, so a sum is further off than one of fma, and far from one of halves. */
function expectSums(actual: Float32Array, { values, magnitudes, terms }: reference.Sums): void {
  expectWithinSumBound(actual, values, magnitudes, terms);
  expect(nmse(actual, values)).toBeLessThan(1e-9);
}

describe.skipIf(!here)(`by subgroup matrices${missing}`, () => {
  const product = (x: Float32Array, w: Float32Array, bias: Float32Array, epilogue?: reference.Epilogue) =>
    withGuards(gpu, () => {
      const N = bias.length;
      const K = w.length / N;
      const rows = x.length / K;
      return matrixMatmul(
        Tensor.from(gpu, [rows, K], x),
        Tensor.from(gpu, [K, N], w, { dtype: "f16" }),
        Tensor.from(gpu, [1, N], bias),
        typeof epilogue === "object"
          ? { residual: Tensor.from(gpu, [rows, N], epilogue.residual as Float32Array) }
          : epilogue,
      );
    });
  const transposed = (x: Float32Array, w: Float32Array, K: number) =>
    withGuards(gpu, () =>
      matrixMatmulTransposed(Tensor.from(gpu, [x.length / K, K], x), {
        blocks: [Tensor.from(gpu, [w.length / K, K], w, { dtype: "f16" })],
      }),
    );

  test.each(SHAPES)("[$rows, $K] · [$K, $N]: $why", async ({ rows, K, N }) => {
    const [x, w, bias] = [randomFloats(1, rows * K), randomFloats(2, K * N), randomFloats(3, N)];
    expectSums((await product(x, w, bias)).values, reference.matmul(halves(x), halves(w), bias));
  });

  test.each(SHAPES)("[$rows, $K] · [$N, $K] transposed: $why", async ({ rows, K, N }) => {
    const [x, w] = [randomFloats(1, rows * K), randomFloats(2, N * K)];
    expectSums((await transposed(x, w, K)).values, reference.matmulTransposed(halves(x), halves(w), K));
  });

  test.each(VALUES_NAMES)("values of x: %s", async (name) => {
    const [x, w] = [VALUES[name](17, 65, 4), randomFloats(2, 65 * 65)];
    const bias = new Float32Array(65);
    const { values } = reference.matmul(halves(x), halves(w), bias);
    const largest = values.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
    expectClose((await product(x, w, bias)).values, values, { nmse: 1e-10, maxAbs: 1e-5 * largest });
  });

  const EPILOGUES: reference.Epilogue[] = ["gelu-tanh", "gelu-erf", { residual: randomFloats(6, 40 * 65) }];
  test.each(EPILOGUES.map((epilogue) => ({ epilogue })))("epilogue %#", async ({ epilogue }) => {
    const [x, w, bias] = [randomFloats(1, 40 * 96), randomFloats(2, 96 * 65), randomFloats(3, 65)];
    const { values } = reference.matmul(halves(x), halves(w), bias, epilogue);
    expectClose((await product(x, w, bias, epilogue)).values, values, matmulTolerance(768, "f32"));
  });

  test("rows stored as halves give the bits of rows that are rounded on the way; so do results", async () => {
    const [rows, K, N] = [40, 96, 65];
    const [x, w, bias] = [randomFloats(1, rows * K), randomFloats(2, K * N), randomFloats(3, N)];
    const wide = (await product(x, w, bias)).values;
    const narrow = await withGuards(gpu, () =>
      matrixMatmul(
        Tensor.from(gpu, [rows, K], x, { dtype: "f16" }),
        Tensor.from(gpu, [K, N], w, { dtype: "f16" }),
        Tensor.from(gpu, [1, N], bias),
        undefined,
        "f16",
      ),
    );
    expect(narrow.values).toEqual(halves(wide));
  });

  test.each(["f32", "f16"] as const)(
    "query, key and value in one launch, cache in %s: the same bits as two",
    async (dtype) => {
      const [T, heads, headSize, slots] = [33, 3, 12, 40];
      const C = heads * headSize;
      const [x, w, bias] = [randomFloats(1, T * C), randomFloats(2, 3 * C * C), randomFloats(3, 3 * C)];
      const mapping = Array.from({ length: T }, (_, t) => (7 * t + 2) % slots);
      const run = (
        body: (x: Tensor, w: Tensor, bias: Tensor, slots: Tensor, k: Tensor, v: Tensor) => Tensor,
      ) =>
        withGuardsAll(
          gpu,
          () => {
            const [k, v] = [0, 1].map(() => Tensor.empty(gpu, [slots, heads, headSize], { dtype }));
            const given = [
              Tensor.from(gpu, [T, C], x),
              Tensor.from(gpu, [C, 3 * C], w, { dtype: "f16" }),
              Tensor.from(gpu, [1, 3 * C], bias),
              Tensor.from(gpu, [T], mapping, { dtype: "u32" }),
            ] as const;
            return [body(...given, k!, v!), k!, v!];
          },
          "any",
        );
      const [q, k, v] = await run((...given) => matrixQkv(...given));
      const [qkv, ...cache] = await run((x, w, bias, slots, k, v) => {
        const y = matrixMatmul(x, w, bias);
        kvWrite(y, slots, k, v);
        return y;
      });
      for (let t = 0; t < T; t++)
        expect(q!.values.slice(t * C, (t + 1) * C)).toEqual(qkv!.values.slice(3 * t * C, (3 * t + 1) * C));
      // Slots that nobody wrote hold each tensor's own guard.
      const written = (output: Output) => [...output.bits].map((word) => (word === output.guard ? 0 : word));
      expect([k!, v!].map(written)).toEqual(cache.map(written));
    },
  );

  test("a row alone, in a small tile, a middle and a large one has the same bits", async () => {
    const [K, N] = [161, 12289];
    const [x, w, bias] = [randomFloats(1, 66 * K), randomFloats(2, K * N), randomFloats(3, N)];
    const parts = [1, 48, 66].map((rows) => matrixTile(rows, N).part);
    expect(parts).toEqual(["matrix-tile-32", "matrix-tile-64", "matrix-tile-128"]);
    const all = (await product(x, w, bias)).values;
    const allT = (await transposed(x, w, K)).values;
    for (const [first, rows] of [
      [0, 48],
      [0, 1],
      [16, 1],
      [65, 1],
    ] as const) {
      const some = x.slice(first * K, (first + rows) * K);
      expect((await product(some, w, bias)).values).toEqual(all.slice(first * N, (first + rows) * N));
      expect((await transposed(some, w, K)).values).toEqual(allT.slice(first * N, (first + rows) * N));
    }
  });

  test("the same call 20 times gives the same bits", async () => {
    const a = Tensor.from(gpu, [40, 65], randomFloats(1, 40 * 65));
    const w = Tensor.from(gpu, [65, 65], randomFloats(2, 65 * 65), { dtype: "f16" });
    const bias = Tensor.from(gpu, [1, 65], randomFloats(3, 65));
    await expectSameBits(() => matrixMatmul(a, w, bias));
    for (const tensor of [a, w, bias]) tensor.free();
  });
});
