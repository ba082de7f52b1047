import { Kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { productArguments } from "./matmul.ts";
import { columnForm, type Epilogue } from "./product.ts";

const kernel = new Kernel("matvec");

/**
 * x [rows, K] · w [K, N] + bias [1, N], with an epilogue; a new tensor [rows, N] f32: matmul's result, bit for bit, in
 * the form for few rows. w is f32, f16 or i8 (then bias is [2, N], with the columns' scales), all else f32.
 */
export function matvec(x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue): Tensor {
  const { y, buffers, params, constants, ...options } = productArguments("matvec", x, w, bias, epilogue);
  const form = columnForm(x.gpu, params.depth, params.n_quads);
  const workgroups = [Math.ceil(params.n_quads / form.COLUMNS), x.rows];
  kernel.run(x.gpu, buffers, params, workgroups, { ...options, constants: { ...constants, ...form } });
  return y;
}
