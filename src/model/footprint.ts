import { sizeClass } from "../gpu/memory.ts";
import { type CacheShape, slotBytes } from "../kv/cache.ts";
import { tensorBytes } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { ExpectedTensor, WeightDtype } from "./expected-tensors.ts";
import { memoryPlan } from "./memory-plan.ts";

// How much GPU memory a model will take, known before any is taken.

/** Bytes of a weight on the GPU, row padding and the scales of int8 included. */
export function weightBytes({ shape, form }: ExpectedTensor, dtype: WeightDtype): number {
  if (form === "vector") return tensorBytes(shape, "f32");
  if (dtype !== "int8") return tensorBytes(shape, dtype);
  const channels = shape[form === "table" ? 0 : 1]!;
  return tensorBytes(shape, "i8") + tensorBytes([channels], "f32");
}

/** GPU memory that a step takes and gives back, in bytes. */
export interface StepBytes {
  readonly activations: number;
  /** The batch's integer arrays, without the few KB of params. */
  readonly tables: number;
  /** Logits on their way to the host. */
  readonly staging: number;
  readonly total: number;
}

/**
 * Memory of a forward step of `tokens` new tokens (T) of `sequences` (S), with a cache that remembers: activations as `memoryPlan`
 * shares them, in buffers of the ledger's size classes. No matrix of scores exists: the softmax is online.
 */
export function stepBytes(config: ModelConfig, tokens: number, sequences: number): StepBytes {
  const { sizes } = memoryPlan(config, { rows: tokens, samples: sequences });
  const activations = sizes.reduce((sum, bytes) => sum + sizeClass(bytes), 0);
  const perToken = sizeClass(4 * tokens);
  const perSequence = sizeClass(4 * (sequences + 1));
  // Token ids, positions, slots, sequence of each row; query starts, context lengths, last rows, strips or page table.
  const tables = 4 * perToken + 4 * perSequence;
  const staging = sizeClass(tensorBytes([sequences, config.vocabSize], "f32"));
  return { activations, tables, staging, total: activations + tables + staging };
}

/** Bytes of the KV cache for `sequences` strips of `maxLength` tokens. */
export function contiguousBytes(shape: CacheShape, sequences: number, maxLength: number): number {
  return sequences * maxLength * slotBytes(shape);
}

/** Bytes of the KV cache for `sequences` of `length` tokens in pages of `pageSize`, the null page included. */
export function pagedBytes(shape: CacheShape, sequences: number, length: number, pageSize: number): number {
  return (sequences * Math.ceil(length / pageSize) + 1) * pageSize * slotBytes(shape);
}

/** The largest n from 0 on with bytesOf(n) ≤ budget, where bytesOf grows with n; -1 when even 0 does not fit. */
export function mostThatFit(budget: number, bytesOf: (n: number) => number): number {
  if (bytesOf(0) > budget) return -1;
  let fits = 0;
  let tooMany = 1;
  while (bytesOf(tooMany) <= budget) [fits, tooMany] = [tooMany, tooMany * 2];
  while (tooMany - fits > 1) {
    const middle = Math.floor((fits + tooMany) / 2);
    if (bytesOf(middle) <= budget) fits = middle;
    else tooMany = middle;
  }
  return fits;
}
