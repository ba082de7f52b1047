import type { SlotLookup } from "../ops/decode-attention.ts";
import { flashAttention, matrixFlashAttention } from "../ops/flash-attention.ts";
import type { Tensor } from "../tensor.ts";
import type { CacheStep, LayerKv } from "./cache.ts";

type Look = CacheStep["look"];

/** Attention over pages: pageTable [S, width] u32, the pages of each sequence. */
export function lookInPages(pageTable: Tensor, pageSize: number): Look {
  return lookIn({ part: "slots-paged", table: pageTable, pageSize });
}

/** Attention over strips: stripStarts [S] u32, the first slot of each sequence. */
export function lookInStrips(stripStarts: Tensor): Look {
  return lookIn({ part: "slots-contiguous", table: stripStarts, pageSize: 1 });
}

/** A product by tensor cores gives queries in halves just where attention takes them. */
function lookIn(slots: SlotLookup): Look {
  return ({ k, v }, qkv, batch, scale) =>
    qkv.dtype === "f16"
      ? matrixFlashAttention(qkv, k, v, slots, batch, scale)
      : flashAttention(qkv, k, v, slots, batch, scale);
}

/** What a cache that remembers does for a step. */
export function rememberedStep(layers: readonly LayerKv[], look: Look): Pick<CacheStep, "kv" | "look"> {
  return { kv: (layer) => layers[layer]!, look };
}
