import type { BufferRange } from "../gpu/recording.ts";
import { lookInPages, lookInStrips, rememberedStep } from "../kv/attend-slots.ts";
import type { LayerKv } from "../kv/cache.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { sampleListed } from "../ops/sample.ts";
import { takeTokens } from "../ops/take-tokens.ts";
import { scope, type Tensor } from "../tensor.ts";
import { batchHead, batchProducts } from "./batch-products.ts";
import type { Gpt2 } from "./gpt2.ts";
import type { Bucket, RaggedArrays } from "./ragged-arrays.ts";
import type { SeenRows } from "./seen-rows.ts";

/** Memory that a step reads and writes beside its scratch. */
export interface StepMemory {
  readonly layers: readonly LayerKv[];
  readonly arrays: RaggedArrays;
  readonly seen: SeenRows;
  /** u32: sampled tokens. */
  readonly ring: Tensor;
  readonly spare: Tensor;
}

/**
 * Add the launches of a step of `bucket`'s size: 8 a layer (7 where a product writes keys and values itself), two before and, where
 * anything is sampled, four behind. Returns where the logits are, [samples, V] f32, undefined without samples; their memory is scratch, so they are there until another step runs.
 */
export function recordRagged(
  model: Gpt2,
  memory: StepMemory,
  layout: "pages" | "strips",
  pageSize: number,
  bucket: Bucket,
): BufferRange | undefined {
  const { gpu } = model;
  const { layers, arrays, seen, ring, spare } = memory;
  const view = (name: Parameters<RaggedArrays["view"]>[1]) => arrays.view(bucket, name);
  const slotTable = view("slotTable");
  const look = layout === "pages" ? lookInPages(slotTable, pageSize) : lookInStrips(slotTable);
  const products = batchProducts(model);
  let range: BufferRange | undefined;
  scope(gpu, () => {
    gpu.stage = "embed";
    const rows = {
      tokenIds: takeTokens(view("tokenIds"), view("sources"), ring),
      positions: view("positions"),
      slotMapping: view("slotMapping"),
      sequenceOf: view("sequenceOf"),
      queryStarts: view("queryStarts"),
      contextLens: view("contextLens"),
      ...(bucket.tiles ? { tiles: view("tiles"), tileRows: arrays.tileRows } : {}),
    };
    const [x] = model.layers([{ rows, products }], rememberedStep(layers, look)); // [T, C]
    if (bucket.samples === 0) return undefined;
    // Only rows that are sampled go on from here.
    const logits = batchHead(model, gatherRows(x!, view("lastRows"))); // [S, V]
    const { allocation, offset, bytes } = logits;
    range = { allocation, offset, bytes };
    gpu.stage = "sample";
    sampleListed({ logits, settings: view("settings"), seen: seen.table, tokens: ring, spare });
    return undefined;
  });
  return range;
}
