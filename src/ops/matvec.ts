import { Kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { type Epilogue, productArguments } from "./matmul.ts";

const kernel = new Kernel("matvec");

/** vec4 columns of a workgroup; together with SPLIT threads each they fill it. */
const COLUMNS = { gpu: 8, software: 64 };

/**
 * x [rows, K] · w [K, N] + bias [N], with an epilogue; a new tensor [rows, N] f32: matmul's result, bit for bit, in
 * the form for few rows. w is f32 or f16, all else f32.
 */
export function matvec(x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue): Tensor {
  const { y, buffers, params, parts, constants } = productArguments("matvec", x, w, bias, epilogue);
  const columns = COLUMNS[x.gpu.forms];
  const workgroups = [Math.ceil(params.n_quads / columns), x.rows];
  kernel.run(x.gpu, buffers, params, workgroups, { parts, constants: { ...constants, COLUMNS: columns } });
  return y;
}
