import { check } from "../check.ts";
import { foldWorkgroups, Kernel } from "../gpu/kernel.ts";
import type { Work } from "../gpu/recording.ts";
import { rowStride, shapeText, Tensor } from "../tensor.ts";
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
 */
export function matmulTransposed(x: Tensor, w: Table): Tensor {
  const { gpu } = x;
  const ROWS = x.rows === 1 ? 1 : 4;
  // A CPU that plays GPU has subgroups too, of four threads; one thread a row is faster there.
  const bySubgroup = gpu.canUse("subgroups") && gpu.forms === "gpu";
  const LANES = gpu.forms === "software" ? 1 : 16;
  const kernel = bySubgroup ? subgroup : portable;
  const constants: Record<string, number> = bySubgroup ? { ROWS } : { LANES, ROWS };
  const workgroupRows = bySubgroup ? SUBGROUP_ROWS : WORKGROUP_SIZE / LANES;
  return byBlocks(x, w, (block, y, place, work) => {
    const workgroups = [
      ...foldWorkgroups(Math.ceil(place.columns / workgroupRows)),
      Math.ceil(x.rows / ROWS),
    ];
    const params = { ...place, k_quads: x.stride / 4 };
    kernel.run(gpu, { x, w: block, scales: scalesRange(w), y }, params, workgroups, {
      parts: [storagePart(block)],
      constants,
      work,
    });
  });
}

/**
 * The same by subgroup matrices, as matrixMatmul: x is f32 or f16, w f16, and each block but the last has a multiple of 4 rows,
 * since four columns are written at once.
 */
export function matrixMatmulTransposed(x: Tensor, w: Table): Tensor {
  return byBlocks(x, w, (block, y, place, work) => {
    const { first, columns } = place;
    check(first % 4 === 0, () => `matmul-transposed: a block begins at row ${first}; wanted a multiple of 4`);
    const { parts, workgroups } = matrixTile(x.rows, x.cols, columns, x.gpu.tuning?.matrix);
    const params = { ...place, depth: x.cols, k_octs: x.stride / 8 };
    matrix.run(x.gpu, { x, w: block, y }, params, workgroups, {
      parts: [...parts, `matrix-x-${x.dtype}`],
      work,
    });
  });
}

/** Where a block's results go in y; the params of both kernels. */
interface Place {
  readonly rows: number;
  readonly first: number;
  readonly count: number;
  readonly columns: number;
  readonly stride: number;
}

/** Check the shapes, make the result, and run a launch for each block. */
function byBlocks(
  x: Tensor,
  w: Table,
  run: (block: Tensor, y: Tensor, place: Place, work: () => Work) => void,
): Tensor {
  const columns = checkTable("matmul-transposed", "w", w);
  const { cols } = w.blocks[0]!;
  check(
    cols === x.cols,
    () =>
      `matmul-transposed: x is ${shapeText(x.shape)} but w is [${columns}, ${cols}]; columns must be equal`,
  );
  const y = Tensor.empty(x.gpu, [x.rows, columns], { label: "matmul-transposed" });
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
    run(block, y, place, () => ({
      shape: `${x.rows}×${cols}×${block.rows}`,
      bytes: block.rows * rowBytes(w) + 4 * x.rows * (cols + block.rows),
      flops: 2 * x.rows * cols * block.rows,
    }));
    first += block.rows;
  }
  return y;
}
