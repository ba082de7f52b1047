import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";

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
 * Layer normalisation of each row of x [T, C] f32; a new tensor [T, C]. norm [2, C] f32 is the weight, then the bias.
 * Variance in two passes, epsilon inside the root (Ba, Kiros and Hinton, 2016).
 */
export function layernorm(x: Tensor, norm: Tensor, epsilon: number): Tensor {
  const { rows, cols, stride } = x;
  checkNorm("layernorm", x, norm);
  const y = Tensor.empty(x.gpu, x.shape, { label: "layernorm" });
  kernel.run(x.gpu, { x, norm, y }, { cols, quads: stride / 4, inverse_cols: 1 / cols, epsilon }, [rows], {
    work: () => ({ shape: `${rows}×${cols}`, bytes: 4 * cols * (2 * rows + 2), flops: 8 * rows * cols }),
  });
  return y;
}
