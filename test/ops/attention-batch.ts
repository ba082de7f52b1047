import type { Gpu } from "../../src/gpu/gpu.ts";
import { Kernel } from "../../src/gpu/kernel.ts";
import { type AttentionBatch, attention, attentionArguments } from "../../src/ops/attention.ts";
import { pagedAttention } from "../../src/ops/paged-attention.ts";
import { Tensor } from "../../src/tensor.ts";
import { type Output, withGuards } from "../gpu-fixture.ts";
import * as reference from "../reference.ts";
import { shuffled, stored, VALUES, type ValuesName } from "../values.ts";

/** Sequences as [past, fresh]: tokens already in the cache, and new ones, whose queries are in the batch. */
export type Lengths = readonly (readonly [past: number, fresh: number])[];

export interface Shape {
  readonly heads: number;
  readonly headSize: number;
  readonly lengths: Lengths;
}

/** A ragged batch: queries, and every sequence's keys and values by position, as the cache stores them. */
export interface Batch extends Shape {
  readonly dtype: "f32" | "f16";
  /** [T, 3 · C]: the queries, and NaN where attention has no business. */
  readonly qkv: Float32Array;
  readonly contexts: readonly reference.Context[];
}

/** Prefill, chunked prefill with a past, and decode in one batch, across the tiles of every workgroup size. */
export const MIXED: Lengths = [
  [0, 5],
  [37, 3],
  [12, 1],
  [0, 1],
  [33, 1],
  [31, 2],
];

/** Batches and what each is there for. */
export const BATCHES: readonly { lengths: Lengths; why: string }[] = [
  { lengths: [[0, 1]], why: "one token that sees only itself" },
  { lengths: MIXED, why: "prefill, chunked prefill and decode together" },
  { lengths: [[0, 15]], why: "a prompt of one less than a page of 16" },
  { lengths: [[0, 16]], why: "a prompt of a page" },
  { lengths: [[0, 17]], why: "and one" },
  { lengths: [[31, 1]], why: "a context of exactly one tile of 32" },
  { lengths: [[32, 1]], why: "one past it" },
  {
    lengths: [
      [1022, 1],
      [1023, 1],
    ],
    why: "the end of GPT-2's context",
  },
  {
    lengths: [
      [9, 0],
      [3, 2],
    ],
    why: "a sequence that has no new token",
  },
  { lengths: Array.from({ length: 33 }, (_, i) => [i, 1] as const), why: "decode of 33 sequences" },
];

export function makeBatch(
  { heads, headSize, lengths }: Shape,
  dtype: "f32" | "f16",
  name: ValuesName = "uniform(-1, 1)",
): Batch {
  const C = heads * headSize;
  const T = lengths.reduce((sum, [, fresh]) => sum + fresh, 0);
  const queries = VALUES[name](T, C, 1);
  const qkv = new Float32Array(T * 3 * C).fill(Number.NaN);
  for (let t = 0; t < T; t++) qkv.set(queries.subarray(t * C, (t + 1) * C), t * 3 * C);
  const contexts = lengths.map(([past, fresh], s) => ({
    length: past + fresh,
    fresh,
    keys: stored(VALUES[name](past + fresh, C, 2 + 2 * s), dtype),
    values: stored(VALUES[name](past + fresh, C, 3 + 2 * s), dtype),
  }));
  return { heads, headSize, lengths, dtype, qkv, contexts };
}

export function expectedAttention({ qkv, contexts, heads, headSize }: Batch): Float64Array {
  return reference.attention(qkv, contexts, heads, headSize, 1 / Math.sqrt(headSize));
}

/** Keys and values in `slots` slots, NaN in every slot where no position lies. */
function fillSlots(batch: Batch, slots: number, slotOf: (sequence: number, position: number) => number) {
  const C = batch.heads * batch.headSize;
  const k = new Float32Array(slots * C).fill(Number.NaN);
  const v = new Float32Array(slots * C).fill(Number.NaN);
  batch.contexts.forEach(({ keys, values, length }, s) => {
    for (let p = 0; p < length; p++)
      for (let c = 0; c < C; c++) {
        k[slotOf(s, p) * C + c] = keys[p * C + c]!;
        v[slotOf(s, p) * C + c] = values[p * C + c]!;
      }
  });
  const shape = [slots, batch.heads, batch.headSize];
  return (gpu: Gpu) => [k, v].map((values) => Tensor.from(gpu, shape, values, { dtype: batch.dtype }));
}

const integers = (gpu: Gpu, values: readonly number[], shape = [values.length]) =>
  Tensor.from(gpu, shape, values, { dtype: "u32" });

function batchTensors(gpu: Gpu, { lengths, qkv, heads, headSize }: Batch) {
  const starts = [0];
  for (const [, fresh] of lengths) starts.push(starts.at(-1)! + fresh);
  const tensors: AttentionBatch = {
    contextLens: integers(
      gpu,
      lengths.map(([past, fresh]) => past + fresh),
    ),
    queryStarts: integers(gpu, starts),
    sequenceOf: integers(
      gpu,
      lengths.flatMap(([, fresh], s) => new Array<number>(fresh).fill(s)),
    ),
  };
  return { tensors, queries: Tensor.from(gpu, [starts.at(-1)!, 3 * heads * headSize], qkv) };
}

/** attention with each sequence in a strip of its own: last sequence first, with unused slots before, between and behind. */
export function runContiguous(gpu: Gpu, batch: Batch, workgroupSize?: number): Promise<Output> {
  const stripStarts: number[] = [];
  let slots = 3;
  for (let s = batch.lengths.length - 1; s >= 0; s--) {
    stripStarts[s] = slots;
    slots += batch.contexts[s]!.length + 2;
  }
  const cache = fillSlots(batch, slots, (s, p) => stripStarts[s]! + p);
  const scale = 1 / Math.sqrt(batch.headSize);
  return withGuards(gpu, () => {
    const [k, v] = cache(gpu) as [Tensor, Tensor];
    const { tensors, queries } = batchTensors(gpu, batch);
    const strips = integers(gpu, stripStarts);
    if (workgroupSize === undefined) return attention(queries, k, v, strips, tensors, scale);
    const { y, buffers, params, workgroups, options } = attentionArguments(
      "attention",
      queries,
      k,
      v,
      tensors,
      scale,
    );
    const constants = { ...options.constants, WORKGROUP_SIZE: workgroupSize };
    const all = { ...buffers, strip_starts: strips };
    new Kernel("attention").run(gpu, all, params, workgroups, { ...options, constants });
    return y;
  });
}

export interface Paging {
  readonly pageSize: number;
  /** Decides which page goes where. */
  readonly seed?: number;
  /** How many pages at the front of every sequence are the first sequence's own. */
  readonly sharedPages?: number;
  readonly workgroupSize?: number;
}

/** paged-attention with every sequence's pages anywhere, twice as many as needed. Entries past a sequence's end name a page of NaN. */
export function runPaged(
  gpu: Gpu,
  batch: Batch,
  { pageSize, seed = 7, sharedPages = 0, workgroupSize }: Paging,
): Promise<Output> {
  const counts = batch.contexts.map(({ length }) => Math.ceil(length / pageSize));
  const pages = 2 * counts.reduce((a, b) => a + b) + 1;
  const order = shuffled(seed, pages);
  const freePage = order.pop()!;
  const width = Math.max(...counts) + 1;
  const table: number[] = [];
  counts.forEach((count, s) => {
    for (let i = 0; i < width; i++)
      table.push(i >= count ? freePage : s > 0 && i < sharedPages ? table[i]! : order.pop()!);
  });
  const cache = fillSlots(
    batch,
    pages * pageSize,
    (s, p) => table[s * width + Math.floor(p / pageSize)]! * pageSize + (p % pageSize),
  );
  const scale = 1 / Math.sqrt(batch.headSize);
  return withGuards(gpu, () => {
    const [k, v] = cache(gpu) as [Tensor, Tensor];
    const { tensors, queries } = batchTensors(gpu, batch);
    const pageTable = integers(gpu, table, [counts.length, width]);
    if (workgroupSize === undefined)
      return pagedAttention(queries, k, v, pageTable, pageSize, tensors, scale);
    const { y, buffers, params, workgroups, options } = attentionArguments(
      "paged-attention",
      queries,
      k,
      v,
      tensors,
      scale,
    );
    const constants = { ...options.constants, WORKGROUP_SIZE: workgroupSize };
    const all = { ...buffers, page_table: pageTable };
    const paged = { ...params, page_size: pageSize, table_width: width };
    new Kernel("paged-attention").run(gpu, all, paged, workgroups, { ...options, constants });
    return y;
  });
}
