import { Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";
import type { GeluForm } from "./gelu.ts";
import { checkNorm } from "./layernorm.ts";
import { checkProduct, columnForm, epilogueCode, normForm, productSizes, productWork } from "./product.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("norm-matvec");

/**
 * Layer norm of x [rows, K] f32 with norm [2, K], then · w [K, N] + bias, with GELU if wanted; a new tensor [rows, N] f32.
 * For few rows: it gives the bits of `layernorm` and `matvec` one after the other, in one launch.
 */
export function normMatvec(
  x: Tensor,
  norm: Tensor,
  epsilon: number,
  w: Tensor,
  bias: Tensor,
  activation?: GeluForm,
): Tensor {
  checkNorm("norm-matvec", x, norm);
  checkProduct("norm-matvec", x, w, bias);
  const y = Tensor.empty(x.gpu, [x.rows, w.cols], { label: "norm-matvec" });
  const sizes = productSizes(w);
  const form = columnForm(x.gpu, x.cols, sizes.N_QUADS);
  const norming = normForm(x.gpu, x.cols, epsilon);
  kernel.run(x.gpu, { x, norm, w, bias, y }, {}, [form.workgroups, x.rows], {
    parts: [storagePart(w), form.part, norming.part],
    constants: {
      ...sizes,
      ...form.constants,
      ...norming.constants,
      EPILOGUE: epilogueCode(activation),
    },
    work: productWork(x.rows, w),
  });
  return y;
}
