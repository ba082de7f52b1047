import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { Kernel } from "../gpu/kernel.ts";
import { chooseTile } from "../gpu/tuning.ts";
import { shapeText, Tensor } from "../tensor.ts";
import { hasMatrixForm, matrixTile } from "./matrix-form.ts";
import { checkProduct, type Epilogue, epilogueCode, productSizes, productWork } from "./product.ts";
import { storagePart } from "./storage.ts";

const naive = new Kernel("matmul-naive");
const blocks = new Kernel("matmul");
const tiles = new Kernel("matmul-tiles");
const registers = new Kernel("matmul-registers");
const matrix = new Kernel("matmul-subgroup-matrix");

/**
 * The rungs of the ladder, each a kernel that loads less for each multiplication than the one before: "naive" a thread an
 * output; "blocks" 4 × 4 outputs a thread, by the caches; "tiles" the same from tiles in workgroup memory; "registers" up to
 * 8 × 8 outputs a thread, the loads of the next step on their way meanwhile; "matrix" tensor cores, see hasMatrixForm.
 *
 * There are three orders of the sum over K, and tiers of one order give the same bits, for any number of rows: "naive", "tiles"
 * and "registers" take one chain of fma; "blocks" the shares of shaders/product.wgsl, as matvec and all that a decode step
 * computes; "matrix" one of its own, of halves.
 */
export const MATMUL_TIERS = ["naive", "blocks", "tiles", "registers", "matrix"] as const;
export type MatmulTier = (typeof MATMUL_TIERS)[number];

/**
 * Sizes of shaders/register-tile-….wgsl, the largest first, and of how many tiles on each is the fastest: measured on an
 * NVIDIA H200, whose 132 processors have two workgroups of the largest. One of 128 × 128, 16 × 8 outputs a thread, was 5 % faster
 * for a plain product, but with GELU it moved to memory: 25 times slower.
 */
export const REGISTER_TILES = [
  { part: "register-tile-64x128", rows: 64, columns: 128, depth: 8, least: 264 },
  { part: "register-tile-64x64", rows: 64, columns: 64, depth: 8, least: 200 },
  { part: "register-tile-32x32", rows: 32, columns: 32, depth: 32, least: 1 },
] as const;

/** The one that takes the least workgroup memory: every device has as much. */
const SMALLEST_TILE = REGISTER_TILES[1];

/** Workgroup memory of a tile in bytes: two stages of x, each of its rows with a quad behind it, and w. */
function tileBytes({ rows, columns, depth }: { rows: number; columns: number; depth: number }): number {
  return 2 * 4 * (rows * (depth + 4) + depth * columns);
}

/** Outputs of a workgroup of the kernels whose sizes are not chosen: [columns, rows]. */
const OUTPUTS = { naive: [16, 16], blocks: [64, 16], tiles: [64, 32] } as const;

/** Workgroups [columns, rows] for a product of [rows, columns], each of so many outputs. */
function grid(rows: number, columns: number, [across, down]: readonly [number, number]): [number, number] {
  return [Math.ceil(columns / across), Math.ceil(rows / down)];
}

/**
 * The tile for a product x [rows, K] · w: the one that was measured to be fastest there, if any, else the largest of which
 * there are many and that its rows fill by more than half; undefined where the device has too little workgroup memory for it.
 * Results do not depend on it.
 */
function registerTile(gpu: Gpu, rows: number, w: Pick<Tensor, "rows" | "cols">) {
  const fitting = REGISTER_TILES.filter(
    (tile) => tileBytes(tile) <= gpu.limits.maxComputeWorkgroupStorageSize,
  );
  const own = fitting.find((tile) => {
    const [across, down] = grid(rows, w.cols, [tile.columns, tile.rows]);
    return across * down >= tile.least && (tile.least === 1 || rows > tile.rows / 2);
  });
  const part = chooseTile(gpu.tuning?.registers, rows, w.cols, own?.part ?? "none", w.rows);
  return fitting.find((tile) => tile.part === part);
}

/**
 * The tier that matmul chooses for x [rows, K] · w: "blocks" where a CPU plays GPU, else "registers", or "tiles" where
 * workgroup memory is too small, which give the same bits. Never "naive", and never "matrix": who wants tensor cores must say
 * so, for all rows of a model. Who wants matvec's bits on any device must ask for "blocks".
 */
export function matmulTier(
  gpu: Gpu,
  rows: number,
  w: Pick<Tensor, "rows" | "cols">,
): "blocks" | "tiles" | "registers" {
  if (gpu.forms === "software") return "blocks";
  return registerTile(gpu, rows, w) ? "registers" : "tiles";
}

/** Everything that matmul and matvec have in common: they are one operation in two forms. */
export function productArguments(
  op: string,
  x: Tensor,
  w: Tensor,
  bias: Tensor,
  epilogue: Epilogue,
  dtype: "f32" | "f16" = "f32",
) {
  checkProduct(op, x, w, bias);
  const residual = typeof epilogue === "object" ? epilogue.residual : undefined;
  check(
    !residual || (residual.rows === x.rows && residual.cols === w.cols),
    () =>
      `${op}: the product is [${x.rows}, ${w.cols}] but residual is ${shapeText(residual!.shape)}; the shapes must be equal`,
  );
  const y = Tensor.empty(x.gpu, [x.rows, w.cols], { dtype, label: op });
  return {
    y,
    // A binding must not be empty: without a residual, bias stands in and is not read.
    buffers: { x, w, bias, residual: residual ?? bias, y },
    parts: [storagePart(w)],
    constants: { EPILOGUE: epilogueCode(epilogue), ...productSizes(w) },
    work: productWork(x.rows, w),
  };
}

/**
 * x [rows, K] · w [K, N] + bias [1, N], with an epilogue; a new tensor [rows, N] f32. w is f32, f16 or i8 (then bias is
 * [2, N], with the columns' scales), all else f32; the sum over K runs in f32. For many rows; matvec is the form for few, with
 * the bits of the tier "blocks".
 *
 * `tier` says which kernel computes it, see MatmulTier; by default matmulTier does. `dtype` is the result's; only the tier
 * "matrix" can give f16.
 */
export function matmul(
  x: Tensor,
  w: Tensor,
  bias: Tensor,
  epilogue?: Epilogue,
  options: { readonly tier?: MatmulTier; readonly dtype?: "f32" | "f16" } = {},
): Tensor {
  const { tier = matmulTier(x.gpu, x.rows, w), dtype = "f32" } = options;
  if (tier === "matrix") {
    check(
      hasMatrixForm(x.gpu, w),
      () =>
        `matmul: w is ${w.dtype} ${shapeText(w.shape)}; tensor cores need f16, K and N in eights, and a device that has them`,
    );
    return matrixMatmul(x, w, bias, epilogue, dtype);
  }
  check(dtype === "f32", () => `matmul: dtype is ${dtype} and tier ${tier}; only "matrix" gives f16`);
  const { y, buffers, parts, constants, work } = productArguments("matmul", x, w, bias, epilogue);
  const { rows } = x;
  if (tier === "registers") {
    const tile = registerTile(x.gpu, rows, w) ?? SMALLEST_TILE;
    const params = { rows, depth: x.cols, k_quads: x.stride / 4 };
    const { EPILOGUE, N_QUADS } = constants;
    registers.run(x.gpu, buffers, params, grid(rows, w.cols, [tile.columns, tile.rows]), {
      parts: [...parts, tile.part],
      constants: { EPILOGUE, N_QUADS },
      work,
    });
    return y;
  }
  const kernel = { naive, blocks, tiles }[tier];
  kernel.run(x.gpu, buffers, { rows }, grid(rows, w.stride, OUTPUTS[tier]), { parts, constants, work });
  return y;
}

/**
 * The same by subgroup matrices, see hasMatrixForm, into a new tensor of `dtype`. x is f32 or f16, w f16: f32 is rounded to
 * halves first. The sum over K, in f32, has an order of its own: a row has other last bits than matmul gives it, but the same
 * ones whatever rows are beside it.
 */
export function matrixMatmul(
  x: Tensor,
  w: Tensor,
  bias: Tensor,
  epilogue?: Epilogue,
  dtype: "f32" | "f16" = "f32",
): Tensor {
  const { y, buffers, constants, work } = productArguments("matmul", x, w, bias, epilogue, dtype);
  const { parts, workgroups } = matrixTile(x.rows, x.cols, w.cols, x.gpu.tuning?.matrix);
  const params = { rows: x.rows, depth: x.cols, k_octs: x.stride / 8, n_octs: w.stride / 8 };
  matrix.run(x.gpu, buffers, params, workgroups, {
    parts: [...parts, `matrix-x-${x.dtype}`, `matrix-y-${dtype}`],
    constants: { EPILOGUE: constants.EPILOGUE },
    work,
  });
  return y;
}
