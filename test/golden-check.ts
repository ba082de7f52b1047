import { readFileSync } from "node:fs";
import { join } from "node:path";
import { generate } from "../src/generate/generate.ts";
import { perplexity } from "../src/generate/perplexity.ts";
import { Sequence } from "../src/generate/sequence.ts";
import type { Gpu } from "../src/gpu/gpu.ts";
import type { CacheMode, KvCache } from "../src/kv/cache.ts";
import { makeCache } from "../src/kv/make-cache.ts";
import { Gpt2 } from "../src/model/gpt2.ts";
import { argmax } from "../src/ops/argmax.ts";
import { PROJECT_FOLDER } from "../src/packages.ts";
import { scope } from "../src/tensor.ts";
import { loadTokenizer, type Tokenizer } from "../src/tokenizer.ts";
import {
  type Difference,
  difference,
  firstDifference,
  GOLDEN_FOLDER,
  type GoldenFile,
  type IdDifference,
  readGolden,
} from "./golden-file.ts";

// A model beside its golden data, as plain figures. No test runner in here: vitest, the script for Deno and a run on a
// real GPU all measure with these functions, and each judges the figures itself.

/** What a run with a cache of one mode needs to know beforehand. */
interface CacheNeeds {
  readonly sequences?: number;
  readonly expectedLength: number;
  readonly kvDtype?: "f32" | "f16";
}

/** Run `body` with a fresh cache, and free it. */
export async function withCache<T>(
  model: Gpt2,
  mode: CacheMode,
  { sequences = 1, expectedLength, kvDtype = "f32" }: CacheNeeds,
  body: (cache: KvCache) => Promise<T>,
): Promise<T> {
  const { contextLength } = model.config;
  const cache = makeCache(model.gpu, model.cacheShape(kvDtype), {
    mode,
    sequences,
    contextLength,
    expectedLength,
  });
  try {
    return await body(cache);
  } finally {
    cache.free();
  }
}

/** Logits after every token of `ids`, [T, V], computed in one step. */
export function allLogits(
  model: Gpt2,
  mode: CacheMode,
  ids: readonly number[],
  kvDtype?: "f32" | "f16",
): Promise<Float32Array> {
  return withCache(model, mode, { expectedLength: ids.length, kvDtype }, async (cache) => {
    const hidden = model.hidden(cache, [{ place: cache.open(), tokens: ids }]);
    const logits = model.head(hidden);
    try {
      return await logits.read();
    } finally {
      hidden.free();
      logits.free();
    }
  });
}

/** Logits after the last token of each prompt, [V] each: one ragged step for all prompts. */
export function lastLogits(
  model: Gpt2,
  mode: CacheMode,
  prompts: readonly (readonly number[])[],
): Promise<Float32Array[]> {
  const expectedLength = Math.max(...prompts.map((p) => p.length));
  return withCache(model, mode, { sequences: prompts.length, expectedLength }, async (cache) => {
    const logits = model.forward(
      cache,
      prompts.map((tokens) => ({ place: cache.open(), tokens })),
    );
    try {
      const values = await logits.read();
      return prompts.map((_, i) => values.slice(i * logits.cols, (i + 1) * logits.cols));
    } finally {
      logits.free();
    }
  });
}

/** `count` greedy tokens for each prompt, all prompts in one ragged batch, by `generate`. */
export function greedyTokens(
  model: Gpt2,
  mode: CacheMode,
  prompts: readonly (readonly number[])[],
  count: number,
): Promise<number[][]> {
  const sequences = prompts.map(
    (prompt, id) =>
      new Sequence({
        id,
        prompt,
        maxNewTokens: count,
        contextLength: model.config.contextLength,
        sampling: { temperature: 0, seed: 0 },
        ignoreEos: true,
      }),
  );
  const expectedLength = Math.max(...prompts.map((p) => p.length)) + count;
  return withCache(model, mode, { sequences: prompts.length, expectedLength }, async (cache) => {
    for await (const _step of generate(model, cache, sequences));
    return sequences.map((s) => s.tokens.slice(s.promptLength));
  });
}

/** test/golden/novels-*.json, as far as it is used here. */
interface NovelsJson {
  readonly prompts: readonly {
    readonly prompt: string;
    readonly add_special_tokens: boolean;
    readonly ids: readonly number[];
    readonly greedy: readonly number[];
    /** Smallest distance between the two best logits on the way. */
    readonly min_margin: number;
  }[];
  readonly perplexity: {
    readonly ids: readonly number[];
    readonly windows: readonly { readonly start: number; readonly count: number; readonly nll: number }[];
  };
}

/** One of the trained models with its golden data. */
export interface Novels {
  readonly model: Gpt2;
  readonly tokenizer: Tokenizer;
  readonly json: NovelsJson;
  readonly golden: GoldenFile;
}

export async function loadNovels(gpu: Gpu, language: "en" | "zh"): Promise<Novels> {
  const folder = join(PROJECT_FOLDER, "weights", `novels-${language}`);
  const golden = join(GOLDEN_FOLDER, `novels-${language}`);
  return {
    model: await Gpt2.load(gpu, folder),
    tokenizer: await loadTokenizer(folder),
    json: JSON.parse(readFileSync(`${golden}.json`, "utf8")),
    golden: await readGolden(`${golden}.safetensors`),
  };
}

/** Of each prompt: where the tokenizer's ids leave the golden ones. */
export function novelsIds({ tokenizer, json }: Novels): (IdDifference | null)[] {
  return json.prompts.map(({ prompt, add_special_tokens: addSpecialTokens, ids }) =>
    firstDifference(tokenizer.encode(prompt, { addSpecialTokens }), ids),
  );
}

/** Of each prompt: how far the logits after it are from the golden ones. */
export async function novelsLogits(
  { model, json, golden }: Novels,
  mode: CacheMode,
  prompts = json.prompts.length,
): Promise<Difference[]> {
  const some = json.prompts.slice(0, prompts);
  const all = await lastLogits(
    model,
    mode,
    some.map((p) => p.ids),
  );
  return all.map((logits, i) => difference(logits, golden.floats(`last_logits.${i}`)));
}

/** Of each prompt: where the first `count` greedy tokens leave the golden ones; 64 are known. */
export async function novelsGreedy(
  { model, json }: Novels,
  mode: CacheMode,
  { prompts = json.prompts.length, count = 64 } = {},
): Promise<(IdDifference | null)[]> {
  const some = json.prompts.slice(0, prompts);
  const all = await greedyTokens(
    model,
    mode,
    some.map((p) => p.ids),
    count,
  );
  return all.map((tokens, i) => {
    const golden = some[i]!.greedy;
    if (golden.length < count) throw new Error(`prompt ${i}: only ${golden.length} golden tokens`);
    return firstDifference(tokens, golden.slice(0, count));
  });
}

/**
 * Of each prompt: where the choice after each token of prompt and golden tokens leaves them. All prompts and their golden
 * tokens are computed in one ragged step, so this costs what one step of `novelsGreedy` without a cache costs.
 */
export function novelsChoices({ model, json }: Novels, mode: CacheMode): Promise<(IdDifference | null)[]> {
  const texts = json.prompts.map(({ ids, greedy }) => [...ids, ...greedy.slice(0, -1)]);
  const expectedLength = Math.max(...texts.map((t) => t.length));
  return withCache(model, mode, { sequences: texts.length, expectedLength }, async (cache) => {
    const items = texts.map((tokens) => ({ place: cache.open(), tokens }));
    const best = scope(model.gpu, () => argmax(model.head(model.hidden(cache, items))));
    const choices = Array.from(await best.readIntegers());
    best.free();
    return json.prompts.map(({ ids, greedy }) => {
      const ofPrompt = choices.splice(0, ids.length - 1 + greedy.length);
      return firstDifference(ofPrompt.slice(ids.length - 1), greedy);
    });
  });
}

/** The first window of the golden text: predictions made, and the relative error of their summed −log p. */
export async function novelsPerplexity({ model, json }: Novels, mode: CacheMode) {
  const [window] = json.perplexity.windows;
  // The token after the window's last one is still predicted.
  const ids = json.perplexity.ids.slice(window!.start, window!.start + window!.count + 1);
  const { count, windows } = await withCache(model, mode, { expectedLength: window!.count }, (cache) =>
    perplexity(model, cache, ids),
  );
  return { count, relativeError: Math.abs(windows[0]!.nll / window!.nll - 1) };
}

/** A checkpoint that shared/gpu/make_gpt2.py wrote, with the golden data beside its weights. */
export interface TrueSize {
  readonly model: Gpt2;
  /** Of the golden ids, those that the golden greedy tokens continue. */
  readonly prompt: readonly number[];
  readonly ids: readonly number[];
  readonly logits: Float32Array;
  readonly greedy: readonly number[];
  /** Smallest distance between the two best logits on the way. */
  readonly minMargin: number;
}

/** Tokens of the golden ids that make_gpt2.py continues. */
const PROMPT_LENGTH = 32;

export async function loadTrueSize(gpu: Gpu, folder: string): Promise<TrueSize> {
  const golden = await readGolden(join(folder, "golden.safetensors"));
  const ids = golden.integers("input_ids");
  return {
    model: await Gpt2.load(gpu, folder),
    prompt: ids.slice(0, PROMPT_LENGTH),
    ids,
    logits: golden.floats("logits"),
    greedy: golden.integers("greedy"),
    minMargin: golden.floats("min_margin")[0]!,
  };
}

/** The logits of all rows, and where the greedy tokens leave the golden ones. */
export async function checkTrueSize(
  { model, prompt, ids, logits, greedy }: TrueSize,
  mode: CacheMode,
): Promise<{ logits: Difference; greedy: IdDifference | null }> {
  const tokens = await greedyTokens(model, mode, [prompt], greedy.length);
  return {
    logits: difference(await allLogits(model, mode, ids), logits),
    greedy: firstDifference(tokens[0]!, greedy),
  };
}
