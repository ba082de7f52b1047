import { Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";

const kernel = new Kernel("gather-rows");

/** Rows of x [T, C] f32 by their numbers, rows [n] u32, each below T; a new tensor [n, C]. */
export function gatherRows(x: Tensor, rows: Tensor): Tensor {
  const count = rows.cols;
  const y = Tensor.empty(x.gpu, [count, x.cols], { label: "gather-rows" });
  const quads = x.stride / 4;
  kernel.run(x.gpu, { x, rows, y }, { quads }, [Math.ceil(quads / 64), count], {
    work: () => ({ shape: `${count}×${x.cols}`, bytes: 2 * 4 * count * x.cols, flops: 0 }),
  });
  return y;
}
