import { check, shapeText } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { Work } from "../gpu/recording.ts";
import { type Tensor, tensorBytes } from "../tensor.ts";
import type { GeluForm } from "./gelu.ts";

// What all forms of x · w + bias have in common: matmul, matvec and what is fused with them.

/** What happens to a product before it is stored: nothing, GELU, or a residual [rows, N] added to it. */
export type Epilogue = undefined | GeluForm | { readonly residual: Tensor };

/** EPILOGUE in activation.wgsl. */
const CODES = { "gelu-tanh": 1, "gelu-erf": 2, residual: 3 } as const;

export function epilogueCode(epilogue: Epilogue): number {
  if (typeof epilogue === "object") return CODES.residual;
  return epilogue ? CODES[epilogue] : 0;
}

/** Rows of w in a share: 4 · SHARE_QUADS in product.wgsl. */
const SHARE_ROWS = 24;
/** Threads that share a column at most; more shares than that go round. */
const MAX_SPLIT = 128;
/** A row's norm is summed by 32 threads, or by whole subgroups of as many (norm.wgsl, norm-lanes.wgsl). */
const THREAD_STEP = 32;
/** A GPU is full with this many quads of columns in workgroups of four; fewer are spread over more workgroups. */
const MANY_QUADS = 512;

/** How the threads of a workgroup divide a product of one row: the part that does it, its constants, and workgroups a row. */
export function columnForm(gpu: Gpu, depth: number, nQuads: number) {
  if (gpu.forms === "software") return divided(nQuads, "alone", { COLUMNS: 64, SPLIT: 1 });
  const shares = Math.ceil(depth / SHARE_ROWS);
  const COLUMNS = nQuads >= MANY_QUADS ? 8 : 4;
  const most = Math.min(MAX_SPLIT, Math.floor(gpu.limits.maxComputeInvocationsPerWorkgroup / COLUMNS));
  const step = THREAD_STEP / COLUMNS;
  const SPLIT = Math.ceil(Math.min(shares, most) / step) * step;
  return sharesForm(depth, nQuads, COLUMNS, SPLIT);
}

/** The form of shares.wgsl with COLUMNS quads of columns a workgroup, and SPLIT threads for each. */
export function sharesForm(depth: number, nQuads: number, COLUMNS: number, SPLIT: number) {
  return divided(nQuads, "shares", { COLUMNS, SPLIT, PARTIALS: COLUMNS * Math.ceil(depth / SHARE_ROWS) });
}

function divided(
  nQuads: number,
  part: "shares" | "alone",
  constants: { COLUMNS: number; SPLIT: number; PARTIALS?: number },
) {
  return { part, constants, workgroups: Math.ceil(nQuads / constants.COLUMNS) };
}

/** How a product normalises its row of `depth`: the part that does it, in registers where subgroups are 32 threads. */
export function normForm(gpu: Gpu, depth: number, epsilon: number) {
  const { subgroupSize, subgroupMaxSize } = gpu.info;
  const in32 = subgroupSize === 32 && subgroupMaxSize === 32;
  const byLanes = in32 && gpu.canUse("subgroups") && gpu.forms === "gpu";
  const constants: Record<string, number> = { EPSILON: epsilon, INVERSE_DEPTH: 1 / depth };
  if (!byLanes) constants.ROW_QUADS = rowQuads(depth);
  return { part: byLanes ? "norm-lanes" : "norm-row", constants };
}

/** Quads of a row in workgroup memory, whole shares of it: ROW_QUADS. */
export function rowQuads(depth: number): number {
  return Math.ceil(depth / SHARE_ROWS) * (SHARE_ROWS / 4);
}

/** The sizes of a product as constants of its pipeline: those of product.wgsl. */
export function productSizes(w: Tensor) {
  return { DEPTH: w.rows, N_QUADS: w.stride / 4 };
}

/** Throws unless x [rows, K], w [K, N] and bias [1, N] fit; [2, N] where w is bytes, whose scales are the second row. */
export function checkProduct(
  op: string,
  x: Pick<Tensor, "rows" | "cols" | "shape">,
  w: Tensor,
  bias: Tensor,
): void {
  check(
    x.cols === w.rows,
    () => `${op}: x is ${shapeText(x.shape)} but w is ${shapeText(w.shape)}; x's columns must equal w's rows`,
  );
  const rows = w.dtype === "i8" ? 2 : 1;
  check(
    bias.cols === w.cols && bias.rows === rows,
    () =>
      `${op}: w is ${w.dtype} ${shapeText(w.shape)} but bias is ${shapeText(bias.shape)}; wanted [${rows}, ${w.cols}]`,
  );
}

/** Work of a product: w once, the rows of x and of the result; a multiplication and an addition for each weight and row. */
export function productWork(rows: number, w: Tensor): () => Work {
  const [K, N] = [w.rows, w.cols];
  return () => ({
    shape: `${rows}×${K}×${N}`,
    bytes: tensorBytes(w.shape, w.dtype) + 4 * (rows * (K + N) + N),
    flops: 2 * rows * K * N,
  });
}

/**
 * Can a product with a row of `depth` in workgroup memory, as norm-matvec and its like have it, run on this device?
 * `besides` are bytes that the kernel needs for other things.
 */
export function rowFits(gpu: Gpu, depth: number, nQuads: number, besides: number): boolean {
  const quads = rowQuads(depth) + (columnForm(gpu, depth, nQuads).constants.PARTIALS ?? 0);
  return 16 * quads + besides <= gpu.limits.maxComputeWorkgroupStorageSize;
}
