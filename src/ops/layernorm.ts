import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";

const kernel = new Kernel("layernorm");

/**
 * Layer normalisation of each row of x [T, C] f32 with weight [C] and bias [C] f32; a new tensor [T, C].
 * Variance in two passes, epsilon inside the root (Ba, Kiros and Hinton, 2016).
 */
export function layernorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  const { rows, cols, stride } = x;
  check(
    weight.cols === cols && bias.cols === cols,
    () =>
      `layernorm: x is ${shapeText(x.shape)} but weight is ${shapeText(weight.shape)} and bias ${shapeText(bias.shape)}; all need x's ${cols} columns`,
  );
  const y = Tensor.empty(x.gpu, x.shape, { label: "layernorm" });
  kernel.run(x.gpu, { x, weight, bias, y }, { cols, stride, epsilon }, [rows]);
  return y;
}
