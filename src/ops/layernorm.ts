import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { ELEMENT_BYTES, shapeText, Tensor } from "../tensor.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("layernorm");

/** Workgroup memory of norm.wgsl. */
export const NORM_BYTES = 128;

/** Throws unless norm is [2, C] for x [T, C]. */
export function checkNorm(op: string, x: Tensor, norm: Tensor): void {
  check(
    norm.rows === 2 && norm.cols === x.cols,
    () => `${op}: x is ${shapeText(x.shape)} but norm is ${shapeText(norm.shape)}; wanted [2, ${x.cols}]`,
  );
}

/**
 * Layer normalisation of each row of x [T, C] f32; a new tensor [T, C] of `dtype`. norm [2, C] f32 is the weight, then the bias.
 * Variance in two passes, epsilon inside the root (Ba, Kiros and Hinton, 2016).
 */
export function layernorm(x: Tensor, norm: Tensor, epsilon: number, dtype: "f32" | "f16" = "f32"): Tensor {
  const { rows, cols, stride } = x;
  checkNorm("layernorm", x, norm);
  const y = Tensor.empty(x.gpu, x.shape, { dtype, label: "layernorm" });
  kernel.run(x.gpu, { x, norm, y }, { cols, quads: stride / 4, inverse_cols: 1 / cols, epsilon }, [rows], {
    parts: [storagePart(y)],
    work: () => ({
      shape: `${rows}×${cols}`,
      bytes: cols * (4 * (rows + 2) + ELEMENT_BYTES[dtype] * rows),
      flops: 8 * rows * cols,
    }),
  });
  return y;
}
