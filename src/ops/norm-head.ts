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
/** Rows of x that a workgroup holds if there are more than one and they fit. */
const MANY_ROWS = 4;
/** Enough workgroups to fill a GPU, and few enough that normalising a row in each of them costs little. */
const MAX_WORKGROUPS = { gpu: 1056, software: 8 };

/**
 * Layer norm of x [rows, K] f32 with norm [2, K], then · wᵀ, w [N, K] f32, f16 or i8; a new tensor [rows, N] f32: GPT-2's
 * logits. It gives the bits of `layernorm` and `matmulTransposed` one after the other, in one launch for each block of w.
 */
export function normHead(x: Tensor, norm: Tensor, epsilon: number, w: Table): Tensor {
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
  let first = 0;
  for (const block of w.blocks) {
    const isLast = first + block.rows === columns;
    const params = {
      rows,
      first,
      count: block.rows,
      columns: isLast ? rowStride(columns) - first : block.rows,
      stride: y.stride,
    };
    const blocks = Math.ceil(params.columns / blockRows);
    const workgroups = [Math.min(blocks, MAX_WORKGROUPS[gpu.forms]), 1, Math.ceil(rows / ROWS)];
    kernel.run(gpu, { x, norm, w: block, scales: scalesRange(w), y }, params, workgroups, {
      parts: [storagePart(block)],
      constants,
      work: () => ({
        shape: `${rows}×${x.cols}×${block.rows}`,
        bytes: tensorBytes(block.shape, block.dtype) + 4 * rows * (x.cols + block.rows),
        flops: 2 * rows * x.cols * block.rows,
      }),
    });
    first += block.rows;
  }
  return y;
}

/** Does workgroup memory hold MANY_ROWS rows of `quads` vec4s beside what the kernel needs for sums? */
function rowsFit(bytes: number, quads: number): boolean {
  const SUMS = 2048;
  return SUMS + MANY_ROWS * 16 * quads <= bytes;
}
