import { describe, expect, test } from "vitest";
import { foldWorkgroups, Kernel } from "../../src/gpu/kernel.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { matmulTransposed } from "../../src/ops/matmul-transposed.ts";
import { scalesRange, type Table } from "../../src/ops/storage.ts";
import { rowStride, Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";
import { expectClose, expectWithinSumBound, matmulTolerance, nmse, TOLERANCE } from "../numerics.ts";
import * as reference from "../reference.ts";
import { randomFloats, VALUES, VALUES_NAMES } from "../values.ts";
import { storedTable, tableOf } from "./table-of.ts";

const gpu = await openTestGpu();

// A workgroup of 64 threads owns 64 / LANES rows of w: 4 on a GPU, 64 on the software adapter; and 1 or 4 rows of x.
const SHAPES = [
  { rows: 1, K: 1, N: 1, why: "one product, all else is padding" },
  { rows: 3, K: 3, N: 3, why: "three of four rows of x" },
  { rows: 1, K: 63, N: 63, why: "one thread idle on the software adapter" },
  { rows: 4, K: 64, N: 64, why: "whole workgroups, one quad of k a lane" },
  { rows: 5, K: 65, N: 65, why: "one past it in every direction" },
  { rows: 1, K: 768, N: 65, why: "GPT-2's width" },
  { rows: 17, K: 769, N: 3, why: "odd depth, several blocks of rows" },
  { rows: 1, K: 6400, N: 5, why: "the deepest product" },
  { rows: 1, K: 3, N: 50257, why: "GPT-2's vocabulary" },
  { rows: 1023, K: 5, N: 7, why: "every token's logits, three of the last four rows" },
];

/** The op, and the kernel with what the op may choose on a GPU and on the software adapter. */
const FORMS = [
  { form: "as the op runs it here", product: matmulTransposed },
  ...[
    { LANES: 16, ROWS: 1 },
    { LANES: 16, ROWS: 4 },
    { LANES: 1, ROWS: 1 },
    { LANES: 1, ROWS: 4 },
    { LANES: 8, ROWS: 3 },
  ].map((constants) => ({
    form: `LANES ${constants.LANES}, ROWS ${constants.ROWS}`,
    product: (x: Tensor, w: Table) =>
      withConstants("matmul-transposed", 64 / constants.LANES, x, w, constants),
  })),
  // The variant for adapters with subgroups, whatever their size; the software adapter has some, of four threads.
  ...(gpu.canUse("subgroups") ? [1, 3, 4] : []).map((ROWS) => ({
    form: `by subgroups, ROWS ${ROWS}`,
    product: (x: Tensor, w: Table) => withConstants("matmul-transposed-subgroup", 8, x, w, { ROWS }),
  })),
];

/** The product by a kernel whose workgroup owns so many rows of w, one dispatch a block, as its header describes it. */
function withConstants(
  kernel: string,
  workgroupRows: number,
  x: Tensor,
  w: Table,
  constants: { ROWS: number; LANES?: number },
): Tensor {
  const N = w.blocks.reduce((sum, block) => sum + block.rows, 0);
  const y = Tensor.empty(x.gpu, [x.rows, N]);
  let first = 0;
  for (const block of w.blocks) {
    const end = first + block.rows;
    const columns = (end === N ? rowStride(N) : end) - first;
    const k_quads = x.stride / 4;
    const params = { rows: x.rows, k_quads, first, count: block.rows, columns, stride: y.stride };
    const workgroups = [
      ...foldWorkgroups(Math.ceil(columns / workgroupRows)),
      Math.ceil(x.rows / constants.ROWS),
    ];
    const options = { parts: [`storage-${block.dtype}`], constants: { ...constants } };
    new Kernel(kernel).run(x.gpu, { x, w: block, scales: scalesRange(w), y }, params, workgroups, options);
    first = end;
  }
  return y;
}

describe.each(FORMS)("$form", ({ product }) => {
  describe.each(["f32", "f16", "i8"] as const)("weights in %s", (dtype) => {
    // Bytes add roundings to a sum: of q / 127, and of the product with the scale.
    const more = dtype === "i8" ? 3 : 0;
    const run = (x: Float32Array, w: Float32Array, K: number, blocks = [w.length / K]) =>
      withGuards(gpu, () => {
        return product(Tensor.from(gpu, [x.length / K, K], x), tableOf(gpu, w, K, dtype, blocks));
      });

    // Every form reads every storage; all the shapes and values are for the op's own form, and for f32 in the others.
    const whole = product === matmulTransposed || dtype === "f32";
    test.each(whole ? SHAPES : SHAPES.slice(4, 5))(
      "[$rows, $K] · [$N, $K]ᵀ: $why",
      async ({ rows, K, N }) => {
        const [x, w] = [randomFloats(1, rows * K), randomFloats(2, N * K)];
        const { values, magnitudes, terms } = reference.matmulTransposed(x, storedTable(w, K, dtype), K);
        const y = await run(x, w, K);
        expectClose(y.values, values, matmulTolerance(K, dtype));
        expectWithinSumBound(y.values, values, magnitudes, terms + more);
      },
    );
    if (!whole) return;

    test.each(VALUES_NAMES)("values of x and of w: %s", async (name) => {
      for (const [x, w] of [
        [VALUES[name](5, 65, 3), randomFloats(4, 65 * 65)],
        [randomFloats(5, 5 * 65), VALUES[name](65, 65, 6)],
      ] as const) {
        const { values, magnitudes, terms } = reference.matmulTransposed(x, storedTable(w, 65, dtype), 65);
        const y = await run(x, w, 65);
        expectWithinSumBound(y.values, values, magnitudes, terms + more);
        expect(nmse(y.values, values)).toBeLessThan(TOLERANCE.matmul[dtype].nmse);
      }
    });

    test("a matrix in blocks gives the bits of the whole one", async () => {
      const [x, w] = [randomFloats(7, 5 * 65), randomFloats(8, 131 * 65)];
      const whole = await run(x, w, 65);
      for (const blocks of [
        [64, 67],
        [1, 65, 3, 62],
        [130, 1],
      ])
        expect((await run(x, w, 65, blocks)).bits).toEqual(whole.bits);
    });

    test("a row alone and the row in a batch are the same bits", async () => {
      const [x, w] = [randomFloats(9, 5 * 769), randomFloats(10, 65 * 769)];
      const batch = await run(x, w, 769);
      for (const r of [1, 4]) {
        const alone = await run(x.slice(r * 769, (r + 1) * 769), w, 769);
        expect(alone.values).toEqual(batch.values.slice(r * 65, (r + 1) * 65));
      }
    });

    test("the same call 20 times gives the same bits", async () => {
      const x = Tensor.from(gpu, [1, 65], randomFloats(11, 65));
      const w = tableOf(gpu, randomFloats(12, 65 * 65), 65, dtype);
      await expectSameBits(() => product(x, w));
    });
  });
});

test("it is matmul with the transposed matrix", async () => {
  const [x, w] = [randomFloats(13, 5 * 65), randomFloats(14, 67 * 65)];
  const transposed = Float32Array.from({ length: 65 * 67 }, (_, i) => w[(i % 67) * 65 + Math.floor(i / 67)]!);
  const y = await withGuards(gpu, () =>
    matmulTransposed(Tensor.from(gpu, [5, 65], x), { blocks: [Tensor.from(gpu, [67, 65], w)] }),
  );
  const same = await withGuards(gpu, () =>
    matmul(
      Tensor.from(gpu, [5, 65], x),
      Tensor.from(gpu, [65, 67], transposed),
      Tensor.from(gpu, [67], new Float32Array(67)),
    ),
  );
  expectClose(y.values, same.values, matmulTolerance(768, "f32"));
});

test("a dispatch folded into two dimensions reaches every column", async () => {
  const [x, w] = [randomFloats(15, 2 * 5), randomFloats(16, 300 * 5)];
  const y = await withGuards(gpu, () => {
    const out = Tensor.empty(gpu, [2, 300]);
    const rows = Tensor.from(gpu, [2, 5], x);
    const buffers = { x: rows, w: Tensor.from(gpu, [300, 5], w), scales: rows, y: out };
    const params = { rows: 2, k_quads: 2, first: 0, count: 300, columns: 300, stride: 300 };
    const constants = { LANES: 1, ROWS: 1 };
    new Kernel("matmul-transposed").run(gpu, buffers, params, [2, 3, 2], { constants });
    return out;
  });
  expectClose(y.values, reference.matmulTransposed(x, w, 5).values, matmulTolerance(768, "f32"));
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const x = Tensor.from(gpu, [5, 5], randomFloats(17, 25));
    matmulTransposed(x, { blocks: [x, x] }).free();
    x.free();
  });
});

test("a matrix of other columns is refused, and a block of others", () => {
  const x = Tensor.empty(gpu, [2, 768]);
  const w = Tensor.empty(gpu, [5, 768]);
  const other = Tensor.empty(gpu, [5, 767]);
  expect(() => matmulTransposed(x, { blocks: [other] })).toThrow(
    "matmul-transposed: x is [2, 768] but w is [5, 767]; columns must be equal",
  );
  expect(() => matmulTransposed(x, { blocks: [w, other] })).toThrow(
    "matmul-transposed: w has blocks of f32 with 768 columns and of f32 with 767; all must be alike",
  );
});
