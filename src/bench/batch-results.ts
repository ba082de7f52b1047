/** The parts of `results.json` that only `quire bench kv --batch` has, for results.ts. */
import { z } from "zod";

const count = z.int().min(0);
const bytes = count.describe("bytes");

/** "error": the run broke off. */
export const FINISH_REASON = z.enum(["length", "eos", "stop", "context", "error"]);

/** One sequence of a batch; it has a token in each of the first steps. */
export const SEQUENCE = z.object({
  /** From 0; picks the random numbers. */
  id: count,
  /** Most tokens to generate. */
  newTokens: count,
  tokens: z.array(count),
  text: z.string(),
  finishReason: FINISH_REASON,
});

/**
 * What a batch keeps for its sequences. Means are over the steps of all repeats; those of a sequence over its steps, so that each
 * counts as often as it ran.
 */
export const BATCH_SUMMARY = z.object({
  /** In the first step. */
  sequences: z.int().min(2),
  /** The most at the end of any step. */
  kvPeakReservedBytes: bytes,
  kvMeanReservedBytes: z.number().min(0),
  kvMeanUsedBytes: z.number().min(0),
  /** Reserved and not used, of the mean reserved bytes, 0 to 100; 0 when nothing is reserved. */
  meanWastePercent: z.number().min(0).max(100),
  /** Mean that one running sequence has reserved. */
  kvReservedBytesPerSequence: z.number().min(0),
  /**
   * Derived, not run: whole sequences that the KV buffers of mode contiguous would hold, were each to have reserved
   * `kvReservedBytesPerSequence`. Null without keys and values, or when contiguous did not run.
   */
  sequencesInContiguousBytes: count.nullable(),
});

export type SequenceResult = z.infer<typeof SEQUENCE>;
export type BatchSummary = z.infer<typeof BATCH_SUMMARY>;
