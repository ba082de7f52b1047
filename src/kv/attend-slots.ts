import { attention } from "../ops/attention.ts";
import { kvWrite } from "../ops/kv-write.ts";
import { pagedAttention } from "../ops/paged-attention.ts";
import type { Tensor } from "../tensor.ts";
import type { CacheStep, LayerKv } from "./cache.ts";

/** A step's attention over pages: pageTable [S, width] u32, the pages of each sequence. */
export function attendPages(
  layers: readonly LayerKv[],
  pageTable: Tensor,
  pageSize: number,
): CacheStep["attend"] {
  return (layer, qkv, slots, batch, scale) => {
    const { k, v } = layers[layer]!;
    kvWrite(qkv, slots, k, v);
    return pagedAttention(qkv, k, v, pageTable, pageSize, batch, scale);
  };
}

/** A step's attention over strips: stripStarts [S] u32, the first slot of each sequence. */
export function attendStrips(layers: readonly LayerKv[], stripStarts: Tensor): CacheStep["attend"] {
  return (layer, qkv, slots, batch, scale) => {
    const { k, v } = layers[layer]!;
    kvWrite(qkv, slots, k, v);
    return attention(qkv, k, v, stripStarts, batch, scale);
  };
}
