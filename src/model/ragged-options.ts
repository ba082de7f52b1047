import { batchProducts, tileRowsOf } from "./batch-products.ts";
import type { Gpt2 } from "./gpt2.ts";
import type { ArrayLimits, Bucket } from "./ragged-arrays.ts";

export interface RaggedOptions {
  /** Where keys and values lie: in pages by a page table, of which page 0 is nobody's, or in strips. */
  readonly layout: "pages" | "strips";
  /** Slots of a page; 1 with strips. */
  readonly pageSize: number;
  /** Slots of the cache, the null page included. */
  readonly slots: number;
  readonly kvDtype: "f32" | "f16";
  /** Most sequences, and most samples, in a step. */
  readonly maxSequences: number;
  /** Most new tokens in a step. */
  readonly maxBatchedTokens: number;
  /** Most tokens of a sequence. */
  readonly maxSeqLen: number;
}

/** What the memory of steps depends on: all but the slots of the cache. */
export type StepSizes = Omit<RaggedOptions, "slots">;

/** Slots that are moved together: those of a page, or one of a strip. */
export function movedSlots({ layout, pageSize }: StepSizes): number {
  return layout === "pages" ? pageSize : 1;
}

/** What the arrays of a step have to know, in a cache of `slots` slots. */
export function limitsOf(model: Gpt2, options: StepSizes, slots: number): ArrayLimits {
  const { config } = model;
  const { layout, pageSize, maxSequences, maxSeqLen } = options;
  const paged = layout === "pages";
  return {
    maxSequences,
    maxSeqLen,
    pageSize: paged ? pageSize : undefined,
    tableWidth: paged ? Math.ceil(maxSeqLen / pageSize) : 1,
    // Page 0 is nobody's; strips have no such page, so padding gets a slot behind them.
    paddingSlot: paged ? 0 : slots,
    vocabSize: config.vocabSize,
    tileRows: tileRowsOf(model, batchProducts(model), model.cacheShape(options.kvDtype)),
  };
}

export function largestBucket({ maxBatchedTokens, maxSequences }: StepSizes): Bucket {
  return { rows: maxBatchedTokens, samples: maxSequences };
}

/** From here on sizes are closer together: what is padded costs as much as what is not, and a recording little. */
const MANY = 64;

/** The smallest of 1, 2, 4, … 64, 96, 128, 192, … and at last `most` that is at least `count`. */
export function bucketSize(count: number, most: number): number {
  const size = 2 ** Math.ceil(Math.log2(count));
  const between = (3 / 4) * size;
  return Math.min(between > MANY && count <= between ? between : size, most);
}

/** How many sizes there are up to `most`. */
export function bucketCount(most: number): number {
  let count = 1;
  for (let size = most; size > 1; count++) {
    // The largest size below this one.
    let below = 2 ** (Math.ceil(Math.log2(size)) - 1);
    if (bucketSize(1.5 * below, size) < size) below *= 1.5;
    size = below;
  }
  return count;
}
