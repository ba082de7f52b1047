// From the steps of a run to the figures of the table. Pure; nothing is rounded.
import { check } from "../check.ts";

/** The state in which a step runs: everything is handed out for it, nothing given back after it. Counts are slots or requests. */
export interface CapacityStep {
  /** New tokens that the step computes. */
  readonly tokens: number;
  /** Tokens that it generates. */
  readonly sampled: number;
  readonly running: number;
  readonly waiting: number;
  /** Requests that had to make room for it. */
  readonly preempted: number;
  readonly reserved: number;
  readonly used: number;
  /** Tokens of all sequences, shared ones counted for each. */
  readonly logical: number;
}

/** What bounds a step besides the memory. */
export interface StepLimits {
  readonly maxSequences: number;
  readonly maxBatchedTokens: number;
}

export interface MemoryFigures {
  readonly steps: number;
  readonly computedTokens: number;
  readonly generatedTokens: number;
  readonly preemptions: number;
  readonly peakSequences: number;
  /**
   * Steps in which requests waited for memory: where the layouts differ. The means below are over these; if there is none, over the
   * steps with the most sequences.
   */
  readonly crowdedSteps: number;
  readonly meanSequences: number;
  readonly meanReserved: number;
  readonly meanUsed: number;
  /** Reserved − used: internal fragmentation. */
  readonly meanInternal: number;
  /** Free while the next request waits and does not fit: external fragmentation. */
  readonly meanExternal: number;
  /** Tokens that sharing saves: those of all sequences less the slots that hold them. */
  readonly meanShared: number;
  /** Internal fragmentation, of the reserved. The waste that PagedAttention's authors speak of. */
  readonly wastePercent: number;
  /** Everything of the budget that holds no token, while requests wait. */
  readonly idlePercent: number;
}

/** Whether requests wait because of memory alone: the step had room for more tokens and more sequences. */
export function isCrowded(step: CapacityStep, limits: StepLimits): boolean {
  return step.waiting > 0 && step.running < limits.maxSequences && step.tokens < limits.maxBatchedTokens;
}

/** The figures of a run; `total` slots can be had, `budget` were given. Throws on a run without a step. */
export function memoryFigures(
  steps: readonly CapacityStep[],
  { total, budget, limits }: { total: number; budget: number; limits: StepLimits },
): MemoryFigures {
  check(steps.length > 0, "capacity: no step; figures need at least one");
  const crowded = steps.filter((s) => isCrowded(s, limits));
  const peak = Math.max(...steps.map((s) => s.running));
  const counted = crowded.length > 0 ? crowded : steps.filter((s) => s.running === peak);
  const sumOf = (of: readonly CapacityStep[], value: (s: CapacityStep) => number) =>
    of.reduce((sum, s) => sum + value(s), 0);
  const mean = (value: (s: CapacityStep) => number) => sumOf(counted, value) / counted.length;
  const reserved = mean((s) => s.reserved);
  const used = mean((s) => s.used);
  return {
    steps: steps.length,
    computedTokens: sumOf(steps, (s) => s.tokens),
    generatedTokens: sumOf(steps, (s) => s.sampled),
    preemptions: sumOf(steps, (s) => s.preempted),
    peakSequences: peak,
    crowdedSteps: crowded.length,
    meanSequences: mean((s) => s.running),
    meanReserved: reserved,
    meanUsed: used,
    meanInternal: reserved - used,
    meanExternal: crowded.length > 0 ? mean((s) => total - s.reserved) : 0,
    meanShared: mean((s) => s.logical - s.used),
    wastePercent: reserved === 0 ? 0 : (100 * (reserved - used)) / reserved,
    idlePercent: (100 * (budget - used)) / budget,
  };
}

/** Every n-th step and the last one, so that at most `most` and one are left, with their numbers from 0. */
export function thinnedSteps<T>(steps: readonly T[], most: number): { every: number; at: number[] } {
  const every = Math.max(1, Math.ceil(steps.length / most));
  const at = steps.map((_, i) => i).filter((i) => i % every === 0 || i === steps.length - 1);
  return { every, at };
}
