import { randomFloats } from "../values.ts";

/** What decodeAttention leaves for mergeAttention. */
export interface PartialShape {
  readonly heads: number;
  readonly headSize: number;
  readonly contexts: readonly number[];
  /** Chunks that there is room for. */
  readonly chunks: number;
}

/** Partial results [S, H, chunks, D + 4] with maxima from -spread to spread; NaN in the chunks past a context. */
export function makePartials({ heads, headSize, contexts, chunks }: PartialShape, spread = 5): Float32Array {
  const width = headSize + 4;
  const partials = new Float32Array(contexts.length * heads * chunks * width).fill(Number.NaN);
  contexts.forEach((length, s) => {
    for (let h = 0; h < heads; h++)
      for (let c = 0; c < Math.ceil(length / 128); c++) {
        const chunk = (s * heads + h) * chunks + c;
        const [largest, sum] = randomFloats(1000 + chunk, 2);
        partials.set(randomFloats(chunk, headSize), chunk * width);
        partials.set([largest! * spread, sum! + 2, 0, 0], chunk * width + headSize);
      }
  });
  return partials;
}
