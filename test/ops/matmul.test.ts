import { describe, expect, test } from "vitest";
import type { Gpu } from "../../src/gpu/gpu.ts";
import { halfBits, halfToFloat } from "../../src/half.ts";
import { MATMUL_TIERS, type MatmulTier, matmul, matmulTier, REGISTER_TILES } from "../../src/ops/matmul.ts";
import { hasMatrixUnits } from "../../src/ops/matrix-form.ts";
import { matvec } from "../../src/ops/matvec.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, expectWithinSumBound, matmulTolerance, nmse, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, stored, VALUES, VALUES_NAMES } from "../values.ts";
import { matrixOf, storedMatrix, WEIGHT_DTYPES } from "./matrix-of.ts";
import type { TableDtype } from "./table-of.ts";

const gpu = await openTestGpu();

const matrixHere = hasMatrixUnits(gpu);

/** What runs a case: a tier; "registers" in one of its tiles; matvec. */
type Form = MatmulTier | (typeof REGISTER_TILES)[number]["part"] | "matvec";

const TILES = REGISTER_TILES.map(({ part }) => part);

/** Forms that share one order of sums, and so have the bits of the first. */
const SAME_BITS: Partial<Record<MatmulTier, readonly Form[]>> = {
  tiles: ["naive"],
  registers: ["naive"],
  blocks: ["matvec"],
};

/** Every tier with every dtype that it takes. */
const TABLE = [
  ...MATMUL_TIERS.filter((tier) => tier !== "matrix").flatMap((tier) =>
    WEIGHT_DTYPES.map((dtype) => ({ tier, dtype, skip: "" })),
  ),
  {
    tier: "matrix" as const,
    dtype: "f16" as const,
    skip: matrixHere ? "" : " (skipped: this adapter has no subgroup matrices of 16 × 16 × 16 halves)",
  },
];

// Outputs of a workgroup, rows × columns: naive 16 × 16, blocks 16 × 64, tiles 32 × 64, registers 32 × 32 to 64 × 128. Depths:
// a share of blocks is 24, a group 192; a step of tiles is 24, of registers 8 or 32.
const SHAPES = [
  { rows: 1, K: 1, N: 1, why: "one product, all else is padding" },
  { rows: 3, K: 3, N: 5, why: "K, N and the rows are no multiples of 4" },
  { rows: 15, K: 63, N: 63, why: "one row and one column less than a workgroup of blocks" },
  { rows: 16, K: 64, N: 64, why: "exactly one workgroup of blocks" },
  { rows: 17, K: 65, N: 65, why: "one past it in every direction" },
  { rows: 32, K: 192, N: 64, why: "exactly one workgroup of tiles, one group" },
  {
    rows: 65,
    K: 217,
    N: 65,
    why: "one past a workgroup of most forms, one past a share behind a group",
  },
  { rows: 33, K: 200, N: 72, why: "what tensor cores take, too: K and N in eights, but no whole tile" },
  { rows: 4, K: 768, N: 72, why: "GPT-2's width" },
  { rows: 17, K: 769, N: 3, why: "odd depth" },
  { rows: 1, K: 6400, N: 8, why: "the deepest product of GPT-2 XL" },
  { rows: 1, K: 3, N: 50257, only: "blocks", why: "GPT-2's vocabulary" },
  { rows: 1023, K: 5, N: 7, why: "one row less than a full context" },
  { rows: 1024, K: 3, N: 65, why: "a full context" },
] as const;

/** Those that say something of a tier; of its other dtypes than f32, which differ in how a quad is unpacked, a few. */
const shapesOf = (tier: MatmulTier, dtype: TableDtype) =>
  SHAPES.filter((shape) => !("only" in shape) || (shape.only === tier && dtype === "f32"))
    .filter(({ rows, K }) => dtype === "f32" || tier === "matrix" || (rows <= 65 && K <= 217))
    .filter(({ K, N }) => tier !== "matrix" || (K % 8 === 0 && N % 8 === 0));

interface Case {
  x: Float32Array;
  w: Float32Array;
  bias: Float32Array;
  residual?: Float32Array;
  gelu?: "gelu-tanh" | "gelu-erf";
}

const uniform = (rows: number, K: number, N: number): Case => ({
  x: randomFloats(1, rows * K),
  w: randomFloats(2, K * N),
  bias: randomFloats(3, N),
});

/** The product of a case by a form, or by the tier that matmul chooses. */
async function product({ x, w, bias, residual, gelu }: Case, dtype: TableDtype, form?: Form) {
  const tile = TILES.find((part) => part === form);
  if (tile) gpu.tuning = { registers: [{ rows: 1, depth: 1, columns: 1, tile }] };
  try {
    return await withGuards(gpu, () => {
      const [N, K] = [bias.length, w.length / bias.length];
      const rows = x.length / K;
      const matrix = matrixOf(gpu, w, bias, dtype);
      const given = Tensor.from(gpu, [rows, K], x);
      const epilogue = residual ? { residual: Tensor.from(gpu, [rows, N], residual) } : gelu;
      if (form === "matvec") return matvec(given, matrix.w, matrix.bias, epilogue);
      const tier = tile ? "registers" : (form as MatmulTier | undefined);
      return matmul(given, matrix.w, matrix.bias, epilogue, tier && { tier });
    });
  } finally {
    gpu.tuning = undefined;
  }
}

for (const { tier, dtype, skip } of TABLE)
  describe.skipIf(skip)(`${tier}, weights in ${dtype}${skip}`, () => {
    // Bytes add roundings to a sum: of q / 127, and of the product with the scale.
    const more = dtype === "i8" ? 3 : 0;
    // Tensor cores are given halves, and cut off what other units round.
    const byMatrix = tier === "matrix";
    const sumsNmse = byMatrix ? 1e-9 : TOLERANCE.matmul[dtype].nmse;
    /** Columns, and depth: odd where the kernel takes them. */
    const side = byMatrix ? 72 : 65;
    const deep = byMatrix ? 216 : 217;
    const run = (given: Case) => product(given, dtype, tier);
    const expectSameByOthers = async (given: Case, bits: Uint32Array) => {
      for (const form of SAME_BITS[tier] ?? [])
        expect((await product(given, dtype, form)).bits, form).toEqual(bits);
    };
    const expected = ({ x, w, bias, residual, gelu }: Case) =>
      reference.matmul(
        byMatrix ? stored(x, "f16") : x,
        storedMatrix(w, bias.length, dtype),
        bias,
        residual ? { residual } : gelu,
      );

    test.each(shapesOf(tier, dtype))("[$rows, $K] · [$K, $N]: $why", async ({ rows, K, N }) => {
      const given = uniform(rows, K, N);
      const { values, magnitudes, terms } = expected(given);
      const y = await run(given);
      expectWithinSumBound(y.values, values, magnitudes, terms + more);
      if (byMatrix) return expect(nmse(y.values, values)).toBeLessThan(sumsNmse);
      expectClose(y.values, values, matmulTolerance(K, dtype));
      // A single product and the bias may melt into one fma: compilers see that the chain begins with 0.
      if (K > 1) await expectSameByOthers(given, y.bits);
    });

    test.each(VALUES_NAMES)("values of x and of w: %s", async (name) => {
      for (const changed of [{ x: VALUES[name](17, side, 4) }, { w: VALUES[name](side, side, 5) }]) {
        const given = { ...uniform(17, side, side), ...changed };
        const { values, magnitudes, terms } = expected(given);
        const y = await run(given);
        expectWithinSumBound(y.values, values, magnitudes, terms + more);
        expect(nmse(y.values, values)).toBeLessThan(sumsNmse);
      }
    });

    test.each([
      { epilogue: { gelu: "gelu-tanh" } },
      { epilogue: { gelu: "gelu-erf" } },
      { epilogue: { residual: randomFloats(6, 17 * side) } },
    ] as const)("epilogue %#", async ({ epilogue }) => {
      const given = { ...uniform(17, side, side), ...epilogue };
      const y = await run(given);
      expectClose(y.values, expected(given).values, matmulTolerance(768, dtype));
      await expectSameByOthers(given, y.bits);
    });

    test("the identity matrix gives back x plus the bias, to the bit", async () => {
      const N = side;
      const w = Float32Array.from({ length: N * N }, (_, i) => (i % (N + 1) === 0 ? 1 : 0));
      const x = randomFloats(7, 5 * N);
      const { values } = await run({ x, w, bias: new Float32Array(N) });
      // A byte's 127 is 1 but for the rounding of its product with 1 / 127.
      if (dtype === "i8") expectClose(values, x, { nmse: 1e-14, maxAbs: 2 ** -23 });
      else expect(values).toEqual(byMatrix ? stored(x, "f16") : x);
    });

    test("a row alone and the row in a batch are the same bits", async () => {
      const given = uniform(17, deep, side);
      const batch = (await run(given)).values;
      for (const r of [0, 3, 16]) {
        const alone = await run({ ...given, x: given.x.slice(r * deep, (r + 1) * deep) });
        expect(alone.values).toEqual(batch.slice(r * side, (r + 1) * side));
      }
    });

    test("the same call 20 times gives the same bits", async () => {
      const { x, w, bias } = uniform(5, side, side);
      const a = Tensor.from(gpu, [5, side], x);
      const matrix = matrixOf(gpu, w, bias, dtype);
      await expectSameBits(() => matmul(a, matrix.w, matrix.bias, undefined, { tier }));
      for (const tensor of [a, matrix.w, matrix.bias]) tensor.free();
    });

    test("a NaN in w stays in its column, and one in x in its row", async () => {
      const [rows, K, N] = [5, byMatrix ? 24 : 27, 8];
      const given = uniform(rows, K, N);
      if (dtype !== "i8") given.w[K * N - 1] = Number.NaN; // a byte cannot say it
      given.x[rows * K - 1] = Number.NaN;
      const { values } = await run(given);
      const spoilt = (i: number) => (dtype !== "i8" && i % N === 7) || Math.floor(i / N) === 4;
      expect([...values].map(Number.isNaN)).toEqual(Array.from(values, (_, i) => spoilt(i)));
    });
  });

describe("registers in every tile", () => {
  // All of it is there in every tile: rows and columns that none is full of, a last step that is not whole.
  test.each([
    { rows: 65, K: 27, N: 131, dtype: "f32" },
    { rows: 129, K: 64, N: 33, dtype: "f32" },
    { rows: 33, K: 41, N: 130, dtype: "f16" },
    { rows: 33, K: 41, N: 130, dtype: "i8" },
  ] as const)("[$rows, $K] · [$K, $N] in $dtype: the bits of naive", async ({ rows, K, N, dtype }) => {
    const given = { ...uniform(rows, K, N), residual: randomFloats(6, rows * N) };
    const { bits } = await product(given, dtype, "naive");
    for (const tile of TILES) expect((await product(given, dtype, tile)).bits, tile).toEqual(bits);
  });

  test("infinite and undefined numbers stay where they are", async () => {
    const given = uniform(5, 27, 8);
    given.w[27 * 8 - 1] = Number.POSITIVE_INFINITY;
    given.x[27 * 4 - 1] = Number.NaN;
    const { values } = await product(given, "f32", "naive");
    for (const tile of TILES) expect((await product(given, "f32", tile)).values, tile).toEqual(values);
  });
});

describe("the choice of a tier", () => {
  const device = (forms: "gpu" | "software", memory: number, tile?: string) =>
    ({
      forms,
      limits: { maxComputeWorkgroupStorageSize: memory },
      ...(tile ? { tuning: { registers: [{ rows: 20, columns: 768, tile }] } } : {}),
    }) as unknown as Gpu;
  const w = (cols: number) => ({ rows: 768, cols });
  const [large, least] = [48 * 1024, 16 * 1024];

  test("a CPU has blocks, a GPU registers", () => {
    expect(matmulTier(device("software", large), 4096, w(4096))).toBe("blocks");
    for (const [rows, columns] of [
      [1, 768],
      [20, 50257],
      [512, 768],
      [4096, 4096],
    ] as const)
      expect(matmulTier(device("gpu", large), rows, w(columns))).toBe("registers");
  });

  test("where workgroup memory is small, tiles stand in for those of registers that do not fit", () => {
    expect(matmulTier(device("gpu", least), 20, w(768))).toBe("tiles");
    expect(matmulTier(device("gpu", least), 1024, w(1024))).toBe("registers");
    expect(matmulTier(device("gpu", least), 4096, w(4096))).toBe("registers");
  });

  test("is a measured one where there is a table", () => {
    expect(matmulTier(device("gpu", least, "register-tile-64x64"), 20, w(768))).toBe("registers");
    expect(matmulTier(device("gpu", least, "default"), 20, w(768))).toBe("tiles");
  });

  test("of a CPU gives matvec's bits", async () => {
    const given = uniform(17, 65, 65);
    const { bits } = await product(given, "f32", matmulTier(device("software", least), 17, w(65)));
    expect((await product(given, "f32", "matvec")).bits).toEqual(bits);
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

  test.skipIf(matrixHere)("tensor cores are there", () => {
    expect(() => matmul(x, w, bias, undefined, { tier: "matrix" })).toThrow(
      "matmul: w is f32 [8, 5]; tensor cores need f16, K and N in eights, and a device that has them",
    );
  });

  test("halves are what tensor cores give", () => {
    expect(() => matmul(x, w, bias, undefined, { tier: "tiles", dtype: "f16" })).toThrow(
      'matmul: dtype is f16 and tier tiles; only "matrix" gives f16',
    );
  });
});
