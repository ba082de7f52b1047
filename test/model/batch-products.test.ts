import { describe, expect, test } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";
import { loadKernel } from "../../src/gpu/wgsl.ts";
import { kvWrite, matrixQkv } from "../../src/ops/kv-write.ts";
import { matrixMatmul } from "../../src/ops/matmul.ts";
import { matrixMatmulTransposed } from "../../src/ops/matmul-transposed.ts";
import { hasMatrixUnits, MATRIX_TILES, matrixTile } from "../../src/ops/matrix-form.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectSameBits, type Output, openTestGpu, withGuards, withGuardsAll } from "../gpu-fixture.ts";
import { expectClose, expectWithinSumBound, matmulTolerance, nmse } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, stored, VALUES, VALUES_NAMES } from "../values.ts";

const gpu = await openTestGpu();
const here = hasMatrixUnits(gpu);
const missing = here ? "" : " (skipped: this adapter has no subgroup matrices of 16 × 16 × 16 halves)";

const TILES = MATRIX_TILES.map(({ part, sums }) => [part, sums] as const);

test.each(
  ["matmul-subgroup-matrix", "matmul-transposed-subgroup-matrix", "kv-write-subgroup-matrix"].flatMap(
    (kernel) => TILES.map(([tile, sums]) => [kernel, tile, sums] as const),
  ),
)("%s with %s is WGSL that Dawn accepts, on any machine", async (kernel, tile, sums) => {
  const everything = await Gpu.open({ backend: "null" });
  try {
    const { code, features } = loadKernel(kernel, [tile, sums]);
    expect(features).toContain("chromium-experimental-subgroup-matrix");
    const { messages } = await everything.device.createShaderModule({ code }).getCompilationInfo();
    expect(messages.filter(({ type }) => type === "error").map((m) => m.message)).toEqual([]);
  } finally {
    await everything.close();
  }
});

test("small tiles where large ones would leave a GPU idle", () => {
  const choice = (...shape: [number, number, number]) => {
    const { parts, workgroups } = matrixTile(...shape);
    return [parts[0]!.replace("matrix-tile-", ""), ...workgroups];
  };
  expect(choice(1, 768, 768)).toEqual(["32x32", 24, 1]);
  expect(choice(256, 768, 768)).toEqual(["32x64", 12, 8]);
  expect(choice(256, 768, 2304)).toEqual(["64x64", 36, 4]);
  expect(choice(2048, 768, 768)).toEqual(["128x128", 6, 16]);
  expect(choice(2048, 768, 2304)).toEqual(["64x128", 18, 32]);
  expect(choice(8192, 768, 2304)).toEqual(["128x256", 9, 64]);
});

test("a measured table chooses instead, by the nearest point", () => {
  const table = [
    { rows: 1, depth: 768, columns: 768, tile: "matrix-tile-64x64" },
    { rows: 4096, depth: 768, columns: 768, tile: "default" },
  ];
  expect(matrixTile(2, 768, 768, table).parts).toEqual(["matrix-tile-64x64", "matrix-sums-2x2"]);
  expect(matrixTile(4096, 768, 768, table)).toEqual(matrixTile(4096, 768, 768));
});

// Rows of w are whole octs, so K and N are multiples of 8.
const SHAPES = [
  { rows: 1, K: 8, N: 8, why: "one oct of products, all else is padding" },
  { rows: 3, K: 56, N: 24, why: "less than a tile in every direction" },
  { rows: 31, K: 128, N: 32, why: "one row less than the smallest tile" },
  { rows: 32, K: 128, N: 32, why: "exactly the smallest tile" },
  { rows: 33, K: 136, N: 40, why: "past it in every direction" },
  { rows: 129, K: 200, N: 264, why: "past the largest tile in every direction" },
  { rows: 4, K: 768, N: 768, why: "GPT-2's projection" },
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

  /** `run` with every tile; all must give the same bits, which are returned. */
  const withEveryTile = async (run: () => Promise<Output>): Promise<Float32Array> => {
    const results: Float32Array[] = [];
    try {
      for (const [tile] of TILES) {
        gpu.tuning = { matrix: [{ rows: 1, depth: 1, columns: 1, tile }] };
        results.push((await run()).values);
      }
    } finally {
      gpu.tuning = undefined;
    }
    for (const result of results) expect(result).toEqual(results[0]);
    return results[0]!;
  };

  test.each(SHAPES)("[$rows, $K] · [$K, $N] in every tile: $why", async ({ rows, K, N }) => {
    const [x, w, bias] = [randomFloats(1, rows * K), randomFloats(2, K * N), randomFloats(3, N)];
    const sums = await withEveryTile(() => product(x, w, bias));
    expectSums(sums, reference.matmul(halves(x), halves(w), bias));
  });

  const HEADS = [...SHAPES, { rows: 33, K: 136, N: 257, why: "a vocabulary of any size" }];
  test.each(HEADS)("[$rows, $K] · [$N, $K] transposed, in every tile: $why", async ({ rows, K, N }) => {
    const [x, w] = [randomFloats(1, rows * K), randomFloats(2, N * K)];
    const sums = await withEveryTile(() => transposed(x, w, K));
    expectSums(sums, reference.matmulTransposed(halves(x), halves(w), K));
  });

  test.each(VALUES_NAMES)("values of x: %s", async (name) => {
    const [x, w] = [VALUES[name](17, 64, 4), randomFloats(2, 64 * 72)];
    const bias = new Float32Array(72);
    const { values } = reference.matmul(halves(x), halves(w), bias);
    const largest = values.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
    expectClose((await product(x, w, bias)).values, values, { nmse: 1e-10, maxAbs: 1e-5 * largest });
  });

  const EPILOGUES: reference.Epilogue[] = ["gelu-tanh", "gelu-erf", { residual: randomFloats(6, 40 * 72) }];
  test.each(EPILOGUES.map((epilogue) => ({ epilogue })))("epilogue %#", async ({ epilogue }) => {
    const [x, w, bias] = [randomFloats(1, 40 * 96), randomFloats(2, 96 * 72), randomFloats(3, 72)];
    const { values } = reference.matmul(halves(x), halves(w), bias, epilogue);
    expectClose((await product(x, w, bias, epilogue)).values, values, matmulTolerance(768, "f32"));
  });

  test("rows stored as halves give the bits of rows that are rounded on the way; so do results", async () => {
    const [rows, K, N] = [40, 96, 72];
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
      const [T, heads, headSize, slots] = [33, 2, 12, 40];
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

  test("a row has the same bits alone and among others", async () => {
    const [K, N] = [168, 264];
    const [x, w, bias] = [randomFloats(1, 66 * K), randomFloats(2, K * N), randomFloats(3, N)];
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
    const a = Tensor.from(gpu, [40, 64], randomFloats(1, 40 * 64));
    const w = Tensor.from(gpu, [64, 72], randomFloats(2, 64 * 72), { dtype: "f16" });
    const bias = Tensor.from(gpu, [1, 72], randomFloats(3, 72));
    await expectSameBits(() => matrixMatmul(a, w, bias));
    for (const tensor of [a, w, bias]) tensor.free();
  });
});
