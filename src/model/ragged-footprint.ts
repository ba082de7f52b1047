import { sizeClass } from "../gpu/memory.ts";
import { type CacheShape, slotBytes } from "../kv/cache.ts";
import { tensorBytes } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import { type ArrayLimits, arrayWords, type Bucket, RING_LAUNCHES } from "./ragged-arrays.ts";
import { bucketCount } from "./ragged-options.ts";

// How much GPU memory a step of many sequences takes beside weights, keys and values, known before any is taken.

/**
 * Bytes of the scratch buffers of a step, one number a buffer; `pageBytes` is a page in all layers, on its way to the host. The residual stream, the normed rows, the merged heads or the
 * middle of the block, and the result are [T, C] each; one buffer is query, key and value, then the MLP's inner rows, at the
 * end the logits; and there are the token ids.
 */
export function scratchPlan(
  { channels: C, innerChannels: F, vocabSize: V }: ModelConfig,
  bucket: Bucket,
  pageBytes = 0,
): number[] {
  const { rows, samples } = bucket;
  const bytes = (count: number, cols: number) => (count === 0 ? 0 : tensorBytes([count, cols], "f32"));
  // An MLP that is not wider than the stream takes a buffer of the stream's, so there must be one more.
  const narrow = F <= C ? 5 : 4;
  return [
    ...new Array<number>(narrow).fill(bytes(Math.max(rows, samples), C)),
    Math.max(bytes(rows, 3 * C), bytes(rows, F), bytes(samples, V), pageBytes),
    4 * rows,
  ];
}

/** Rows of tokens seen: for every sequence of a step, and as many that ended while a step was on its way. */
export function seenRows(maxSequences: number): number {
  return 2 * maxSequences;
}

/** What a step keeps, and in staging what its results need on their way to the host, in bytes. */
export interface RaggedBytes {
  readonly activations: number;
  readonly tables: number;
  readonly staging: number;
  /** Keys and values of padding, where no page of the cache is nobody's. */
  readonly padding: number;
  readonly total: number;
  /** Bytes of one slot of the cache, in all layers. */
  readonly slotBytes: number;
}

/** Launches in flight whose tokens are on their way. */
const LAUNCHES_AHEAD = 3;

/** An upper bound for params: some for all recordings, some for each bucket of rows or samples, 256 bytes each. */
const paramsBytes = (layers: number, largest: Bucket) =>
  256 * (24 + layers + 4 * (bucketCount(largest.rows) + bucketCount(largest.samples) + 2));

/** What is on its way to the host at once, beside tokens. */
export interface StagedRows {
  /** Samples of a step that want their logits too. */
  readonly logitsRows: number;
  /** Slots of pages that are swapped out. */
  readonly swapTokens: number;
}

/**
 * Memory of steps up to the largest bucket. Exact for activations,
 * and for tables but the few KB of params.
 */
export function raggedBytes(
  config: ModelConfig,
  shape: CacheShape,
  largest: Bucket,
  limits: ArrayLimits,
  { logitsRows, swapTokens }: StagedRows,
): RaggedBytes {
  const pageBytes = (limits.pageSize ?? 1) * slotBytes(shape);
  const activations = scratchPlan(config, largest, pageBytes).reduce((sum, bytes) => sum + bytes, 0);
  const words = (count: number) => sizeClass(4 * count);
  const seen = seenRows(limits.maxSequences) * Math.ceil(config.vocabSize / 32);
  const tables =
    words(arrayWords(largest, limits)) +
    words(RING_LAUNCHES * limits.maxSequences) +
    words(seen) +
    words(1) +
    paramsBytes(config.layers, largest);
  const logits = logitsRows === 0 ? 0 : sizeClass(tensorBytes([logitsRows, config.vocabSize], "f32"));
  const swap = swapTokens === 0 ? 0 : sizeClass(swapTokens * slotBytes(shape));
  const staging = LAUNCHES_AHEAD * words(limits.maxSequences) + logits + swap;
  const padding = limits.pageSize === undefined ? slotBytes(shape) : 0;
  return {
    activations,
    tables,
    staging,
    padding,
    total: activations + tables + staging + padding,
    slotBytes: slotBytes(shape),
  };
}
