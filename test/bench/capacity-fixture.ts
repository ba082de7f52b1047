/** A small capacity experiment, simulated: 40 requests in 384 slots, strips of 64. */
import { type CapacityOptions, type CapacityRuns, runCapacity } from "../../src/bench/capacity.ts";
import { MIXES, type Mix, mixRequests } from "../../src/bench/capacity-cases.ts";
import { completeCapacity } from "../../src/bench/capacity-conclude.ts";
import type { CapacityResults, MeasuredCapacityResults } from "../../src/bench/capacity-results.ts";
import type { WorkloadRequest } from "../../src/bench/workload.ts";
import { sampleMeasured } from "./sample-results.ts";

const MAX_SEQ_LEN = 64;
export const KV_TOKENS = 384;
const PREFIX = 20;

export const OPTIONS: CapacityOptions = {
  pageSizes: [8, 16, 256],
  budget: { kvTokens: KV_TOKENS, maxSeqLen: MAX_SEQ_LEN, watermark: 0.01 },
  measure: "none",
  kvDtype: "f32",
  warmup: false,
  maxSequences: 64,
  maxBatchedTokens: 48,
  chunkedPrefill: true,
  preemption: "recompute",
  contextLength: MAX_SEQ_LEN,
};

export const REQUESTS: ReadonlyMap<Mix, readonly WorkloadRequest[]> = new Map(
  MIXES.map((mix) => [
    mix,
    mixRequests(mix, {
      numPrompts: 40,
      inputLen: { kind: "lognormal", mean: 16, sigma: 0.8 },
      outputLen: { kind: "lognormal", mean: 12, sigma: 0.8 },
      prefixLen: PREFIX,
      vocabSize: 131,
      maxSeqLen: MAX_SEQ_LEN,
      seed: 5,
    }),
  ]),
);

/** The content of results.json for what was run. */
export function measuredCapacity({ runs, error }: CapacityRuns): MeasuredCapacityResults {
  const { quire, createdAt, command, runtime, adapter, model } = sampleMeasured();
  const sum = (requests: readonly WorkloadRequest[], of: (r: WorkloadRequest) => number) =>
    requests.reduce((n, r) => n + of(r), 0);
  return {
    ...{ quire, createdAt, command, runtime, adapter, model },
    options: {
      mixes: [...MIXES],
      numPrompts: 40,
      inputLen: "lognormal:16,0.8",
      outputLen: "lognormal:12,0.8",
      prefixLen: PREFIX,
      maxSeqLen: MAX_SEQ_LEN,
      kvTokens: KV_TOKENS,
      kvBytes: KV_TOKENS * model.kvBytesPerToken,
      pageSizes: [...OPTIONS.pageSizes],
      maxSequences: OPTIONS.maxSequences,
      maxBatchedTokens: OPTIONS.maxBatchedTokens,
      watermark: OPTIONS.budget.watermark,
      preemption: "recompute",
      measure: "none",
      async: false,
      warmup: false,
      seed: "18446744073709551615",
      kernels: "auto",
    },
    mixes: [...REQUESTS].map(([mix, requests]) => ({
      mix,
      requests: requests.length,
      promptTokens: sum(requests, (r) => r.prompt.length),
      outputTokens: sum(requests, (r) => r.outputLen),
      longest: Math.max(...requests.map((r) => r.prompt.length + r.outputLen)),
      prefixTokens: mix === "lognormal" ? 0 : PREFIX,
    })),
    rows: runs.map(({ row }) => row),
    ...(error ? { incomplete: error.message } : {}),
  };
}

export interface Experiment extends CapacityRuns {
  readonly results: CapacityResults;
}

export async function experiment(options: Partial<CapacityOptions> = {}): Promise<Experiment> {
  const ran = await runCapacity(undefined, REQUESTS, { ...OPTIONS, ...options });
  return { ...ran, results: completeCapacity(measuredCapacity(ran)) };
}
