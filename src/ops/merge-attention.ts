import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";
import { CHUNK } from "./decode-attention.ts";

const kernel = new Kernel("merge-attention");

/** Workgroup memory of merge-chunks.wgsl for contexts of up to `maxContext` tokens. */
export function mergeBytes(heads: number, maxContext: number): number {
  return 12 * heads * Math.ceil(maxContext / CHUNK);
}

/**
 * The result of attention [S, C] f32 out of the partial results of `decodeAttention` [S, H, chunks, D + 4] f32; a new tensor.
 *
 * contextLens [S] u32 are those that made the partial results: only a context's own chunks are read, in order. Each is
 * rescaled to the largest maximum so far (Milakov and Gimelshein, 2018).
 */
export function mergeAttention(partials: Tensor, contextLens: Tensor): Tensor {
  check(
    partials.shape.length === 4 && partials.cols % 4 === 0 && partials.cols > 4,
    () => `merge-attention: partials are ${shapeText(partials.shape)}; wanted [S, H, chunks, D + 4]`,
  );
  const [sequences, heads, chunks, width] = partials.shape as [number, number, number, number];
  check(
    contextLens.cols === sequences,
    () =>
      `merge-attention: partials are ${shapeText(partials.shape)} but there are ${contextLens.cols} contexts`,
  );
  const headQuads = width / 4 - 1;
  const y = Tensor.empty(partials.gpu, [sequences, heads * headQuads * 4], { label: "merge-attention" });
  kernel.run(
    partials.gpu,
    { partials, context_lens: contextLens, y },
    {},
    [Math.ceil((heads * headQuads) / 64), sequences],
    { constants: { HEADS: heads, HEAD_QUADS: headQuads, CHUNKS: chunks } },
  );
  return y;
}
