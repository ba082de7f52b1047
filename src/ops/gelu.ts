import { foldWorkgroups, Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";

const kernel = new Kernel("gelu");

/** The two forms that GPT-2 checkpoints ask for: "gelu_new" is the tanh form, "gelu" the erf form. */
export type GeluForm = "gelu-tanh" | "gelu-erf";

/** GELU of x, f32 of any shape; a new tensor of the same shape (Hendrycks and Gimpel, 2016). */
export function gelu(x: Tensor, form: GeluForm): Tensor {
  const y = Tensor.empty(x.gpu, x.shape, { label: "gelu" });
  const quads = (x.rows * x.stride) / 4;
  const constants = { USE_ERF: form === "gelu-erf" ? 1 : 0 };
  kernel.run(x.gpu, { x, y }, { quads }, foldWorkgroups(Math.ceil(quads / 64)), { constants });
  return y;
}
