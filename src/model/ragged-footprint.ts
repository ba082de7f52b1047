import { sizeClass } from "../gpu/memory.ts";
import { type CacheShape, slotBytes } from "../kv/cache.ts";
import { tensorBytes } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import { type MemoryPlan, memoryPlan, type StepForm, smallerSizes, stepValues } from "./memory-plan.ts";
import { type ArrayLimits, arrayWords, type Bucket, RING_LAUNCHES } from "./ragged-arrays.ts";
import { bucketCount } from "./ragged-options.ts";

// How much GPU memory a step of many sequences takes beside weights, keys and values, known before any is taken.

/** How steps are computed, as far as their scratch depends on it. */
export type ScratchForm = Pick<StepForm, "queriesOnly" | "rowDtype">;

/**
 * The scratch of the largest step, which all sizes share, without the few KB of params. `pageBytes` is a page in all layers: on its way
 * to the host it lies in the largest buffer.
 */
export function scratchPlan(
  config: ModelConfig,
  largest: Bucket,
  form: ScratchForm,
  pageBytes = 0,
): MemoryPlan {
  const plan = memoryPlan(config, { ...form, ...largest, takesTokens: true });
  const [first = 0, ...rest] = plan.sizes;
  const sizes = [Math.max(first, pageBytes), ...rest];
  return { ...plan, sizes, totalBytes: plan.totalBytes + sizes[0]! - first };
}

/** How much of each of the plan's buffers the step of a smaller bucket needs. */
export function bucketSizes(
  config: ModelConfig,
  plan: MemoryPlan,
  bucket: Bucket,
  form: ScratchForm,
): number[] {
  return smallerSizes(plan, stepValues(config, { ...form, ...bucket, takesTokens: true }).values);
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
  form: ScratchForm,
  limits: ArrayLimits,
  { logitsRows, swapTokens }: StagedRows,
): RaggedBytes {
  const pageBytes = (limits.pageSize ?? 1) * slotBytes(shape);
  const activations = scratchPlan(config, largest, form, pageBytes).totalBytes;
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
