import type { Holding, PageCopy } from "../kv/kv-space.ts";
import type { SamplingOptions } from "./sampler.ts";

// What the scheduler tells the engine to do in one step. Pure.

/** A sampled token whose id the host does not know yet: sample `sample` of the plan `plan`. */
export interface PendingToken {
  readonly plan: number;
  readonly sample: number;
}

/** New tokens of one sequence in a step: a prompt, a piece of one, or one token. */
export interface PlanPiece {
  readonly holding: Holding;
  /** Position of the first one. */
  readonly position: number;
  /** Ids; the last one may be still on the GPU. */
  readonly tokens: readonly (number | PendingToken)[];
}

/** A token to be chosen from the logits after the last token of a piece. Several samples may be of one piece. */
export interface PlanSample {
  /** Index into `pieces`. */
  readonly piece: number;
  /** Which sequence of the engine: the key of the tokens it has seen, for the repetition penalty. */
  readonly owner: number;
  readonly sampling: SamplingOptions;
  /** The number of the sequence among those of its seed, and of the token within it: they pick the random number. */
  readonly sequenceId: number;
  readonly generated: number;
  /** Logits are wanted instead of a token: beam search chooses on the host. */
  readonly wantsLogits: boolean;
}

/**
 * Pages of a preempted sequence, to be copied to the host, or back into other pages. What lies on the host is known by its
 * owner. It may be let go when it is swapped in, swapped out again, or when the owner's sequence ends.
 */
export interface PlanSwap {
  readonly owner: number;
  /** In the order of positions. Back: as many as went out; 0 (the null page) for one that the prefix cache had. */
  readonly pages: readonly number[];
}

/** One step, in this order: swaps out, page copies, swaps in, the pieces, the samples. */
export interface StepPlan {
  /** From 0, one more with every plan. */
  readonly number: number;
  readonly swapOuts: readonly PlanSwap[];
  readonly copies: readonly PageCopy[];
  readonly swapIns: readonly PlanSwap[];
  readonly pieces: readonly PlanPiece[];
  readonly samples: readonly PlanSample[];
  /** New tokens of all pieces: what the step costs. */
  readonly tokens: number;
}
