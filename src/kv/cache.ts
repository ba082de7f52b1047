import type { Gpu } from "../gpu/gpu.ts";
import type { AttentionBatch } from "../ops/attention.ts";
import { rowStride, Tensor } from "../tensor.ts";

/** none: recompute all each step. contiguous: a strip of the maximum length a sequence. paged: pages as it grows. */
export const CACHE_MODES = ["none", "contiguous", "paged"] as const;
export type CacheMode = (typeof CACHE_MODES)[number];

/** What the keys and values of one token look like. */
export interface CacheShape {
  readonly layers: number;
  readonly heads: number;
  readonly headSize: number;
  readonly dtype: "f32" | "f16";
}

/** A sequence's place in a cache: made by `open`, given back by `close`. */
export interface Place {
  /** Tokens whose keys and values the cache holds, those of the step in progress included. */
  readonly length: number;
}

/** `count` new tokens of the sequence at `place`. */
export interface StepRequest {
  readonly place: Place;
  readonly count: number;
}

/** What a cache does for one step of a batch; the same for every layer. */
export interface CacheStep {
  /** [T]: the slot in which each new token's key and value go. */
  readonly slotMapping: Uint32Array;
  /** Where a layer's keys and values go. A cache that forgets makes the tensors anew, in the scope around the call. */
  kv(layer: number): LayerKv;
  /** Attend with the queries in qkv [T, 3 · C], or [T, C] of queries alone, to what is stored in `kv`: [T, C]. */
  look(kv: LayerKv, qkv: Tensor, batch: AttentionBatch, scale: number): Tensor;
}

/** Bytes of a cache. reserved − used is the waste that paging removes. */
export interface KvUsage {
  /** GPU memory that the cache took when it was made, used or not. */
  readonly allocated: number;
  /** Kept for the sequences that are open: nobody else can have it. */
  readonly reserved: number;
  /** Holding keys and values of tokens. */
  readonly used: number;
  /** reserved − used. */
  readonly wasted: number;
}

/** Where keys and values of past tokens live. */
export interface KvCache {
  readonly mode: CacheMode;
  readonly shape: CacheShape;
  /** False for a cache that forgets: each step is then given all tokens of a sequence again. */
  readonly remembers: boolean;
  /** A place for one more sequence. Throws when there is none (OutOfPages, or BadInput for strips). */
  open(): Place;
  /**
   * Find slots for the new tokens of a batch: all of them, or it throws OutOfPages, BadInput or OutOfMemory and changes
   * nothing. The step's own arrays belong to the scope around the call.
   */
  prepare(requests: readonly StepRequest[]): CacheStep;
  /** Give a sequence's place back. */
  close(place: Place): void;
  usage(): KvUsage;
  /** Give the GPU memory back. */
  free(): void;
}

/**
 * A cache that keeps keys and values from step to step, as a recorded decode step sees it: the GPU finds slots by itself in a
 * table that the host fills ahead of need.
 */
export interface RememberingCache extends KvCache {
  readonly remembers: true;
  readonly layers: readonly LayerKv[];
  /** The shader part that finds a position's slot in a row of the table. */
  readonly slotPart: "slots-contiguous" | "slots-paged";
  /** Slots in a page; 1 where there are no pages. */
  readonly pageSize: number;
  /** Entries of a row of the slot table for a sequence of up to `tokens` tokens. */
  tableWidth(tokens: number): number;
  /** Have slots for `count` more tokens before they come. Throws OutOfPages or BadInput, with nothing changed. */
  reserve(place: Place, count: number): void;
  /** The sequence's row of the slot table, as long as what is reserved asks for. */
  slotRow(place: Place): readonly number[];
  /** `count` more tokens of the sequence, reserved before, now have their keys and values here. */
  grow(place: Place, count: number): void;
}

export function remembers(cache: KvCache): cache is RememberingCache {
  return cache.remembers;
}

/** Bytes that one slot takes in all layers: keys and values, heads padded to a multiple of four channels. */
export function slotBytes({ layers, heads, headSize, dtype }: CacheShape): number {
  return 2 * layers * heads * rowStride(headSize) * (dtype === "f32" ? 4 : 2);
}

/** Keys and values of one layer: two tensors [slots, H, D]. */
export interface LayerKv {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** The buffers of a cache that remembers: two a layer, purpose `kv`. Throws OutOfMemory, then nothing is left behind. */
export function allocateLayers(gpu: Gpu, shape: CacheShape, slots: number, label: string): LayerKv[] {
  const layers: LayerKv[] = [];
  const made: Tensor[] = [];
  const tensor = (name: string) => {
    const options = { dtype: shape.dtype, purpose: "kv", label: `${label}.${name}` } as const;
    const t = Tensor.empty(gpu, [slots, shape.heads, shape.headSize], options);
    made.push(t);
    return t;
  };
  try {
    for (let l = 0; l < shape.layers; l++) layers.push({ k: tensor("k"), v: tensor("v") });
  } catch (error) {
    for (const t of made) t.free();
    throw error;
  }
  return layers;
}

export function freeLayers(layers: readonly LayerKv[]): void {
  for (const { k, v } of layers) {
    k.free();
    v.free();
  }
}

export const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
