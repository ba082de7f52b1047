import { foldWorkgroups, Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";

const kernel = new Kernel("softmax");

/** Softmax along the last axis of x [rows, cols] f32; a new tensor of the same shape. */
export function softmax(x: Tensor): Tensor {
  const y = Tensor.empty(x.gpu, x.shape, { label: "softmax" });
  const { rows, cols, stride } = x;
  kernel.run(x.gpu, { x, y }, { rows, cols, stride }, foldWorkgroups(rows));
  return y;
}
