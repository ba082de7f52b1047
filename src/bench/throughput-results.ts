/**
 * The JSON of `quire bench throughput`: its shape, its units and its check.
 *
 * Figures that vLLM's serving benchmark (`vllm bench serve`) has too bear its names and mean the same, so that its readers can
 * read them: times in milliseconds from a request's submit, percentiles as NumPy's default, standard deviations with n in the
 * denominator. A percentile is named after its number: p99_ttft_ms, p99.9_ttft_ms. What vLLM lacks is named in the same style.
 */
import { z } from "zod";
import { PURPOSES } from "../gpu/memory.ts";
import { ENVIRONMENT, MODEL } from "./results.ts";

/** Changes whenever a field changes its meaning. */
export const THROUGHPUT_SCHEMA = "quire-bench-throughput/1";

/**
 * ttft, time to first token: from a request's submit until its first token is known, waiting included. itl, inter-token latency:
 * between two tokens of a request that follow one another, all of all requests. e2el, end-to-end latency: from submit to the last
 * token. tpot, time per output token: (e2el − ttft) / (output tokens − 1) of a request that has two or more.
 */
export const METRICS = ["ttft", "tpot", "itl", "e2el"] as const;
export type Metric = (typeof METRICS)[number];

const count = z.int().min(0);
const amount = z.number().min(0);
const percent = z.number().min(0).max(100);
/** Null when no request has one, such as the time between the tokens of answers of one token. */
const milliseconds = amount.nullable();

const latency = z.object({
  mean_ttft_ms: milliseconds,
  median_ttft_ms: milliseconds,
  std_ttft_ms: milliseconds,
  mean_tpot_ms: milliseconds,
  median_tpot_ms: milliseconds,
  std_tpot_ms: milliseconds,
  mean_itl_ms: milliseconds,
  median_itl_ms: milliseconds,
  std_itl_ms: milliseconds,
  mean_e2el_ms: milliseconds,
  median_e2el_ms: milliseconds,
  std_e2el_ms: milliseconds,
});

const steps = z.object({
  count,
  /** Null without a step. */
  mean_ms: milliseconds,
  mean_tokens: amount.nullable(),
  /** Of the steps' seconds, those in which the host was busy. */
  host_share_percent: percent.nullable(),
});

const figures = z.object({
  /** Seconds from the first submit until the last request is finished. */
  duration: amount,
  /** Requests that were finished; all figures of requests are theirs. */
  completed: count,
  /** Requests that the engine refused, since they could never run. */
  failed: count,
  total_input_tokens: count,
  total_output_tokens: count,
  /** By the duration: requests; output tokens; input and output tokens, cached ones included. */
  request_throughput: amount,
  output_throughput: amount,
  total_token_throughput: amount,
  /** The most output tokens in one of the seconds since the start. */
  max_output_tokens_per_s: amount,
  /** The most requests that were submitted and not finished at one moment. */
  max_concurrent_requests: count,
  ...latency.shape,
  /** Keys and values; slots are tokens, shares are weighted with the steps' seconds. Nulls without a step. */
  kv: z.object({
    total_slots: count.nullable(),
    /** Of all slots, those that sequences held. */
    mean_usage_percent: percent.nullable(),
    peak_usage_percent: percent.nullable(),
    /** Of the slots that sequences held, those without keys and values: what pages are to keep small. */
    waste_percent: percent.nullable(),
    /** Tokens of all sequences by the slots that hold them; above 1 where prefixes are shared. */
    sharing: amount.nullable(),
  }),
  prefix_cache: z.object({
    /** Prompt tokens that were looked up, and that were found and not computed. */
    queries: count,
    hits: count,
    /** Null where nothing was looked up. */
    hit_rate_percent: percent.nullable(),
    /** Of the tokens that a request shares with one before it by --prefix-len; null without a shared prefix. */
    shared_prefix_hit_percent: percent.nullable(),
  }),
  preemptions: count,
  /** Tokens computed again after a preemption. */
  recomputed_tokens: count,
  swapped_pages: count,
  computed_tokens: count,
  /** Sampled ahead after their sequence had ended. */
  surplus_tokens: count,
  steps: steps.extend({
    /** Without a prompt token, and as many sequences as the largest of such steps had; null when there was none. */
    full_decode: steps.extend({ sequences: count }).nullable(),
  }),
});

/** What was run, in vLLM's names. */
const run = z.object({
  /** Local time as vLLM writes it: 20261123-181530. */
  date: z.string().regex(/^\d{8}-\d{6}$/),
  backend: z.literal("quire"),
  model_id: z.string(),
  num_prompts: z.int().min(1),
  /** Requests a second, or "inf": all at once. */
  request_rate: z.union([z.number().positive(), z.literal("inf")]),
  /** 1 is a Poisson process; "inf" a metronome. */
  burstiness: z.union([z.number().positive(), z.literal("inf")]),
  /** Null: no bound but the engine's own. */
  max_concurrency: z.int().min(1).nullable(),
});

const fixed = z.object({
  schema: z.literal(THROUGHPUT_SCHEMA),
  ...run.shape,
  ...figures.shape,
  /** Of the measured part, after the warm-up, as the ledger has it. */
  memory: z.object({
    peak_bytes: count,
    /** How the peak was made up; sums to it. */
    peak_by_purpose: z.record(z.enum(PURPOSES), count),
    /** Slots for sequences and the null page. */
    kv_bytes: count,
    /** Requests of the longest possible sequence that fit at once. */
    max_concurrency: amount,
  }),
  ...ENVIRONMENT,
  model: MODEL,
  options: z.object({
    /** Path of the JSONL file; null: random prompts. */
    dataset: z.string().nullable(),
    /** As --input-len takes it; null with a dataset. */
    input_len: z.string().nullable(),
    output_len: z.string(),
    prefix_len: count,
    /** Requests of the warm-up. */
    num_warmups: count,
    percentiles: z.array(percent),
    ignore_eos: z.boolean(),
    kv_layout: z.enum(["pages", "strips-max", "strips-exact"]),
    page_size: count,
    max_seq_len: count,
    max_sequences: count,
    max_batched_tokens: count,
    chunked_prefill: z.boolean(),
    prefix_cache: z.boolean(),
    preemption: z.enum(["recompute", "swap"]),
    watermark: z.number().min(0),
    async: z.boolean(),
    temperature: z.number(),
    top_k: count,
    top_p: z.number(),
    min_p: z.number(),
    repetition_penalty: z.number(),
    /** Decimal: a number would lose digits of a 64-bit seed. It picks lengths, prompts, arrivals and samples. */
    seed: z.string().regex(/^\d+$/),
    kernels: z.string(),
  }),
  /** Why the first of the failed requests was refused. */
  failure: z.string().optional(),
  /** Sentences computed from the figures. */
  conclusion: z.array(z.string()),
  /** Why requests are missing; absent when all were run. */
  incomplete: z.string().optional(),
});

/** The percentiles of the metrics that options.percentiles names: p50_ttft_ms, …. */
type Percentiles = { readonly [Name in `p${number}_${Metric}_ms`]?: number | null };
export type ThroughputResults = z.infer<typeof fixed> & Percentiles;

export const THROUGHPUT_RESULTS = fixed.catchall(milliseconds).superRefine((results, context) => {
  const wanted = new Set(percentileNames(results.options.percentiles));
  const found = Object.keys(results).filter((key) => /^p[\d.]+_/.test(key));
  for (const key of found.filter((k) => !wanted.has(k)))
    context.addIssue(`${key} is not of options.percentiles`);
  for (const key of wanted) if (!(key in results)) context.addIssue(`${key} is missing`);
}) as unknown as z.ZodType<ThroughputResults>;

/** "p99_ttft_ms", for each percentile of each metric. */
export function percentileNames(percentiles: readonly number[]): string[] {
  return METRICS.flatMap((metric) => percentiles.map((p) => percentileName(p, metric)));
}

export function percentileName(p: number, metric: Metric): `p${number}_${Metric}_ms` {
  return `p${p}_${metric}_ms`;
}

/** Without the percentiles, whose names depend on the options. */
export type ThroughputFigures = z.infer<typeof figures>;
export type RunDescription = z.infer<typeof run>;
