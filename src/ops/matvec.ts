import { Kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { productArguments } from "./matmul.ts";
import { columnForm, type Epilogue } from "./product.ts";

const kernel = new Kernel("matvec");

/**
 * x [rows, K] · w [K, N] + bias [1, N], with an epilogue; a new tensor [rows, N] f32: the result of matmul's tier
 * "blocks", bit for bit, in the form for few rows. w is f32, f16 or i8 (then bias is [2, N], with the columns' scales), all else f32.
 */
export function matvec(x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue): Tensor {
  const { y, buffers, constants, parts, work } = productArguments("matvec", x, w, bias, epilogue);
  const form = columnForm(x.gpu, constants.DEPTH, constants.N_QUADS);
  kernel.run(x.gpu, buffers, {}, [form.workgroups, x.rows], {
    parts: [...parts, form.part],
    constants: { ...constants, ...form.constants },
    work,
  });
  return y;
}
