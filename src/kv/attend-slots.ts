import { attention } from "../ops/attention.ts";
import { kvWrite } from "../ops/kv-write.ts";
import { pagedAttention } from "../ops/paged-attention.ts";
import type { Tensor } from "../tensor.ts";
import type { CacheStep, LayerKv, StoredKv } from "./cache.ts";

type Look = StoredKv["look"];

/** A step's attention over pages: pageTable [S, width] u32, the pages of each sequence. */
export function attendPages(layers: readonly LayerKv[], pageTable: Tensor, pageSize: number): Attend {
  return attendWith(layers, (layer, queries, batch, scale) => {
    const { k, v } = layers[layer]!;
    return pagedAttention(queries, k, v, pageTable, pageSize, batch, scale);
  });
}

/** A step's attention over strips: stripStarts [S] u32, the first slot of each sequence. */
export function attendStrips(layers: readonly LayerKv[], stripStarts: Tensor): Attend {
  return attendWith(layers, (layer, queries, batch, scale) => {
    const { k, v } = layers[layer]!;
    return attention(queries, k, v, stripStarts, batch, scale);
  });
}

type Attend = Required<Pick<CacheStep, "attend" | "stored">>;

function attendWith(layers: readonly LayerKv[], look: Look): Attend {
  return {
    attend: (layer, qkv, slots, batch, scale) => {
      const { k, v } = layers[layer]!;
      kvWrite(qkv, slots, k, v);
      return look(layer, qkv, batch, scale);
    },
    stored: { layers, look },
  };
}
