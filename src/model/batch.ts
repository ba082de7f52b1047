import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { CacheStep, KvCache, Place } from "../kv/cache.ts";
import type { AttentionBatch } from "../ops/attention.ts";
import { Tensor } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";

/** The new tokens of one sequence in this step: a prompt, a piece of one, or the last token alone. */
export interface BatchItem {
  readonly place: Place;
  readonly tokens: readonly number[];
}

/**
 * A ragged batch as the GPU sees it: the new tokens of all sequences one after another, T in all, with the integer
 * arrays that say what each row is. Everything that changes from step to step is in here.
 */
export interface Batch extends AttentionBatch {
  /** [T] u32. */
  readonly tokenIds: Tensor;
  /** [T] u32: place of each token in its sequence, from 0. */
  readonly positions: Tensor;
  /** [T] u32: the cache slot of each token. */
  readonly slotMapping: Tensor;
  /** [S] u32: the row of each sequence's last token, whose logits choose the next one. */
  readonly lastRows: Tensor;
  readonly step: Pick<CacheStep, "attend" | "stored">;
}

/** Rows are one dimension of most dispatches, which WebGPU ends at 65,535 workgroups. */
const MAX_TOKENS = 65_535;

/**
 * Lay out a step: ask the cache for slots, then upload the arrays, which belong to the scope around the call. Throws, with
 * nothing changed, on a token outside the vocabulary, a position outside the context, or when the cache is full.
 */
export function makeBatch(gpu: Gpu, config: ModelConfig, cache: KvCache, items: readonly BatchItem[]): Batch {
  check(
    items.length > 0 && items.every((i) => i.tokens.length > 0),
    "batch: each sequence needs at least one new token",
  );
  const count = items.reduce((n, item) => n + item.tokens.length, 0);
  check(
    count <= MAX_TOKENS,
    `batch: ${count} new tokens in one step; at most ${MAX_TOKENS}, so give it in pieces`,
  );
  const tokenIds: number[] = [];
  const positions: number[] = [];
  const sequenceOf: number[] = [];
  const queryStarts = [0];
  const contextLens: number[] = [];
  items.forEach(({ place, tokens }, s) => {
    tokens.forEach((id, i) => {
      check(
        Number.isInteger(id) && id >= 0 && id < config.vocabSize,
        () => `token id ${id} is out of vocabulary (0..${config.vocabSize - 1})`,
      );
      tokenIds.push(id);
      positions.push(place.length + i);
      sequenceOf.push(s);
    });
    queryStarts.push(tokenIds.length);
    const length = place.length + tokens.length;
    check(
      length <= config.contextLength,
      () => `a sequence of ${length} tokens does not fit the model's context of ${config.contextLength}`,
    );
    contextLens.push(length);
  });

  // Row i of an item sees what the cache held of its sequence, and i + 1 new tokens.
  const pairs = positions.reduce((sum, position) => sum + position + 1, 0);
  const keys = contextLens.reduce((sum, length) => sum + length, 0);
  const step = cache.prepare(items.map(({ place, tokens }) => ({ place, count: tokens.length })));
  const array = (label: string, values: ArrayLike<number>) =>
    Tensor.from(gpu, [values.length], values, { dtype: "u32", purpose: "tables", label });
  return {
    tokenIds: array("token ids", tokenIds),
    positions: array("positions", positions),
    slotMapping: array("slot mapping", step.slotMapping),
    sequenceOf: array("sequence of", sequenceOf),
    queryStarts: array("query starts", queryStarts),
    contextLens: array("context lens", contextLens),
    lastRows: array(
      "last rows",
      queryStarts.slice(1).map((end) => end - 1),
    ),
    step,
    work: { keys, pairs },
  };
}
