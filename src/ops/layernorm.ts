import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";

const kernel = new Kernel("layernorm");

/**
 * Layer normalisation of each row of x [T, C] f32; a new tensor [T, C]. norm [2, C] f32 is the weight, then the bias.
 * Variance in two passes, epsilon inside the root (Ba, Kiros and Hinton, 2016).
 */
export function layernorm(x: Tensor, norm: Tensor, epsilon: number): Tensor {
  const { rows, cols, stride } = x;
  check(
    norm.rows === 2 && norm.cols === cols,
    () => `layernorm: x is ${shapeText(x.shape)} but norm is ${shapeText(norm.shape)}; wanted [2, ${cols}]`,
  );
  const y = Tensor.empty(x.gpu, x.shape, { label: "layernorm" });
  kernel.run(x.gpu, { x, norm, y }, { cols, stride, epsilon }, [rows]);
  return y;
}
