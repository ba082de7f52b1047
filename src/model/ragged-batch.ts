import type { SampleSettings } from "../ops/sample.ts";

// What a RaggedStep computes: new tokens of many sequences, one after another, each as many as it likes.

/** A token that an earlier launch sampled and that only the GPU knows yet. */
export interface ForwardedToken {
  /** The number that `RaggedStep.launch` gave that launch. At most one launch may be in flight between the two. */
  readonly launch: number;
  readonly sample: number;
}

/** New tokens of one sequence. */
export interface RaggedPiece {
  /** Ids, the last of which may be forwarded. */
  readonly tokens: readonly (number | ForwardedToken)[];
  /** Position of the first one: so many tokens of the sequence are in the cache already. */
  readonly position: number;
  /** The sequence's pages in order, or the first slot of its strip: room for all positions up to the last new one. */
  readonly slotRow: readonly number[];
}

/** One token to sample, from the logits after the last token of a piece. */
export interface RaggedSample {
  readonly piece: number;
  readonly settings: SampleSettings;
  readonly sequenceId: number;
  /** Tokens that the sequence has generated so far: the counter of its random numbers. */
  readonly generated: number;
  /** Row of tokens seen (from `openSeen`), needed with a repetition penalty. */
  readonly seen?: number;
  /** Read the logits too. */
  readonly wantsLogits?: boolean;
}

export interface RaggedBatch {
  readonly pieces: readonly RaggedPiece[];
  readonly samples: readonly RaggedSample[];
}

export interface RaggedResult {
  /** A token for each sample, in order; NO_TOKEN (ops/sample.ts) where none could be chosen. */
  readonly tokens: Uint32Array;
  /** By sample: logits [V] of those that wanted them. */
  readonly logits: ReadonlyMap<number, Float32Array>;
}

export interface LaunchedStep {
  readonly launch: number;
  readonly result: Promise<RaggedResult>;
}
