import type { Gpu } from "../gpu/gpu.ts";
import { Tensor } from "../tensor.ts";

/**
 * The integer arrays of a decode step, which the GPU advances by itself: for each of S sequences its last token, whose keys
 * and values are still to be computed, and what the next step needs to know of it.
 */
export const STEP_ROWS = [
  "tokenIds",
  "positions",
  "slotMapping",
  "contextLens",
  /** Tokens sampled so far: the counter of the random numbers. */
  "generated",
  /** Where in the ring of tokens the next one goes. */
  "ring",
] as const;
export type StepRow = (typeof STEP_ROWS)[number];

/** A binding must begin at a multiple of 256 bytes. */
const ROW_WORDS = 64;

/** The arrays side by side in one buffer: kernels that read bind a row alone, the sampler binds all and writes them. */
export class StepArrays {
  /** [rows, stride] u32. */
  readonly all: Tensor;
  /** Words from one row to the next, a multiple of 64. */
  readonly stride: number;
  private readonly sequences: number;

  constructor(gpu: Gpu, sequences: number) {
    this.sequences = sequences;
    this.stride = Math.ceil(sequences / ROW_WORDS) * ROW_WORDS;
    const shape = [STEP_ROWS.length, this.stride];
    this.all = Tensor.empty(gpu, shape, { dtype: "u32", purpose: "tables", label: "step arrays" });
  }

  /** One array, [S] u32: a view, which the owner of `all` keeps alive. */
  row(name: StepRow): Tensor {
    const { gpu, allocation, offset } = this.all;
    const at = offset + 4 * this.stride * STEP_ROWS.indexOf(name);
    return new Tensor(gpu, [this.sequences], "u32", allocation, at);
  }

  /** Write the first entries of every array; an array has at most S entries. */
  write(values: Readonly<Record<StepRow, readonly number[]>>): void {
    const words = new Uint32Array(STEP_ROWS.length * this.stride);
    STEP_ROWS.forEach((name, r) => {
      words.set(values[name], r * this.stride);
    });
    this.all.gpu.write(this.all, words);
  }
}
