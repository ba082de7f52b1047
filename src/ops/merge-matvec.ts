import { check, shapeText } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";
import { checkProduct, columnForm, productSizes, productWork, rowQuads } from "./product.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("merge-matvec");

/**
 * The chunks of decodeAttention, partials [S, H, chunks, D + 4] f32, merged to [S, C], then · w [C, N] + bias + residual
 * [S, N] f32; a new tensor [S, N] f32. contextLens is [S] u32. It gives the bits of `mergeAttention` and `matvec` with a
 * residual one after the other, in one launch.
 */
export function mergeMatvec(
  partials: Tensor,
  contextLens: Tensor,
  w: Tensor,
  bias: Tensor,
  residual: Tensor,
): Tensor {
  const [sequences, heads, chunks, width] = partials.shape as [number, number, number, number];
  const headSize = width - 4;
  const { gpu } = partials;
  const y = Tensor.empty(gpu, [sequences, w.cols], { label: "merge-matvec" });
  check(
    w.rows === heads * headSize && contextLens.cols === sequences,
    () =>
      `merge-matvec: partials are ${shapeText(partials.shape)} but w is ${shapeText(w.shape)} and there are ${contextLens.cols} contexts; wanted w [H · D, N] and a context for each sequence`,
  );
  checkProduct("merge-matvec", { rows: sequences, cols: w.rows, shape: [sequences, w.rows] }, w, bias);
  check(
    residual.rows === sequences && residual.cols === w.cols,
    () =>
      `merge-matvec: the product is [${sequences}, ${w.cols}] but residual is ${shapeText(residual.shape)}; the shapes must be equal`,
  );
  const sizes = productSizes(w);
  const form = columnForm(gpu, w.rows, sizes.N_QUADS);
  kernel.run(
    gpu,
    { partials, context_lens: contextLens, w, bias, residual, y },
    {},
    [form.workgroups, sequences],
    {
      parts: [storagePart(w), form.part],
      constants: {
        ...sizes,
        ...form.constants,
        ROW_QUADS: rowQuads(w.rows),
        HEADS: heads,
        HEAD_QUADS: headSize / 4,
        CHUNKS: chunks,
      },
      work: productWork(sequences, w),
    },
  );
  return y;
}
