/**
 * The JSON of `quire bench latency`: its shape, its units and its check.
 *
 * Figures that vLLM's `vllm bench latency` has too bear its names: avg_latency, std_latency, latencies and percentiles, all
 * in seconds for a whole batch, input and output. So its readers can read them; what it lacks is named in the same style.
 */
import { z } from "zod";
import { CACHE_MODES } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { mean, median, percentile } from "./measure.ts";
import { ENVIRONMENT, MODEL, TIMINGS } from "./results.ts";

/** Changes whenever a field changes its meaning. */
export const LATENCY_SCHEMA = "quire-bench-latency/1";

/** Those of vLLM. */
export const PERCENTILES = ["10", "25", "50", "75", "90", "99"] as const;

const count = z.int().min(0);
const seconds = z.number().min(0);

/** Figures of the finished iterations; at least one. */
const figures = z.object({
  /** Mean of `latencies`. */
  avg_latency: seconds,
  /** Their standard deviation with n in the denominator, as NumPy's std by default. */
  std_latency: seconds,
  /** From before the first step until the last token is known, of each iteration. */
  latencies: z.array(seconds).min(1),
  /** Interpolated between ranks, as NumPy by default. */
  percentiles: z.object(Object.fromEntries(PERCENTILES.map((p) => [p, seconds]))),
  /** New tokens of the whole batch by avg_latency, the prompt's time included. */
  tokens_per_s: z.number().min(0),
  /** Seconds until the first tokens are known: the prompts' step. Mean over the iterations. */
  time_to_first_token: seconds,
  /** Decode only, of one sequence: (latency - time to first token) / (output_len - 1), in milliseconds; null for one token. */
  ms_per_token: z.number().min(0).nullable(),
  /** The same of the middle iteration: the median, which an iteration that somebody disturbed does not move. */
  ms_per_token_p50: z.number().min(0).nullable(),
  /** What a decode step must read, by the time of a decode step; see decodeReads. Null for one token. */
  achieved_gb_per_s: z.number().min(0).nullable(),
  /** Behind achieved_gb_per_s, for one iteration. */
  decode_reads: z.object({
    steps: count,
    /** Bytes of the weights that one step reads. */
    weight_bytes: count,
    /** Bytes of keys and values that a step reads, mean over the steps. */
    kv_bytes: z.number().min(0),
  }),
  /** Tokens computed ahead and thrown away, all iterations together. */
  surplus_tokens: count,
});

export const LATENCY_RESULTS = z.object({
  schema: z.literal(LATENCY_SCHEMA),
  ...figures.shape,
  ...ENVIRONMENT,
  model: MODEL,
  options: z.object({
    batch_size: z.int().min(1),
    input_len: z.int().min(1),
    output_len: z.int().min(1),
    num_iters_warmup: count,
    num_iters: z.int().min(1),
    /** What was done: mode none is always visible. */
    timing: z.enum(TIMINGS),
    kv: z.enum(CACHE_MODES),
    page_size: count,
    /** Most rows of prompts computed at once; absent in older files. */
    prefill_chunk: z.int().min(1).optional(),
    temperature: z.number(),
    top_k: count,
    top_p: z.number(),
    min_p: z.number(),
    repetition_penalty: z.number(),
    /** Decimal: a number would lose digits of a 64-bit seed. It picks the prompts and the samples. */
    seed: z.string().regex(/^\d+$/),
    kernels: z.string(),
  }),
  /** Why there are fewer iterations than were asked for; absent when all ran. */
  incomplete: z.string().optional(),
});

export type LatencyFigures = z.infer<typeof figures>;
export type LatencyResults = z.infer<typeof LATENCY_RESULTS>;

/** One run of the batch, from its prompts to its last token. */
export interface LatencyIteration {
  readonly seconds: number;
  readonly firstTokenSeconds: number;
  readonly surplus: number;
}

/** Bytes of the weights that a decode step reads: every block, the last norm and the head, without the embedding's rows. */
export function decodeWeightBytes({ weights }: Gpt2): number {
  const { blocks, lnF, head } = weights;
  const linears = blocks.flatMap((b) => [b.attention, b.attentionProjection, b.fc, b.fcProjection]);
  const tensors = [
    ...blocks.flatMap((b) => [b.ln1, b.ln2]),
    ...linears.flatMap(({ weight, bias }) => [weight, bias]),
    lnF,
    ...head.blocks,
    ...(head.scales ? [head.scales] : []),
  ];
  return tensors.reduce((bytes, t) => bytes + t.bytes, 0);
}

export interface LatencyShape {
  readonly batchSize: number;
  readonly inputLen: number;
  readonly outputLen: number;
  readonly weightBytes: number;
  /** Bytes of one token's keys and values in all layers; 0 without a cache. */
  readonly slotBytes: number;
}

/**
 * What the decode steps of one iteration must read: step i, from 1 to output_len - 1, reads the weights once and, for every
 * sequence, the keys and values of input_len + i tokens, its own included.
 */
export function decodeReads({
  batchSize,
  inputLen,
  outputLen,
  weightBytes,
  slotBytes,
}: LatencyShape): LatencyFigures["decode_reads"] {
  const steps = outputLen - 1;
  // The mean of 1 … steps.
  const meanContext = inputLen + (steps + 1) / 2;
  const kv = steps > 0 ? batchSize * meanContext * slotBytes : 0;
  return { steps, weight_bytes: weightBytes, kv_bytes: kv };
}

/** From the finished iterations to the figures; nothing is rounded. Throws when there is none. */
export function latencyFigures(iterations: readonly LatencyIteration[], shape: LatencyShape): LatencyFigures {
  const latencies = iterations.map((i) => i.seconds);
  const average = mean(latencies);
  const first = mean(iterations.map((i) => i.firstTokenSeconds));
  const reads = decodeReads(shape);
  const perStep = reads.steps > 0 ? (average - first) / reads.steps : null;
  const perStepOfEach = iterations.map((i) => (i.seconds - i.firstTokenSeconds) / reads.steps);
  const bytes = reads.weight_bytes + reads.kv_bytes;
  return {
    avg_latency: average,
    std_latency: Math.sqrt(mean(latencies.map((s) => (s - average) ** 2))),
    latencies,
    percentiles: Object.fromEntries(PERCENTILES.map((p) => [p, percentile(latencies, Number(p))])),
    tokens_per_s: (shape.batchSize * shape.outputLen) / average,
    time_to_first_token: first,
    ms_per_token: perStep === null ? null : perStep * 1e3,
    ms_per_token_p50: perStep === null ? null : median(perStepOfEach) * 1e3,
    achieved_gb_per_s: perStep ? bytes / perStep / 1e9 : null,
    decode_reads: reads,
    surplus_tokens: iterations.reduce((n, i) => n + i.surplus, 0),
  };
}
