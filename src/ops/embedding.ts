import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { Tensor } from "../tensor.ts";
import { checkTable, rowBytes, scalesRange, storagePart, type Table } from "./storage.ts";

const kernel = new Kernel("embedding");

/**
 * Token plus position embedding: y[t] = wte[tokenIds[t]] + wpe[positions[t]], a new tensor [T, C] f32.
 *
 * tokenIds and positions are [T] u32; wte is [V, C] f32, f16 or i8, and wpe [P, C], of wte's dtype, is one block. Ids must be below V and
 * positions below P: the caller checks them, since the GPU would read something else without a word.
 */
export function embedding(tokenIds: Tensor, positions: Tensor, wte: Table, wpe: Table): Tensor {
  const tokens = tokenIds.cols;
  check(positions.cols === tokens, () => `embedding: ${tokens} token ids but ${positions.cols} positions`);
  const rows = checkTable("embedding", "wte", wte);
  const places = checkTable("embedding", "wpe", wpe);
  const [word, place] = [wte.blocks[0]!, wpe.blocks[0]!];
  check(wpe.blocks.length === 1, () => `embedding: wpe has ${wpe.blocks.length} blocks; wanted one`);
  check(
    word.cols === place.cols && word.dtype === place.dtype,
    () =>
      `embedding: wte is ${word.dtype} [${rows}, ${word.cols}] but wpe is ${place.dtype} [${places}, ${place.cols}]; columns and dtype must be equal`,
  );
  const { gpu, cols, stride } = place;
  const y = Tensor.empty(gpu, [tokens, cols], { label: "embedding" });
  const fixed = { wte_scales: scalesRange(wte), wpe: place, wpe_scales: scalesRange(wpe), y };
  const quads = stride / 4;
  // Each token's ids and rows are read once, whichever block they lie in: the first dispatch counts them.
  const bytes = tokens * (8 + rowBytes(wte) + rowBytes(wpe) + 4 * stride);
  let first_row = 0;
  for (const block of wte.blocks) {
    const params = { quads, first_row, rows: block.rows };
    const work =
      first_row === 0 ? () => ({ shape: `${tokens}×${cols}`, bytes, flops: tokens * cols }) : undefined;
    kernel.run(
      gpu,
      { token_ids: tokenIds, positions, wte: block, ...fixed },
      params,
      [Math.ceil(quads / 64), tokens],
      { parts: [storagePart(place)], work },
    );
    first_row += block.rows;
  }
  return y;
}
