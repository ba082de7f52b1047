import { Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";

const kernel = new Kernel("argmax");

/** Index of the largest element of each row of x [rows, cols] f32, the lowest on ties; a new tensor [rows] u32. */
export function argmax(x: Tensor): Tensor {
  const { rows, cols, stride } = x;
  const y = Tensor.empty(x.gpu, [rows], { dtype: "u32", label: "argmax" });
  kernel.run(x.gpu, { x, y }, { cols, stride }, [rows]);
  return y;
}
