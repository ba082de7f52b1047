import { BadInput, check } from "../check.ts";
import type { CacheMode, KvCache } from "../kv/cache.ts";
import { makeCache } from "../kv/make-cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { prefill as computePrompts } from "../model/prefill.ts";
import { randomPrompts } from "./latency.ts";
import { otherWay, sameLogits } from "./prefill-check.ts";
import type { MeasuredPrefill, PrefillCase } from "./prefill-figures.ts";
import { caseName } from "./prefill-results.ts";
import { untilWarm } from "./throughput.ts";

// Prompt processing alone, as ../shared/gpu/hf_reference.py measures Hugging Face's: random prompts of one length, keys and values
// written to a cache, logits of the last token of each sequence, left on the GPU.

export interface PrefillOptions {
  readonly cases: readonly PrefillCase[];
  /** Iterations before the measured ones; on a GPU they go on until its clocks are up. 0: none. */
  readonly warmup: number;
  readonly iterations: number;
  readonly kv: CacheMode;
  readonly kvDtype: "f32" | "f16";
  readonly pageSize: number;
  /** Most rows computed at once, see `prefill`: it bounds the activations. */
  readonly prefillChunk: number;
  readonly seed: number | bigint;
  readonly signal?: AbortSignal;
  /** Called after every iteration, those before the measured ones included: of all cases together, and in which case. */
  readonly onIteration?: (done: number, total: number, name: string) => void;
}

export interface MeasuredPrefills {
  readonly measured: readonly MeasuredPrefill[];
  /** Cases that failed; those after them were still tried. */
  readonly failures: readonly { readonly prefill: PrefillCase; readonly error: Error }[];
  /** The signal's reason, when it ended the experiment early. */
  readonly aborted?: Error;
}

/** The first, which is timed by itself, and the other way that it is checked against. */
const BEFORE_WARMUP = 2;

/** "1x128,8x1024" as cases. Throws BadInput. */
export function parseCases(text: string): PrefillCase[] {
  return text.split(",").map((item) => {
    const [, batch, tokens] = item.trim().match(/^(\d{1,6})\s*[x×]\s*(\d{1,7})$/i) ?? [];
    if (!(Number(batch) >= 1 && Number(tokens) >= 1))
      throw new BadInput(
        `--cases is "${text}"; wanted sequences x tokens, separated by commas, such as 1x128,8x1024`,
      );
    return [Number(batch), Number(tokens)];
  });
}

/** Throws BadInput when a prompt would not fit the model's context. */
export function checkCases({ config }: Gpt2, cases: readonly PrefillCase[]): void {
  for (const prefill of cases)
    if (prefill[1] > config.contextLength)
      throw new BadInput(
        `--cases has ${caseName(prefill)}; a prompt has at most the model's context of ${config.contextLength} tokens`,
      );
}

/** Measure the cases one after the other, each with a cache of its own. What one fails with does not lose the others. */
export async function measurePrefills(model: Gpt2, options: PrefillOptions): Promise<MeasuredPrefills> {
  const measured: MeasuredPrefill[] = [];
  const failures: { prefill: PrefillCase; error: Error }[] = [];
  const each = BEFORE_WARMUP + options.warmup + options.iterations;
  for (const [i, prefill] of options.cases.entries()) {
    let done = 0;
    // A warm-up by time has more iterations than were planned.
    const onIteration = () => {
      done = Math.min(done + 1, each);
      options.onIteration?.(i * each + done, options.cases.length * each, caseName(prefill));
      options.signal?.throwIfAborted();
    };
    try {
      measured.push(await measureCase(model, prefill, options, onIteration));
    } catch (error) {
      if (options.signal?.aborted) return { measured, failures, aborted: error as Error };
      failures.push({ prefill, error: error as Error });
    }
  }
  return { measured, failures };
}

/** Check one case, warm up, measure. Throws what goes wrong, and what `onIteration` throws. */
async function measureCase(
  model: Gpt2,
  prefill: PrefillCase,
  options: PrefillOptions,
  onIteration: () => void,
): Promise<MeasuredPrefill> {
  const { gpu, config } = model;
  const [batchSize, inputLen] = prefill;
  const sampling = { temperature: 0, seed: options.seed };
  const prompts = randomPrompts(config.vocabSize, { batchSize, inputLen, sampling });
  // What the case before left for reuse is not this one's memory.
  await gpu.finish();
  gpu.trim();
  const cache = caseCache(model, prefill, options);
  try {
    const first = await timePrompts(model, cache, prompts, options, true);
    onIteration();
    const other = await otherWay(model, cache, prompts);
    const { failure, ...checked } = sameLogits(first.logits!, other, model);
    check(failure === undefined, () => `${failure}; nothing was timed`);
    onIteration();
    gpu.trim();
    gpu.memory.resetPeak();
    await untilWarm(gpu.info.software || options.warmup === 0, async () => {
      for (let i = 0; i < options.warmup; i++) {
        await timePrompts(model, cache, prompts, options);
        onIteration();
      }
    });
    const iterations: TimedPrompts[] = [];
    for (let i = 0; i < options.iterations; i++) {
      iterations.push(await timePrompts(model, cache, prompts, options));
      onIteration();
    }
    return {
      prefill,
      iterations,
      firstSeconds: first.seconds,
      peakBytes: gpu.memory.peak,
      peakByPurpose: gpu.memory.peakByPurpose,
      check: checked,
    };
  } finally {
    cache.free();
  }
}

function caseCache(model: Gpt2, [batch, tokens]: PrefillCase, { kv, kvDtype, pageSize }: PrefillOptions) {
  return makeCache(model.gpu, model.cacheShape(kvDtype), {
    mode: kv,
    // A prompt of one token is checked beside itself.
    sequences: tokens === 1 ? Math.max(batch, 2) : batch,
    contextLength: model.config.contextLength,
    expectedLength: tokens,
    maxSeqLen: tokens,
    pageSize,
  });
}

interface TimedPrompts {
  readonly seconds: number;
  /** Of these, until the host had recorded the step. */
  readonly hostSeconds: number;
  /** [S, V], where they were asked for; after the clock was stopped. */
  readonly logits?: Float32Array;
}

/** One iteration: from places in the cache until the GPU is done. */
async function timePrompts(
  model: Gpt2,
  cache: KvCache,
  prompts: readonly (readonly number[])[],
  { prefillChunk }: PrefillOptions,
  wantsLogits = false,
): Promise<TimedPrompts> {
  const start = performance.now();
  const items = prompts.map((tokens) => ({ place: cache.open(), tokens }));
  try {
    const logits = computePrompts(model, cache, items, prefillChunk);
    try {
      const recorded = performance.now();
      await model.gpu.finish();
      const end = performance.now();
      const times = { seconds: (end - start) / 1e3, hostSeconds: (recorded - start) / 1e3 };
      return wantsLogits ? { ...times, logits: await logits.read() } : times;
    } finally {
      logits.free();
    }
  } finally {
    for (const { place } of items) cache.close(place);
  }
}
