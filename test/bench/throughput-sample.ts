import type { MeasuredThroughput, ThroughputOptions, TimedStep } from "../../src/bench/throughput.ts";
import { concludeThroughput } from "../../src/bench/throughput-conclude.ts";
import { throughputFigures } from "../../src/bench/throughput-figures.ts";
import { THROUGHPUT_SCHEMA, type ThroughputResults } from "../../src/bench/throughput-results.ts";
import type { WorkloadRequest } from "../../src/bench/workload.ts";
import type { RequestOutput } from "../../src/generate/engine-types.ts";
import { sampleMeasured } from "./sample-results.ts";

export const OPTIONS: ThroughputOptions = { sampling: { temperature: 0, seed: 3 }, ignoreEos: true };
/** Requests that come at once, of so many tokens in and out. */
export const requests = (...lengths: readonly [input: number, output: number][]): WorkloadRequest[] =>
  lengths.map(([input, outputLen]) => ({ prompt: Array(input).fill(1), outputLen, arrival: 0 }));

/** A request submitted at 10 whose tokens came at the times given, with what its prefix cache found. */
export function output(times: readonly number[], more: Partial<RequestOutput> = {}): RequestOutput {
  return {
    id: 0,
    promptTokens: 10,
    cachedTokens: 0,
    completions: [{ index: 0, tokens: times.map(() => 1), text: "", finishReason: "length" }],
    times: { submitted: 10, admitted: 10.25, firstToken: times[0], finished: times.at(-1) },
    tokenTimes: times,
    preemptions: 0,
    ...more,
  };
}

export const step = (time: number, seconds: number, more: Partial<TimedStep> = {}): TimedStep => ({
  step: 0,
  time,
  seconds,
  hostSeconds: seconds / 4,
  tokens: 2,
  sampled: 2,
  running: 2,
  waiting: 0,
  preempted: 0,
  kv: { total: 100, reserved: 50, used: 40, logical: 40 },
  ...more,
});

export const MEASURED: MeasuredThroughput = {
  start: 10,
  duration: 4,
  finished: [
    { index: 0, output: output([11, 11.5, 12.5]) },
    { index: 1, output: output([12]) },
    { index: 3, output: output([11, 13, 14], { cachedTokens: 8, preemptions: 1 }) },
  ],
  refused: [{ index: 2, reason: "too long" }],
  steps: [
    step(1, 1, { tokens: 30, sampled: 2 }),
    step(2, 1, { kv: { total: 100, reserved: 80, used: 80, logical: 100 } }),
    step(4, 2, { tokens: 1, sampled: 1, hostSeconds: 1, waiting: 1 }),
  ],
  counters: {
    prefixQueries: 40,
    prefixHits: 10,
    preemptions: 1,
    recomputedTokens: 12,
    swappedPages: 0,
    computedTokens: 33,
    generatedTokens: 7,
    surplusTokens: 0,
  },
};

export function sampleResults(measured = MEASURED, more: Partial<ThroughputResults> = {}): ThroughputResults {
  const { model, options: _, runs: __, ...environment } = sampleMeasured();
  const percentiles = [50, 90, 99];
  const results = {
    schema: THROUGHPUT_SCHEMA,
    date: "20261123-181530",
    backend: "quire",
    model_id: "novels-en",
    num_prompts: 4,
    request_rate: 2.5,
    burstiness: 1,
    max_concurrency: null,
    ...throughputFigures(measured, percentiles, 0),
    memory: {
      peak_bytes: 3_000_000,
      peak_by_purpose: { weights: 1_000_000, kv: 2_000_000, activations: 0, tables: 0, staging: 0 },
      kv_bytes: 2_000_000,
      max_concurrency: 2.5,
    },
    ...environment,
    model,
    options: {
      dataset: null,
      input_len: "lognormal:20,1",
      output_len: "10",
      prefix_len: 0,
      num_warmups: 4,
      percentiles,
      ignore_eos: true,
      kv_layout: "pages",
      page_size: 16,
      max_seq_len: 64,
      max_sequences: 256,
      max_batched_tokens: 256,
      chunked_prefill: true,
      prefix_cache: true,
      preemption: "recompute",
      watermark: 0.01,
      async: false,
      temperature: 0,
      top_k: 0,
      top_p: 1,
      min_p: 0,
      repetition_penalty: 1,
      seed: "18446744073709551615",
      kernels: "auto",
    },
    conclusion: [],
    ...more,
  } as ThroughputResults;
  return { ...results, conclusion: concludeThroughput(results, measured.steps) };
}
