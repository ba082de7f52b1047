import { type GeneratedStep, generate } from "../generate/generate.ts";
import type { SamplingOptions } from "../generate/sampler.ts";
import { Sequence } from "../generate/sequence.ts";
import { DeviceLost } from "../gpu/errors.ts";
import { type ByPurpose, PURPOSES } from "../gpu/memory.ts";
import type { CacheMode } from "../kv/cache.ts";
import { type CacheOptions, checkFits, makeCache } from "../kv/make-cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { streamAfter, type Tokenizer } from "../tokenizer.ts";
import type { SequenceResult } from "./batch-results.ts";
import { batchLengths, checkPool, poolPages } from "./kv-batch.ts";
import type { RunResult, StepResult, Timing } from "./results.ts";

// The three-way experiment: the same prompt, sampler and seed, generated without a KV cache, with a contiguous one and
// with a paged one. docs/experiment.md explains what each figure means.

export interface KvBenchOptions {
  readonly modes: readonly CacheMode[];
  readonly promptIds: readonly number[];
  /** Of the longest sequence. */
  readonly newTokens: number;
  /** Sequences at once, as `batchLengths` has them. Default 1. */
  readonly batch?: number;
  readonly sampling: SamplingOptions;
  readonly ignoreEos: boolean;
  /** Measured runs of each mode. */
  readonly repeat: number;
  /** Runs of each mode before those, not measured: they compile the kernels. */
  readonly warmup: number;
  /** How steps are timed, in the modes that can do both; see timingOf. */
  readonly timing: Timing;
  readonly kvDtype: "f32" | "f16";
  readonly pageSize: number;
  /** See GenerateOptions. */
  readonly prefillChunk?: number;
  readonly maxSeqLen?: number;
  readonly kvPages?: number;
  readonly signal?: AbortSignal;
  /** Called after every step, warm-up included. */
  readonly onStep?: (mode: CacheMode, stepsDone: number) => void;
}

export interface KvBenchRuns {
  readonly runs: RunResult[];
  /** What ended the experiment early: the first error of a mode, or the signal's reason. */
  readonly error?: Error;
}

/**
 * Measure every mode: all warm-ups first, then repeat by repeat all modes in turn, so that a machine that slows down
 * slows every mode. An error ends its mode, what was measured is kept, and the other modes go on, unless the device is
 * gone.
 */
export async function measureKv(
  model: Gpt2,
  tokenizer: Tokenizer,
  options: KvBenchOptions,
): Promise<KvBenchRuns> {
  const runs: RunResult[] = [];
  const failed = new Set<CacheMode>();
  let error: Error | undefined;
  let done = 0;
  for (let repeat = 1 - options.warmup; repeat <= options.repeat; repeat++) {
    for (const mode of options.modes) {
      if (failed.has(mode)) continue;
      const outcome = await runOnce(model, tokenizer, mode, repeat, options, () =>
        options.onStep?.(mode, ++done),
      );
      if (repeat >= 1 && outcome.run.steps.length > 0) runs.push(outcome.run);
      if (!outcome.error) continue;
      error ??= outcome.error;
      failed.add(mode);
      if (options.signal?.aborted || outcome.error instanceof DeviceLost) return { runs, error };
    }
  }
  return { runs, error };
}

/** How the steps of a mode are timed: without a cache no step is submitted before the token of the one before is known. */
export function timingOf(mode: CacheMode, wanted: Timing): Timing {
  return mode === "none" ? "visible" : wanted;
}

type CacheNeeds = Pick<
  KvBenchOptions,
  "promptIds" | "newTokens" | "batch" | "maxSeqLen" | "pageSize" | "kvPages"
>;

/** The cache of one run. */
function cacheOptions(model: Gpt2, mode: CacheMode, options: CacheNeeds): CacheOptions {
  const { promptIds, newTokens, batch = 1, maxSeqLen, pageSize, kvPages } = options;
  return {
    mode,
    sequences: batch,
    contextLength: model.config.contextLength,
    expectedLength: promptIds.length + newTokens,
    maxSeqLen,
    pageSize,
    pages: kvPages ?? poolPages(promptIds.length, batchLengths(batch, newTokens), pageSize),
  };
}

/** Refuse a run that its cache could not finish, before it begins. Throws BadInput. */
export function checkCache(model: Gpt2, mode: CacheMode, options: CacheNeeds): void {
  const { promptIds, newTokens, batch = 1, pageSize, kvPages } = options;
  if (mode !== "paged" || batch === 1) checkFits(cacheOptions(model, mode, options));
  else if (kvPages !== undefined)
    checkPool(kvPages, promptIds.length, batchLengths(batch, newTokens), pageSize);
}

/** The sequences of one run, sequence 0 first. */
function makeSequences(model: Gpt2, tokenizer: Tokenizer, options: KvBenchOptions): Sequence[] {
  return batchLengths(options.batch ?? 1, options.newTokens).map(
    (maxNewTokens, id) =>
      new Sequence({
        id,
        prompt: options.promptIds,
        maxNewTokens,
        contextLength: model.config.contextLength,
        sampling: options.sampling,
        eosIds: model.config.eosTokenIds,
        ignoreEos: options.ignoreEos,
        textStream: streamAfter(tokenizer, options.promptIds, { skipSpecialTokens: true }),
      }),
  );
}

async function runOnce(
  model: Gpt2,
  tokenizer: Tokenizer,
  mode: CacheMode,
  repeat: number,
  options: KvBenchOptions,
  onStep: () => void,
): Promise<{ run: RunResult; error?: Error }> {
  const sequences = makeSequences(model, tokenizer, options);
  const isBatch = sequences.length > 1;
  const timing = timingOf(mode, options.timing);
  const { prefillChunk } = options;
  const steps: StepResult[] = [];
  let surplus = 0;
  let peakBytes = 0;
  const peakByPurpose: ByPurpose = { weights: 0, kv: 0, activations: 0, tables: 0, staging: 0 };
  let error: Error | undefined;
  let totalSeconds = 0;
  let timeToFirstTokenSeconds = 0;
  try {
    // Buffers and params that the run before left for reuse are not this run's.
    model.gpu.trim();
    const cache = makeCache(model.gpu, model.cacheShape(options.kvDtype), cacheOptions(model, mode, options));
    const start = performance.now();
    try {
      for await (const step of generate(model, cache, sequences, { timing, prefillChunk })) {
        totalSeconds = (performance.now() - start) / 1e3;
        if (step.step === 0) timeToFirstTokenSeconds = totalSeconds;
        surplus = step.surplus;
        steps.push(stepResult(step, options.promptIds.length, isBatch));
        peakBytes = Math.max(peakBytes, step.memory.peak);
        for (const p of PURPOSES) peakByPurpose[p] = Math.max(peakByPurpose[p], step.memory.peakByPurpose[p]);
        onStep();
        options.signal?.throwIfAborted();
      }
    } finally {
      cache.free();
    }
  } catch (thrown) {
    error = thrown as Error;
  }
  const results = sequences.map((s) => sequenceResult(s, error !== undefined));
  const { tokens, text, finishReason } = results[0]!;
  const run: RunResult = {
    mode,
    repeat,
    timing,
    tokens,
    text,
    finishReason: error ? "error" : finishReason,
    steps,
    surplus,
    totalSeconds,
    timeToFirstTokenSeconds,
    peakBytes,
    peakByPurpose,
    ...(isBatch && { sequences: results }),
  };
  return { run, error };
}

function stepResult(step: GeneratedStep, promptLength: number, isBatch: boolean): StepResult {
  return {
    step: step.step + 1,
    tokenId: step.tokens[0]!.token,
    contextLength: promptLength + step.step,
    newTokensComputed: step.computedTokens,
    seconds: step.seconds,
    gpuMemoryBytes: step.memory.current,
    gpuPeakBytes: step.memory.peak,
    memoryByPurpose: step.memory.byPurpose,
    kvAllocatedBytes: step.kv.allocated,
    kvReservedBytes: step.kv.reserved,
    kvUsedBytes: step.kv.used,
    ...(isBatch && { sequences: step.tokens.length }),
  };
}

/** What became of a sequence; one that had not ended when the run broke off ends with "error". */
function sequenceResult(sequence: Sequence, brokeOff: boolean): SequenceResult {
  const { id, maxNewTokens, promptLength, text, finishReason } = sequence;
  return {
    id,
    newTokens: maxNewTokens,
    tokens: sequence.tokens.slice(promptLength),
    text,
    finishReason: finishReason ?? (brokeOff ? "error" : "length"),
  };
}
