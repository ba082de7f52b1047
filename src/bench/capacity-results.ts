/**
 * The file `results.json` of `quire bench capacity`: its shape, its units and its check.
 *
 * Durations are in seconds, memory in slots (one token's keys and values in all layers), steps count from 0. Parsing with
 * `CAPACITY_RESULTS` also puts the keys into the order written here.
 */
import { z } from "zod";
import { MIXES } from "./capacity-cases.ts";
import { ENVIRONMENT, MODEL } from "./results.ts";

/** Changes whenever a field changes its meaning; a reader should refuse a name it does not know. */
export const CAPACITY_SCHEMA = "quire-bench-capacity/1";

/** Which rows run the model, besides the simulation that all have: all; strips and one page size; none. */
export const MEASURES = ["all", "few", "none"] as const;
export type Measure = (typeof MEASURES)[number];

const LAYOUTS = ["strips-max", "strips-exact", "pages"] as const;

const count = z.int().min(0);
const amount = z.number().min(0);
const percent = z.number().min(0).max(100);

/** `MemoryFigures` of capacity-figures.ts, where each is explained, and what the scheduler counts. */
const figures = z.object({
  steps: count,
  computedTokens: count,
  generatedTokens: count,
  preemptions: count,
  peakSequences: count,
  crowdedSteps: count,
  meanSequences: amount,
  meanReserved: amount,
  meanUsed: amount,
  meanInternal: amount,
  meanExternal: amount,
  meanShared: amount,
  wastePercent: percent,
  idlePercent: percent,
  /** Prompt tokens asked of the prefix cache, and found. */
  prefixQueries: count,
  prefixHits: count,
  /** Tokens computed again because of a preemption. */
  recomputedTokens: count,
});

/** Some steps of a run, one array for each figure; steps.csv has them all. */
const timeline = z.object({
  /** Steps between two entries; the last entry is the last step. */
  every: z.int().min(1),
  step: z.array(count),
  running: z.array(count),
  waiting: z.array(count),
  reserved: z.array(count),
  used: z.array(count),
  logical: z.array(count),
});

const measured = z.object({
  /** From the first step until the last token is known. */
  seconds: amount,
  /** New tokens of all requests by `seconds`. */
  outputTokensPerSecond: amount,
  /** Prompts and new tokens by `seconds`, whether computed or found in the prefix cache. */
  totalTokensPerSecond: amount,
  /** Mean seconds until a request's first token, and until its last one. */
  meanTimeToFirstToken: amount,
  meanEndToEnd: amount,
  /** As those of the simulation, but of the run: where steps run ahead of their tokens, some differ. */
  ...figures.shape,
});

const row = z.object({
  mix: z.enum(MIXES),
  layout: z.enum(LAYOUTS),
  /** Slots; 1 for strips. */
  pageSize: z.int().min(1),
  prefixCache: z.boolean(),
  /** Slots of the budget that sequences can have. */
  totalTokens: count,
  /** Why the layout cannot hold the requests; it has no figures then. */
  refused: z.string().optional(),
  /** Scheduler and page table without a model: exact, and the same on every machine. */
  simulated: figures.nullable(),
  /** The same on the engine; null where the model was left out. */
  measured: measured.nullable(),
  timeline: timeline.nullable(),
  /** Why the row broke off; what it had until then is lost. */
  error: z.string().optional(),
});

const mix = z.object({
  mix: z.enum(MIXES),
  requests: count,
  promptTokens: count,
  /** Tokens to generate. */
  outputTokens: count,
  /** Prompt and answer of the longest request. */
  longest: count,
  /** Tokens that every prompt begins with. */
  prefixTokens: count,
});

export const CAPACITY_RESULTS = z.object({
  schema: z.literal(CAPACITY_SCHEMA),
  ...ENVIRONMENT,
  /** Null where only simulated. */
  adapter: ENVIRONMENT.adapter.nullable(),
  model: MODEL.extend({ weightBytes: count.nullable() }),
  options: z.object({
    mixes: z.array(z.enum(MIXES)),
    numPrompts: z.int().min(1),
    /** As the command takes them, such as lognormal:200,1. */
    inputLen: z.string(),
    outputLen: z.string(),
    prefixLen: count,
    maxSeqLen: z.int().min(2),
    /** The budget, and its bytes. */
    kvTokens: z.int().min(1),
    kvBytes: z.int().min(1),
    pageSizes: z.array(z.int().min(1)),
    maxSequences: z.int().min(1),
    maxBatchedTokens: z.int().min(1),
    watermark: z.number().min(0).max(1),
    preemption: z.enum(["recompute", "swap"]),
    measure: z.enum(MEASURES),
    /** Steps of the engine run ahead of their tokens. */
    async: z.boolean(),
    warmup: z.boolean(),
    /** Decimal: a number would lose digits of a 64-bit seed. */
    seed: z.string().regex(/^\d+$/),
    kernels: z.string(),
  }),
  mixes: z.array(mix),
  rows: z.array(row),
  /** Sentences computed from the figures. */
  conclusion: z.array(z.string()),
  /** Why the experiment stopped early; absent when every row ran. */
  incomplete: z.string().optional(),
});

export type CapacityFigures = z.infer<typeof figures>;
export type MeasuredCapacity = z.infer<typeof measured>;
export type CapacityTimeline = z.infer<typeof timeline>;
export type CapacityRow = z.infer<typeof row>;
export type CapacityMix = z.infer<typeof mix>;
export type CapacityResults = z.infer<typeof CAPACITY_RESULTS>;
export type MeasuredCapacityResults = Omit<CapacityResults, "schema" | "conclusion">;

/** The rows of a mix that have figures, in the order of the table. */
export function rowsOf(results: Pick<CapacityResults, "rows">, mix: CapacityRow["mix"]): FiguredRow[] {
  return results.rows.filter((r): r is FiguredRow => r.mix === mix && r.simulated !== null);
}

/** A row whose layout could hold the requests. */
export type FiguredRow = CapacityRow & { simulated: CapacityFigures };
