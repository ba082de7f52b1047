import type { Gpu } from "../../src/gpu/gpu.ts";
import { Kernel } from "../../src/gpu/kernel.ts";
import { type AttentionBatch, attention, attentionArguments } from "../../src/ops/attention.ts";
import { attentionTiles } from "../../src/ops/attention-tiles.ts";
import { decodeAttention, type SlotLookup } from "../../src/ops/decode-attention.ts";
import { type FlashTile, flashAttentionWith } from "../../src/ops/flash-attention.ts";
import { mergeAttention } from "../../src/ops/merge-attention.ts";
import { pagedAttention } from "../../src/ops/paged-attention.ts";
import { storagePart } from "../../src/ops/storage.ts";
import { Tensor } from "../../src/tensor.ts";
import { type Output, withGuards, withGuardsAll } from "../gpu-fixture.ts";
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

/** Prefill, chunked prefill with a past, and decode in one batch, on both sides of a group of 16 positions. */
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
  { lengths: [[127, 1]], why: "a context of exactly one chunk of 128" },
  { lengths: [[128, 1]], why: "one past it" },
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
  return { tensors, starts, queries: Tensor.from(gpu, [starts.at(-1)!, 3 * heads * headSize], qkv) };
}

/** Where every position lies: the array that the kernels look it up in, and the same for the host. */
interface Layout {
  readonly slots: number;
  readonly table: readonly number[];
  readonly slotOf: (sequence: number, position: number) => number;
}

/** Each sequence in a strip of its own: last sequence first, with unused slots before, between and behind. */
function strips({ contexts }: Batch): Layout {
  const table: number[] = [];
  let slots = 3;
  for (let s = contexts.length - 1; s >= 0; s--) {
    table[s] = slots;
    slots += contexts[s]!.length + 2;
  }
  return { slots, table, slotOf: (s, p) => table[s]! + p };
}

/** attention with every sequence in a strip; with a workgroup size, in the form for few threads. */
export function runContiguous(gpu: Gpu, batch: Batch, workgroupSize?: number): Promise<Output> {
  const { slots, table, slotOf } = strips(batch);
  const cache = fillSlots(batch, slots, slotOf);
  const scale = 1 / Math.sqrt(batch.headSize);
  return withGuards(gpu, () => {
    const [k, v] = cache(gpu) as [Tensor, Tensor];
    const { tensors, queries } = batchTensors(gpu, batch);
    const stripStarts = integers(gpu, table);
    if (workgroupSize === undefined) return attention(queries, k, v, stripStarts, tensors, scale);
    const { y, buffers, params, workgroups, options } = attentionArguments(
      "attention",
      queries,
      k,
      v,
      tensors,
      scale,
    );
    const constants = { ...options.constants, WORKGROUP_SIZE: workgroupSize };
    const all = { ...buffers, strip_starts: stripStarts };
    new Kernel("attention").run(gpu, all, params, workgroups, {
      parts: [storagePart(k), "attend-narrow"],
      constants,
    });
    return y;
  });
}

export interface Paging {
  readonly pageSize: number;
  /** Decides which page goes where. */
  readonly seed?: number;
  /** How many pages at the front of every sequence are the first sequence's own. */
  readonly sharedPages?: number;
}

/** Every sequence's pages anywhere, twice as many as needed. Entries past a sequence's end name a page of NaN. */
function paging(
  { contexts }: Batch,
  { pageSize, seed = 7, sharedPages = 0 }: Paging,
): Layout & { width: number } {
  const counts = contexts.map(({ length }) => Math.ceil(length / pageSize));
  const pages = 2 * counts.reduce((a, b) => a + b) + 1;
  const order = shuffled(seed, pages);
  const freePage = order.pop()!;
  const width = Math.max(...counts) + 1;
  const table: number[] = [];
  counts.forEach((count, s) => {
    for (let i = 0; i < width; i++)
      table.push(i >= count ? freePage : s > 0 && i < sharedPages ? table[i]! : order.pop()!);
  });
  const pageOf = (s: number, p: number) => table[s * width + Math.floor(p / pageSize)]!;
  return {
    slots: pages * pageSize,
    table,
    width,
    slotOf: (s, p) => pageOf(s, p) * pageSize + (p % pageSize),
  };
}

/** Strips or pages, and what an op is told of them. */
function placed(batch: Batch, how: "contiguous" | Paging) {
  const pages = how === "contiguous" ? undefined : paging(batch, how);
  const { slots, table, slotOf } = pages ?? strips(batch);
  const lookup = (gpu: Gpu): SlotLookup =>
    pages && how !== "contiguous"
      ? {
          part: "slots-paged",
          table: integers(gpu, table, [batch.contexts.length, pages.width]),
          pageSize: how.pageSize,
        }
      : { part: "slots-contiguous", table: integers(gpu, table), pageSize: 1 };
  return { slots, slotOf, lookup };
}

/** paged-attention with every sequence's pages anywhere. */
export function runPaged(gpu: Gpu, batch: Batch, how: Paging): Promise<Output> {
  const { pageSize } = how;
  const { slots, table, width, slotOf } = paging(batch, how);
  const cache = fillSlots(batch, slots, slotOf);
  const scale = 1 / Math.sqrt(batch.headSize);
  return withGuards(gpu, () => {
    const [k, v] = cache(gpu) as [Tensor, Tensor];
    const { tensors, queries } = batchTensors(gpu, batch);
    const pageTable = integers(gpu, table, [batch.contexts.length, width]);
    return pagedAttention(queries, k, v, pageTable, pageSize, tensors, scale);
  });
}

/** Runs attention by tiles: flashAttentionWith, or another form of it. */
type RunTiles = (
  tile: FlashTile,
  queries: Tensor,
  k: Tensor,
  v: Tensor,
  lookup: SlotLookup,
  tensors: AttentionBatch,
  scale: number,
) => Tensor;

/** flash-attention, in strips or in pages, with tiles of a given size; `more` entries of the list are of no tile. */
export function runFlash(
  gpu: Gpu,
  batch: Batch,
  how: "contiguous" | Paging,
  tile: FlashTile,
  { more = 0, run = flashAttentionWith as RunTiles } = {},
): Promise<Output> {
  const { slots, slotOf, lookup } = placed(batch, how);
  const cache = fillSlots(batch, slots, slotOf);
  return withGuards(gpu, () => {
    const [k, v] = cache(gpu) as [Tensor, Tensor];
    const { tensors, queries, starts } = batchTensors(gpu, batch);
    const count = attentionTiles(starts, tile.rows).length / 2 + more;
    const tiles = integers(gpu, [...attentionTiles(starts, tile.rows, count)], [count, 2]);
    const listed = { ...tensors, tiles, tileRows: tile.rows };
    return run(tile, queries, k, v, lookup(gpu), listed, 1 / Math.sqrt(batch.headSize));
  });
}

/**
 * decode-attention and merge-attention, in strips or in pages, of a batch whose sequences have one new token each: partial
 * results and result. `maxContext` is the longest context if unset.
 */
export async function runDecode(
  gpu: Gpu,
  batch: Batch,
  how: "contiguous" | Paging,
  maxContext = Math.max(...batch.contexts.map(({ length }) => length)),
): Promise<{ partials: Output; y: Output }> {
  const { heads, headSize, contexts, qkv } = batch;
  const C = heads * headSize;
  const S = contexts.length;
  const { slots, slotOf, lookup } = placed(batch, how);
  const cache = fillSlots(batch, slots, slotOf);
  const queries = Float32Array.from({ length: S * C }, (_, i) => qkv[Math.floor(i / C) * 3 * C + (i % C)]!);
  const [partials, y] = await withGuardsAll(gpu, () => {
    const [k, v] = cache(gpu) as [Tensor, Tensor];
    const q = Tensor.from(gpu, [S, C], queries);
    const contextLens = integers(
      gpu,
      contexts.map(({ length }) => length),
    );
    const partials = decodeAttention(q, k, v, lookup(gpu), contextLens, maxContext, 1 / Math.sqrt(headSize));
    return [partials, mergeAttention(partials, contextLens)];
  });
  return { partials: partials!, y: y! };
}
