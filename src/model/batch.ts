import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type CacheStep, type KvCache, type Place, sum } from "../kv/cache.ts";
import type { AttentionBatch } from "../ops/attention.ts";
import { attentionTiles, tileSizes } from "../ops/attention-tiles.ts";
import { Tensor } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";

/** The new tokens of one sequence in this step: a prompt, a piece of one, or what follows. */
export interface BatchItem {
  readonly place: Place;
  readonly tokens: readonly number[];
  /** How many of the tokens, the first ones, are of the prompt. Default: all. */
  readonly prompt?: number;
}

/** Rows of a ragged batch, new tokens of its sequences one after another, T in all: the integer arrays that say what each is. */
export interface Rows extends AttentionBatch {
  /** [T] u32. */
  readonly tokenIds: Tensor;
  /** [T] u32: place of each token in its sequence, from 0. */
  readonly positions: Tensor;
  /** [T] u32: the cache slot of each token. */
  readonly slotMapping: Tensor;
}

/** A ragged batch as the GPU sees it. Everything that changes from step to step is in here. */
export interface Batch {
  /** What belongs to prompts, if anything. */
  readonly prompt?: Rows;
  /** What follows prompts, if anything: of the same sequences, in the same order. */
  readonly rest?: Rows;
  /** [S] u32: the row of each sequence's last token, in `rest` where there is one, whose logits choose the next one. */
  readonly lastRows: Tensor;
  readonly step: Pick<CacheStep, "kv" | "look">;
}

/** Rows are one dimension of most dispatches, which WebGPU ends at 65,535 workgroups. */
const MAX_TOKENS = 65_535;

/**
 * Lay out a step: ask the cache for slots, then upload the arrays, which belong to the scope around the call. Prompts have tiles of
 * `tileRows` rows, if given. With `apart` what follows a prompt is kept apart from it. Throws, with nothing changed, on a token
 * outside the vocabulary, a position outside the context, or when the cache is full.
 */
export function makeBatch(
  gpu: Gpu,
  config: ModelConfig,
  cache: KvCache,
  items: readonly BatchItem[],
  { tileRows, apart = false }: { readonly tileRows?: number; readonly apart?: boolean } = {},
): Batch {
  checkItems(config, items);
  const starts = items.map(({ place }) => place.length);
  const step = cache.prepare(items.map(({ place, tokens }) => ({ place, count: tokens.length })));
  const array = (label: string, values: ArrayLike<number>, cols?: number) =>
    Tensor.from(gpu, cols ? [values.length / cols, cols] : [values.length], values, {
      dtype: "u32",
      purpose: "tables",
      label,
    });

  /** The rows of tokens from[s] … to[s] - 1 of each sequence. */
  const rowsOf = (from: readonly number[], to: readonly number[], tiles?: number): Rows => {
    const T = sum(to) - sum(from);
    const [tokenIds, positions, slots, sequenceOf] = Array.from({ length: 4 }, () => new Uint32Array(T));
    const queryStarts = [0];
    let first = 0; // of the sequence's slots
    let t = 0;
    let pairs = 0;
    items.forEach(({ tokens }, s) => {
      const start = starts[s]!;
      slots!.set(step.slotMapping.subarray(first + from[s]!, first + to[s]!), t);
      sequenceOf!.fill(s, t, t + to[s]! - from[s]!);
      for (let i = from[s]!; i < to[s]!; i++, t++) {
        tokenIds![t] = tokens[i]!;
        positions![t] = start + i;
        // A row sees what the cache held of its sequence, and the new tokens up to itself.
        pairs += start + i + 1;
      }
      first += tokens.length;
      queryStarts.push(t);
    });
    const contextLens = to.map((end, s) => starts[s]! + end);
    return {
      tokenIds: array("token ids", tokenIds!),
      positions: array("positions", positions!),
      slotMapping: array("slot mapping", slots!),
      sequenceOf: array("sequence of", sequenceOf!),
      queryStarts: array("query starts", queryStarts),
      contextLens: array("context lens", contextLens),
      ...(tiles ? tilesOf(queryStarts, tiles) : {}),
      work: { keys: sum(contextLens), pairs },
    };
  };

  const tilesOf = (queryStarts: readonly number[], tileRows: number) => ({
    tiles: array("tiles", attentionTiles(queryStarts, tileRows), 2),
    tileRows,
    tileSizes: tileSizes(
      items.map((_, s) => queryStarts[s + 1]! - queryStarts[s]!),
      tileRows,
    ),
  });
  const none = items.map(() => 0);
  const all = items.map(({ tokens }) => tokens.length);
  const ends = items.map(({ tokens, prompt = tokens.length }) => (apart ? prompt : tokens.length));
  const hasRest = ends.some((end, s) => end < all[s]!);
  const from = hasRest ? ends : none;
  let row = -1;
  const lastRows = all.map((end, s) => {
    row += end - from[s]!;
    return row;
  });
  return {
    ...(ends.some((end) => end > 0) ? { prompt: rowsOf(none, ends, tileRows) } : {}),
    ...(hasRest ? { rest: rowsOf(ends, all) } : {}),
    lastRows: array("last rows", lastRows),
    step,
  };
}

function checkItems({ vocabSize, contextLength }: ModelConfig, items: readonly BatchItem[]): void {
  check(
    items.length > 0 && items.every((i) => i.tokens.length > 0),
    "batch: each sequence needs at least one new token",
  );
  const count = sum(items.map(({ tokens }) => tokens.length));
  check(
    count <= MAX_TOKENS,
    `batch: ${count} new tokens in one step; at most ${MAX_TOKENS}, so give it in pieces`,
  );
  const isLonger = ({ tokens, prompt = tokens.length }: BatchItem) => prompt < tokens.length;
  check(
    items.every(isLonger) || !items.some(isLonger),
    "batch: some sequences have tokens behind their prompts and some have not; wanted all or none",
  );
  for (const { place, tokens } of items) {
    for (const id of tokens)
      if (!(id >>> 0 === id && id < vocabSize))
        check(false, `token id ${id} is out of vocabulary (0..${vocabSize - 1})`);
    const length = place.length + tokens.length;
    check(
      length <= contextLength,
      () => `a sequence of ${length} tokens does not fit the model's context of ${contextLength}`,
    );
  }
}
