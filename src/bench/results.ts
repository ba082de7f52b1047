/**
 * The file `results.json` of `quire bench kv`: its shape, its units and its check.
 *
 * Every duration is in seconds, every amount of memory in bytes, every step and repeat counts from 1. Parsing with `RESULTS` also
 * puts the keys into the order written here, so that two result files can be compared line by line.
 */
import { z } from "zod";
import { PURPOSES } from "../gpu/memory.ts";
import { CACHE_MODES, type CacheMode } from "../kv/cache.ts";
import { BATCH_SUMMARY, FINISH_REASON, SEQUENCE } from "./batch-results.ts";

/**
 * Changes whenever a field changes its meaning; a reader should refuse a name it does not know. Fields that came with `--batch` are
 * additions: of one sequence everything means what it did, and a file without them is one of a batch of 1.
 */
export const RESULTS_SCHEMA = "quire-bench-kv/2";

/**
 * How a step is timed. visible: a step is submitted, its token awaited, then the next is submitted, so its time is what a
 * caller waits for. pipelined: the host runs several steps ahead and tokens come back in rounds, so a step's time is its
 * round's by the steps of the round.
 */
export const TIMINGS = ["visible", "pipelined"] as const;
export type Timing = (typeof TIMINGS)[number];

const count = z.int().min(0);
const bytes = count.describe("bytes");
const seconds = z.number().min(0).describe("seconds");
const mode = z.enum(CACHE_MODES);

const byPurpose = z.record(z.enum(PURPOSES), bytes);

/** One forward pass. Step 1 is the prefill. */
const step = z.object({
  step: z.int().min(1),
  /** The token that this step produced; of a batch the one of the first sequence that still runs. */
  tokenId: count,
  /** Tokens that the step's attention could see, in each sequence: the prompt and every token before `tokenId`. */
  contextLength: count,
  /** Tokens whose activations were computed: the prompt in a prefill, then 1, or the whole sequence without a cache; of all sequences. */
  newTokensComputed: count,
  /** As the run's `timing` says: until its token is known on the host, or its share of a round. */
  seconds,
  /** All live GPU buffers after the step, as the ledger has them. */
  gpuMemoryBytes: bytes,
  /** The most that was live at any moment of the step. */
  gpuPeakBytes: bytes,
  /** Parts of `gpuMemoryBytes`. */
  memoryByPurpose: byPurpose,
  /** GPU buffers made for keys and values, whoever holds their slots. */
  kvAllocatedBytes: bytes,
  /** The part set aside for the sequences that run, which no other sequence could use. */
  kvReservedBytes: bytes,
  /** The part that holds keys and values of real tokens. */
  kvUsedBytes: bytes,
  /** Only of a batch: sequences that ran, each of which got a token. */
  sequences: z.int().min(1).optional(),
});

const run = z.object({
  mode,
  repeat: z.int().min(1),
  /** How the steps were timed: always visible in mode none, which knows no step before its token. */
  timing: z.enum(TIMINGS),
  /** The new tokens, without the prompt; of a batch those of sequence 0, the longest, which are what a batch of 1 gives. */
  tokens: z.array(count),
  /** The decoded new tokens, without the prompt; of a batch those of sequence 0. */
  text: z.string(),
  /** "error": the run broke off; its steps are kept here but enter no summary. */
  finishReason: FINISH_REASON,
  steps: z.array(step),
  /** Tokens that were computed ahead and thrown away, because the sequence had ended; 0 where nothing runs ahead. */
  surplus: count,
  /** Wall time from the start of the first step to the last token, so at least the sum of the steps. */
  totalSeconds: seconds,
  /** From the start of the run: the first step, and what has to be made before it, such as the recorded decode step. */
  timeToFirstTokenSeconds: seconds,
  /** The most that was live at any moment of the run. */
  peakBytes: bytes,
  /** The most that each purpose held at any moment; the moments differ, so the sum may exceed `peakBytes`. */
  peakByPurpose: byPurpose,
  /** Only of a batch: every sequence, sequence 0 included. */
  sequences: z.array(SEQUENCE).optional(),
});

/** One mode over all its repeats; percentiles as `percentile` in measure.ts defines them. */
const modeSummary = z.object({
  mode,
  /** Runs and steps behind these figures. */
  repeats: count,
  steps: count,
  /** Over every step of every repeat, the prefill included: in a batch each sequence that runs gets a token a step. */
  avgSecondsPerToken: seconds,
  p50SecondsPerToken: seconds,
  p95SecondsPerToken: seconds,
  /** Mean over the repeats. */
  timeToFirstTokenSeconds: seconds,
  /** Mean over every step but the first; null when there is only one step. */
  decodeAvgSeconds: seconds.nullable(),
  /** Mean over the repeats. */
  totalSeconds: seconds,
  /** All new tokens, of all sequences, by all of the runs' wall time. */
  tokensPerSecond: z.number().min(0),
  /** Between these bounds averages cannot be told apart: see `averageBounds` in summarize.ts. */
  avgLowSeconds: z.number(),
  avgHighSeconds: seconds,
  /** Median of the first and of the last quarter of the decode steps; null with fewer than 4 of them. */
  earlyDecodeSeconds: seconds.nullable(),
  lateDecodeSeconds: seconds.nullable(),
  /** Time of a run beyond what it had cost if every step were an early decode step: by its first token, by its growth. */
  firstTokenExcessSeconds: z.number(),
  growthExcessSeconds: z.number(),
  peakBytes: bytes,
  peakByPurpose: byPurpose,
  /** After the last step. */
  kvAllocatedBytes: bytes,
  kvReservedBytes: bytes,
  kvUsedBytes: bytes,
  /** Reserved and not used. */
  kvWastedBytes: bytes,
  /** Of the reserved bytes, 0 to 100; 0 when nothing is reserved. */
  wastePercent: z.number().min(0).max(100),
  /** Average of mode none by this average; null when none did not run. */
  speedupOverNone: z.number().min(0).nullable(),
  /** Peak by the peak of mode none; null when none did not run. */
  memoryRelativeToNone: z.number().min(0).nullable(),
  /** Only of a batch. */
  batch: BATCH_SUMMARY.optional(),
});

const sameTokens = z.object({
  /** Null when there were not two runs to compare. */
  identical: z.boolean().nullable(),
  /** Runs that were compared, every repeat of every mode, as far as each went. */
  runs: count,
  /** New tokens that each of these runs has, all sequences together. */
  tokens: count,
  /** Only of a batch: sequences of each run. */
  sequences: count.optional(),
  /** The earliest step at which a run left the first whole run; a token is null where that run had already ended. */
  firstDifference: z
    .object({
      step: z.int().min(1),
      modeA: mode,
      repeatA: z.int().min(1),
      tokenA: count.nullable(),
      modeB: mode,
      repeatB: z.int().min(1),
      tokenB: count.nullable(),
      /** Only of a batch: the first sequence that differs at this step. */
      sequence: count.optional(),
    })
    .optional(),
});

/** What every result file says of the machine and the software that made it. */
export const ENVIRONMENT = {
  quire: z.object({
    version: z.string(),
    /** Null outside a git checkout. */
    commit: z.string().nullable(),
    /** True when files of the checkout differ from the commit. */
    dirty: z.boolean().nullable(),
  }),
  /** ISO 8601, UTC. */
  createdAt: z.iso.datetime(),
  command: z.array(z.string()),
  runtime: z.object({
    name: z.enum(["node", "deno"]),
    version: z.string(),
    os: z.string(),
    arch: z.string(),
    cpus: count,
    cpuModel: z.string().optional(),
    /** Version of the npm package `webgpu`; null where the runtime brings its own. */
    webgpu: z.string().nullable(),
  }),
  adapter: z.object({
    vendor: z.string(),
    architecture: z.string(),
    device: z.string(),
    description: z.string(),
    driver: z.string().optional(),
    backend: z.string().optional(),
    /** True: the GPU is simulated by the CPU, so latencies say nothing about a GPU. */
    software: z.boolean(),
    profile: z.enum(["safe", "fast"]),
    /** True: tile sizes as `bench shaders --tune` measured them here; absent with the built-in ones. */
    tuned: z.boolean().optional(),
    features: z.array(z.string()),
    limits: z.record(z.string(), z.number()),
  }),
};

/** What every result file says of the model. */
export const MODEL = z.object({
  name: z.string(),
  path: z.string(),
  parameters: count,
  layers: count,
  heads: count,
  headSize: count,
  channels: count,
  contextLength: count,
  vocabSize: count,
  weightBytes: bytes,
  /** 2 · layers · heads · head size · bytes of one element. */
  kvBytesPerToken: bytes,
  dtype: z.string(),
  kvDtype: z.string(),
});

/** Everything of `results.json`. */
export const RESULTS = z.object({
  schema: z.literal(RESULTS_SCHEMA),
  ...ENVIRONMENT,
  model: MODEL,
  options: z.object({
    prompt: z.string(),
    promptTokens: z.array(count),
    newTokens: count,
    modes: z.array(mode),
    /** 0 is greedy. */
    temperature: z.number(),
    /** 0 is off. */
    topK: count,
    /** 1 is off. */
    topP: z.number(),
    /** 0 is off. */
    minP: z.number(),
    /** 1 is off. */
    repetitionPenalty: z.number(),
    /** Decimal: a number would lose digits of a 64-bit seed. */
    seed: z.string().regex(/^\d+$/),
    repeat: z.int().min(1),
    /** Runs of each mode that were not measured. */
    warmup: count,
    /** What was asked for; `runs` have what each run did. */
    timing: z.enum(TIMINGS),
    /** Slots. */
    pageSize: count,
    /** Most rows of prompts computed at once; absent in older files. */
    prefillChunk: z.int().min(1).optional(),
    /** Tokens that the contiguous cache reserves for a sequence. */
    maxSeqLen: count,
    kernels: z.string(),
    ignoreEos: z.boolean(),
    /** Sequences at once; their lengths are `batchLengths` of kv-batch.ts. */
    batch: z.int().min(1).default(1),
  }),
  runs: z.array(run),
  summary: z.array(modeSummary),
  sameTokens,
  /** Sentences computed from the figures, in the language of the command. */
  conclusion: z.array(z.string()),
  /** Why the experiment stopped early; absent when every mode ran. */
  incomplete: z.string().optional(),
});

export type StepResult = z.infer<typeof step>;
export type RunResult = z.infer<typeof run>;
export type ModeSummary = z.infer<typeof modeSummary>;
export type SameTokens = z.infer<typeof sameTokens>;
export type BenchResults = z.infer<typeof RESULTS>;

/** The model of a result file. */
export type ModelDescription = z.infer<typeof MODEL>;

/** What the measuring part hands over; the rest is computed from it. */
export type MeasuredResults = Omit<BenchResults, "schema" | "summary" | "sameTokens" | "conclusion">;

/** How the runs' steps were timed: pipelined where a run was, since mode none never is. */
export function timingOfRuns(runs: readonly RunResult[]): Timing {
  return runs.some((r) => r.timing === "pipelined") ? "pipelined" : "visible";
}

/** Sequences that ran in a step. */
export function sequencesOf(step: StepResult): number {
  return step.sequences ?? 1;
}

/** New tokens of a step by its time; 0 where that is none. */
export function tokenRate(step: StepResult): number {
  return step.seconds > 0 ? sequencesOf(step) / step.seconds : 0;
}

/** The new tokens of each sequence of a run. */
export function tokensOf(run: RunResult): number[][] {
  return run.sequences?.map((s) => s.tokens) ?? [run.tokens];
}

/** Runs that reached their end: the only ones that summaries and charts speak of. */
export function finishedRuns(runs: readonly RunResult[], mode?: CacheMode): RunResult[] {
  return runs.filter(
    (r) => r.finishReason !== "error" && r.steps.length > 0 && (mode === undefined || r.mode === mode),
  );
}
