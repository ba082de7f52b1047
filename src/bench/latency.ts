import { BadInput } from "../check.ts";
import { generate } from "../generate/generate.ts";
import { philox4x32, seedWords } from "../generate/random.ts";
import type { SamplingOptions } from "../generate/sampler.ts";
import { Sequence } from "../generate/sequence.ts";
import { type CacheMode, type KvCache, slotBytes } from "../kv/cache.ts";
import { makeCache } from "../kv/make-cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { timingOf } from "./kv.ts";
import { decodeWeightBytes, type LatencyIteration, type LatencyShape } from "./latency-results.ts";
import type { Timing } from "./results.ts";

// The latency of one batch, as `vllm bench latency` measures it: random prompts of one length, a fixed number of new tokens
// each, the whole again and again.

export interface LatencyOptions {
  readonly batchSize: number;
  /** Tokens of each prompt, and new tokens of each sequence; an end-of-text token is one like any other. */
  readonly inputLen: number;
  readonly outputLen: number;
  /** Iterations before the measured ones: they compile the kernels and fill the pool of buffers. */
  readonly warmup: number;
  readonly iterations: number;
  readonly timing: Timing;
  readonly kv: CacheMode;
  readonly kvDtype: "f32" | "f16";
  readonly pageSize: number;
  /** See GenerateOptions. */
  readonly prefillChunk?: number;
  readonly sampling: SamplingOptions;
  readonly signal?: AbortSignal;
  /** Called after every iteration, warm-up included. */
  readonly onIteration?: (done: number, total: number) => void;
}

export interface MeasuredLatency {
  /** The measured iterations that came to their end. */
  readonly iterations: LatencyIteration[];
  readonly shape: LatencyShape;
  /** What ended the experiment early: an error, or the signal's reason. */
  readonly error?: Error;
}

/**
 * Run the batch `warmup` + `iterations` times with one cache. Model, cache and prompts are made before the clock starts.
 * An error or the signal ends it, and the iterations before are kept. Throws BadInput when the lengths do not fit the
 * model, OutOfMemory when the cache does not fit the device.
 */
export async function measureLatency(model: Gpt2, options: LatencyOptions): Promise<MeasuredLatency> {
  const { batchSize, inputLen, outputLen, warmup, iterations: wanted, signal } = options;
  checkLatencyLengths(model, options);
  const prompts = randomPrompts(model.config.vocabSize, options);
  const cacheShape = model.cacheShape(options.kvDtype);
  const shape: LatencyShape = {
    batchSize,
    inputLen,
    outputLen,
    weightBytes: decodeWeightBytes(model),
    slotBytes: options.kv === "none" ? 0 : slotBytes(cacheShape),
  };
  const cache = makeCache(model.gpu, cacheShape, {
    mode: options.kv,
    sequences: batchSize,
    contextLength: model.config.contextLength,
    expectedLength: inputLen + outputLen,
    maxSeqLen: inputLen + outputLen,
    pageSize: options.pageSize,
  });
  const iterations: LatencyIteration[] = [];
  try {
    for (let i = 0; i < warmup + wanted; i++) {
      const iteration = await runBatch(model, cache, prompts, options);
      if (i >= warmup) iterations.push(iteration);
      options.onIteration?.(i + 1, warmup + wanted);
      signal?.throwIfAborted();
    }
    return { iterations, shape };
  } catch (error) {
    return { iterations, shape, error: error as Error };
  } finally {
    cache.free();
  }
}

/** Throws BadInput when a sequence would not fit the model's context. */
export function checkLatencyLengths(
  { config }: Gpt2,
  { inputLen, outputLen }: Pick<LatencyOptions, "inputLen" | "outputLen">,
): void {
  if (inputLen + outputLen > config.contextLength)
    throw new BadInput(
      `--input-len is ${inputLen} and --output-len is ${outputLen}; together at most the model's context of ${config.contextLength}`,
    );
}

/** A prompt of random ids for each sequence: the same for the same seed, others than the numbers that sampling draws. */
export function randomPrompts(
  vocabSize: number,
  { batchSize, inputLen, sampling }: Pick<LatencyOptions, "batchSize" | "inputLen" | "sampling">,
): number[][] {
  const key = seedWords(sampling.seed);
  return Array.from({ length: batchSize }, (_, s) =>
    Array.from({ length: inputLen }, (_, i) => philox4x32([i, s, 1, 0], key)[0] % vocabSize),
  );
}

/** One iteration; throws the signal's reason when it was aborted meanwhile. */
async function runBatch(
  model: Gpt2,
  cache: KvCache,
  prompts: readonly (readonly number[])[],
  options: LatencyOptions,
): Promise<LatencyIteration> {
  const sequences = prompts.map(
    (prompt, id) =>
      new Sequence({
        id,
        prompt,
        maxNewTokens: options.outputLen,
        contextLength: model.config.contextLength,
        sampling: options.sampling,
        ignoreEos: true,
      }),
  );
  const timing = timingOf(options.kv, options.timing);
  let firstTokenSeconds = 0;
  let surplus = 0;
  const start = performance.now();
  for await (const step of generate(model, cache, sequences, {
    timing,
    prefillChunk: options.prefillChunk,
  })) {
    if (step.step === 0) firstTokenSeconds = (performance.now() - start) / 1e3;
    surplus = step.surplus;
    options.signal?.throwIfAborted();
  }
  return { seconds: (performance.now() - start) / 1e3, firstTokenSeconds, surplus };
}
