import { check, shapeText } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { rowStride, Tensor, tensorBytes } from "../tensor.ts";
import { checkNorm } from "./layernorm.ts";
import { rowQuads } from "./product.ts";
import { checkTable, scalesRange, storagePart, type Table } from "./storage.ts";

const portable = new Kernel("norm-head");
const subgroup = new Kernel("norm-head-subgroup");

const WORKGROUP_SIZE = 64;
/** Rows of w for each workgroup of the subgroup form, where there are so few. */
const SUBGROUP_ROWS = 8;
/** STRIPE of that form. */
const SUBGROUP_STRIPE = 4;
/** Rows of x that a workgroup holds if there are more than one and they fit. */
const MANY_ROWS = 4;
/** Enough workgroups to fill a GPU, and few enough that normalising a row in each of them costs little. */
const MAX_WORKGROUPS = { gpu: 1056, software: 8 };

/** The best logits of each row, found by those who computed them, for `sample`. */
export interface Bests {
  /**
   * [rows, 2 · n] u32: of n shares of a row's logits first the key of each one's best, then the lowest id that has it. Keys
   * are those of shaders/score-key.wgsl: higher for a higher float, 0xffffffff where one is NaN or Infinity, 0 for no logit.
   */
  readonly table: Tensor;
  /** Share i has the stripes i, i + n, i + 2n … of so many neighbouring logits. Undefined if w has several blocks. */
  readonly stripe: number | undefined;
}

export interface HeadResult {
  /** [rows, N] f32. */
  readonly logits: Tensor;
  readonly bests: Bests;
}

/**
 * Layer norm of x [rows, K] f32 with norm [2, K], then · wᵀ, w [N, K] f32, f16 or i8: GPT-2's logits [rows, N] f32, and
 * the best of them. It gives the bits of `layernorm` and `matmulTransposed` one after the other, in one launch for each block of w.
 */
export function normHead(x: Tensor, norm: Tensor, epsilon: number, w: Table): HeadResult {
  const columns = checkTable("norm-head", "w", w);
  checkNorm("norm-head", x, norm);
  const { cols } = w.blocks[0]!;
  check(
    cols === x.cols,
    () => `norm-head: x is ${shapeText(x.shape)} but w is [${columns}, ${cols}]; columns must be equal`,
  );
  const { gpu, rows } = x;
  const y = Tensor.empty(gpu, [rows, columns], { label: "norm-head" });
  const bySubgroup = gpu.canUse("subgroups") && gpu.forms === "gpu";
  const LANES = gpu.forms === "software" ? 1 : 16;
  const kernel = bySubgroup ? subgroup : portable;
  const blockRows = bySubgroup ? SUBGROUP_ROWS : WORKGROUP_SIZE / LANES;
  const ROW_QUADS = rowQuads(x.cols);
  const ROWS = rows > 1 && rowsFit(gpu.limits.maxComputeWorkgroupStorageSize, ROW_QUADS) ? MANY_ROWS : 1;
  const constants = {
    DEPTH: x.cols,
    EPSILON: epsilon,
    INVERSE_DEPTH: 1 / x.cols,
    ROWS,
    ROW_QUADS,
    ...(bySubgroup ? {} : { LANES }),
  };
  const blockColumns = (rowsBefore: number, { rows: count }: Tensor) =>
    rowsBefore + count === columns ? rowStride(columns) - rowsBefore : count;
  let before = 0;
  const grids = w.blocks.map((block) => {
    const blocks = Math.ceil(blockColumns(before, block) / blockRows);
    before += block.rows;
    return Math.min(blocks, MAX_WORKGROUPS[gpu.forms]);
  });
  const entries = grids.reduce((sum, grid) => sum + grid, 0);
  const bests = Tensor.empty(gpu, [rows, 2 * entries], { dtype: "u32", label: "norm-head bests" });
  let first = 0;
  let bestFirst = 0;
  for (const [i, block] of w.blocks.entries()) {
    const params = {
      rows,
      first,
      count: block.rows,
      columns: blockColumns(first, block),
      stride: y.stride,
      best_first: bestFirst,
      best_count: entries,
    };
    const workgroups = [grids[i]!, 1, Math.ceil(rows / ROWS)];
    kernel.run(gpu, { x, norm, w: block, scales: scalesRange(w), bests, y }, params, workgroups, {
      parts: [storagePart(block)],
      constants,
      work: () => ({
        shape: `${rows}×${x.cols}×${block.rows}`,
        bytes: tensorBytes(block.shape, block.dtype) + 4 * rows * (x.cols + block.rows),
        flops: 2 * rows * x.cols * block.rows,
      }),
    });
    first += block.rows;
    bestFirst += grids[i]!;
  }
  const stripe = bySubgroup ? SUBGROUP_STRIPE : blockRows;
  return { logits: y, bests: { table: bests, stripe: w.blocks.length === 1 ? stripe : undefined } };
}

/** Does workgroup memory hold MANY_ROWS rows of `quads` vec4s beside what the kernel needs for sums? */
function rowsFit(bytes: number, quads: number): boolean {
  const SUMS = 2048;
  return SUMS + MANY_ROWS * 16 * quads <= bytes;
}
