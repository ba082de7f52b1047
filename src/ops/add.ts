import { check } from "../check.ts";
import { foldWorkgroups, Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";

const kernel = new Kernel("add");

/** a + b, elementwise, for two f32 tensors of one shape; a new tensor of that shape. */
export function add(a: Tensor, b: Tensor): Tensor {
  check(
    shapeText(a.shape) === shapeText(b.shape),
    () => `add: a is ${shapeText(a.shape)} but b is ${shapeText(b.shape)}; the shapes must be equal`,
  );
  const y = Tensor.empty(a.gpu, a.shape, { label: "add" });
  const quads = (a.rows * a.stride) / 4;
  kernel.run(a.gpu, { a, b, y }, { quads }, foldWorkgroups(Math.ceil(quads / 64)));
  return y;
}
