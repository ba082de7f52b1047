import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";
import { storagePart } from "./storage.ts";

const kernel = new Kernel("embedding");

/**
 * Token plus position embedding: y[t] = wte[tokenIds[t]] + wpe[positions[t]], a new tensor [T, C] f32.
 *
 * tokenIds and positions are [T] u32; wpe is [P, C], f32 or f16. `wte` [V, C], of wpe's dtype, comes as blocks of rows in
 * order, one where the table fits a binding. Ids must be below V and positions below P: the caller checks them, since
 * the GPU would read something else without a word.
 */
export function embedding(tokenIds: Tensor, positions: Tensor, wte: readonly Tensor[], wpe: Tensor): Tensor {
  const tokens = tokenIds.cols;
  check(positions.cols === tokens, () => `embedding: ${tokens} token ids but ${positions.cols} positions`);
  check(wte.length > 0, "embedding: wte has no blocks");
  for (const block of wte)
    check(
      block.cols === wpe.cols && block.dtype === wpe.dtype,
      () =>
        `embedding: wte is ${block.dtype} ${shapeText(block.shape)} but wpe is ${wpe.dtype} ${shapeText(wpe.shape)}; columns and dtype must be equal`,
    );
  const y = Tensor.empty(wpe.gpu, [tokens, wpe.cols], { label: "embedding" });
  const quads = wpe.stride / 4;
  let first_row = 0;
  for (const block of wte) {
    const params = { quads, first_row, rows: block.rows };
    kernel.run(
      wpe.gpu,
      { token_ids: tokenIds, positions, wte: block, wpe, y },
      params,
      [Math.ceil(quads / 64), tokens],
      {
        parts: [storagePart(wpe)],
      },
    );
    first_row += block.rows;
  }
  return y;
}
