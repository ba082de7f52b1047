import { Kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { type Epilogue, productArguments } from "./matmul.ts";

const kernel = new Kernel("matvec");

/** A GPU hides loads behind many threads; a CPU that plays GPU has nothing to hide, and pays for barriers. */
const SHAPE = { gpu: { COLUMNS: 8, SPLIT: 32 }, software: { COLUMNS: 64, SPLIT: 1 } };

/**
 * x [rows, K] · w [K, N] + bias [N], with an epilogue; a new tensor [rows, N] f32: matmul's result, up to the order of
 * the sum over K, in the form for few rows. w is f32 or f16, all else f32.
 */
export function matvec(x: Tensor, w: Tensor, bias: Tensor, epilogue?: Epilogue): Tensor {
  const { y, buffers, params, parts, constants } = productArguments("matvec", x, w, bias, epilogue);
  const shape = SHAPE[x.gpu.info.software ? "software" : "gpu"];
  const workgroups = [Math.ceil(params.n_quads / shape.COLUMNS), x.rows];
  kernel.run(x.gpu, buffers, params, workgroups, { parts, constants: { ...constants, ...shape } });
  return y;
}
