import { check } from "../check.ts";
import { foldWorkgroups, Kernel } from "../gpu/kernel.ts";
import { rowStride, shapeText, Tensor } from "../tensor.ts";
import type { ProductForm } from "./matmul.ts";
import { matrixTile } from "./matrix-form.ts";
import { checkTable, rowBytes, scalesRange, storagePart, type Table } from "./storage.ts";

const portable = new Kernel("matmul-transposed");
const subgroup = new Kernel("matmul-transposed-subgroup");
const matrix = new Kernel("matmul-transposed-subgroup-matrix");

const WORKGROUP_SIZE = 64;
/** Rows of w that a workgroup of the subgroup form computes. */
const SUBGROUP_ROWS = 8;

/**
 * x [rows, K] · wᵀ, w [N, K] f32, f16 or i8; a new tensor [rows, N] f32. It is GPT-2's head: logits from the token embedding.
 *
 * The form "matrix" is that of `matmul`: the bits of a row do not depend on the rows beside it. In the form "portable" one row
 * alone and several rows give the same bits too.
 */
export function matmulTransposed(x: Tensor, w: Table, form: ProductForm = "portable"): Tensor {
  const columns = checkTable("matmul-transposed", "w", w);
  const { cols } = w.blocks[0]!;
  check(
    cols === x.cols,
    () =>
      `matmul-transposed: x is ${shapeText(x.shape)} but w is [${columns}, ${cols}]; columns must be equal`,
  );
  const y = Tensor.empty(x.gpu, [x.rows, columns], { label: "matmul-transposed" });
  const ROWS = x.rows === 1 ? 1 : 4;
  // A CPU that plays GPU has subgroups too, of four threads; one thread a row is faster there.
  const { forms } = x.gpu;
  const bySubgroup = x.gpu.canUse("subgroups") && forms === "gpu";
  const LANES = forms === "software" ? 1 : 16;
  const kernel = bySubgroup ? subgroup : portable;
  const constants: Record<string, number> = bySubgroup ? { ROWS } : { LANES, ROWS };
  const workgroupRows = bySubgroup ? SUBGROUP_ROWS : WORKGROUP_SIZE / LANES;
  let first = 0;
  for (const block of w.blocks) {
    const isLast = first + block.rows === columns;
    const place = {
      rows: x.rows,
      first,
      count: block.rows,
      columns: isLast ? rowStride(columns) - first : block.rows,
      stride: y.stride,
    };
    const work = () => ({
      shape: `${x.rows}×${cols}×${block.rows}`,
      bytes: block.rows * rowBytes(w) + 4 * x.rows * (cols + block.rows),
      flops: 2 * x.rows * cols * block.rows,
    });
    if (form === "matrix") {
      check(
        first % 4 === 0,
        () => `matmul-transposed: a block begins at row ${first}; wanted a multiple of 4`,
      );
      const { part, workgroups } = matrixTile(x.rows, place.columns);
      const sizes = { ...place, depth: cols, k_quads: x.stride / 4 };
      matrix.run(x.gpu, { x, w: block, y }, sizes, workgroups, { parts: [part], work });
      first += block.rows;
      continue;
    }
    const params = { ...place, k_quads: x.stride / 4 };
    const workgroups = [
      ...foldWorkgroups(Math.ceil(params.columns / workgroupRows)),
      Math.ceil(x.rows / ROWS),
    ];
    kernel.run(x.gpu, { x, w: block, scales: scalesRange(w), y }, params, workgroups, {
      parts: [storagePart(block)],
      constants,
      work,
    });
    first += block.rows;
  }
  return y;
}
