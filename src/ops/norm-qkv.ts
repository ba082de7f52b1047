import { Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";
import { checkQkv } from "./kv-write.ts";
import { checkNorm } from "./layernorm.ts";
import { columnForm, normForm, productSizes, productWork } from "./product.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("norm-qkv");

/**
 * Layer norm of x [S, C] f32 with norm [2, C], then · w [C, 3 · C] + bias: the queries, a new tensor [S, C] f32; keys and
 * values go into the slots slotMapping [S] u32 of k and v [slots, H, D], f32 or f16, D a multiple of 4.
 *
 * For few rows: it gives the bits of `layernorm`, `matvec` and `kvWrite` one after the other, in one launch.
 */
export function normQkv(
  x: Tensor,
  norm: Tensor,
  epsilon: number,
  w: Tensor,
  bias: Tensor,
  slotMapping: Tensor,
  k: Tensor,
  v: Tensor,
): Tensor {
  checkNorm("norm-qkv", x, norm);
  checkQkv("norm-qkv", { x, w, bias, slotMapping, k, v });
  const q = Tensor.empty(x.gpu, x.shape, { label: "norm-qkv" });
  const sizes = productSizes(w);
  const form = columnForm(x.gpu, x.cols, sizes.N_QUADS);
  const norming = normForm(x.gpu, x.cols, epsilon);
  kernel.run(x.gpu, { x, norm, w, bias, slot_mapping: slotMapping, q, k, v }, {}, [form.workgroups, x.rows], {
    parts: [storagePart(w), form.part, `kv-${k.dtype}`, norming.part],
    constants: {
      ...sizes,
      ...form.constants,
      ...norming.constants,
    },
    work: productWork(x.rows, w),
  });
  return q;
}
