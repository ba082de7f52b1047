/**
 * The file `results.json` of `quire bench prefill`: its shape, its units and its check.
 *
 * Rows bear the names of ../shared/gpu/hf_reference.py, which measures the same with Hugging Face's transformers: `prefill` is
 * [sequences, tokens of each], `ms` a median, `tokens_per_s` all tokens of the case by it. What that script lacks is named in the
 * same style. Times are in milliseconds and memory in bytes unless a name says otherwise.
 */
import { z } from "zod";
import { PURPOSES } from "../gpu/memory.ts";
import { CACHE_MODES } from "../kv/cache.ts";
import { ENVIRONMENT, MODEL } from "./results.ts";

/** Changes whenever a field changes its meaning. */
export const PREFILL_SCHEMA = "quire-bench-prefill/1";

const count = z.int().min(0);
const amount = z.number().min(0);
const size = z.int().min(1);
/** Sequences, and tokens of each. */
const prefill = z.tuple([size, size]);

/** One row of another program, on the same GPU. */
const peerRow = z.object({
  peer: z.string(),
  dtype: z.string(),
  ms: amount,
  tokens_per_s: amount,
});

/** What was found out before the timing: the same prompts computed in another way. */
const check = z.object({
  /** The other way. */
  against: z.string(),
  /** Σ(a − b)² / Σa² over the logits of all sequences; 0 where they are the same. */
  nmse: amount,
  /** The most that is allowed. */
  nmse_allowed: amount,
  /** Sequences whose likeliest token is the same; of the others the likeliest two are as close as the allowed error. */
  argmax_equal: count,
  sequences: size,
});

const row = z.object({
  prefill,
  /** Median of `ms_of_iterations`: from before the batch is laid out until the GPU is done. */
  ms: amount,
  ms_mean: amount,
  ms_p90: amount,
  ms_of_iterations: z.array(amount).min(1),
  /** The very first time, pipelines that no case before had and buffers included. */
  ms_first: amount,
  /** Median of what the host needs to record a step, which is part of `ms`: most of it where the host is the bound. */
  ms_host: amount,
  tokens_per_s: amount,
  us_per_token: amount,
  /** Multiplications and additions that the model asks for; see `prefillFlops`. */
  gflop: amount,
  tflops_per_s: amount,
  /** The most that was live at any moment of these iterations and of the warm-up, and of what it was made up then; they sum to it. */
  peak_bytes: count,
  peak_by_purpose: z.record(z.enum(PURPOSES), count),
  check,
  /** Rows of --peer for the same case, with our tokens_per_s by theirs. */
  peers: z.array(peerRow.extend({ ratio: amount })),
});

export const PREFILL_RESULTS = z.object({
  schema: z.literal(PREFILL_SCHEMA),
  ...ENVIRONMENT,
  model: MODEL,
  options: z.object({
    cases: z.array(prefill).min(1),
    num_iters_warmup: count,
    num_iters: size,
    kv: z.enum(CACHE_MODES),
    page_size: count,
    /** Most rows of prompts computed at once. */
    prefill_chunk: size,
    /** Decimal: a number would lose digits of a 64-bit seed. It picks the prompts. */
    seed: z.string().regex(/^\d+$/),
    kernels: z.string(),
    /** The file of --peer. */
    peer: z.string().nullable(),
  }),
  rows: z.array(row),
  /** Cases that have no row, and why. */
  failures: z.array(z.object({ prefill, message: z.string() })),
  /**
   * Time of 1 × 512 by what 512 tokens take in 8 × 1,024: how much a short prompt costs more than its share of a full batch. Null
   * unless both are there.
   */
  first_token_ratio: amount.nullable(),
  /** Why not every case has a row; absent when each has. */
  incomplete: z.string().optional(),
});

export type PrefillResults = z.infer<typeof PREFILL_RESULTS>;
export type PrefillRow = z.infer<typeof row>;
export type PrefillCheck = z.infer<typeof check>;
export type PeerRow = z.infer<typeof peerRow> & { readonly prefill: readonly [number, number] };

/** "8 × 1,024" as it stands in --cases: 8x1024. */
export function caseName([batch, tokens]: readonly [number, number]): string {
  return `${batch}x${tokens}`;
}
