import { sizeClass } from "../gpu/memory.ts";
import { type CacheShape, slotBytes } from "../kv/cache.ts";
import { tensorBytes } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { ExpectedTensor, WeightDtype } from "./expected-tensors.ts";

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
 * Memory of a forward step of `tokens` new tokens (T) of `sequences` (S), with a cache that remembers.
 *
 * A buffer is reused as soon as its tensor is freed, so what counts is how many of a size live at once: four of [T, C]
 * (the residual stream, the normed rows, the merged heads or the middle of the block, the result), one [T, 3 · C] of
 * query, key and value, one [T, F] inside the MLP, then [S, C] and the logits [S, V]. No matrix of scores exists: the
 * softmax is online. Sizes are those of the ledger's classes.
 */
export function stepBytes(config: ModelConfig, tokens: number, sequences: number): StepBytes {
  const { channels: C, innerChannels: F, vocabSize: V } = config;
  const size = (rows: number, cols: number) => sizeClass(tensorBytes([rows, cols], "f32"));
  const phases: readonly number[][] = [
    [...new Array<number>(4).fill(size(tokens, C)), size(tokens, 3 * C)],
    [...new Array<number>(4).fill(size(tokens, C)), size(tokens, F)],
    [size(tokens, C), size(tokens, C), size(sequences, C), size(sequences, V)],
  ];
  const activations = poolBytes(phases);
  const perToken = sizeClass(4 * tokens);
  const perSequence = sizeClass(4 * (sequences + 1));
  // Token ids, positions, slots, sequence of each row; query starts, context lengths, last rows, strips or page table.
  const tables = 4 * perToken + 4 * perSequence;
  const staging = size(sequences, V);
  return { activations, tables, staging, total: activations + tables + staging };
}

/** Bytes of a pool that serves phases one after another: of each size the most that a phase has at once. */
function poolBytes(phases: readonly (readonly number[])[]): number {
  const sizes = new Set(phases.flat());
  const count = (phase: readonly number[], size: number) => phase.filter((s) => s === size).length;
  return [...sizes].reduce(
    (bytes, size) => bytes + size * Math.max(...phases.map((phase) => count(phase, size))),
    0,
  );
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
