import type { EngineMetrics, Preemption } from "./engine-types.ts";
import type { Request } from "./request.ts";
import type { StepLimits } from "./scheduler-step.ts";
import type { FinishReason } from "./sequence.ts";

/** What a step gives instead of a token where the logits let none be chosen; as in ops/sample.ts. */
export const NO_TOKEN = 0xffffffff;

export interface SchedulerOptions extends StepLimits {
  /** Most sequences that run at once; all n samples of a request count, and all its beams. */
  readonly maxSequences: number;
  readonly preemption: Preemption;
  /** Seconds, for the times of requests. Default: performance.now. */
  readonly clock?: () => number;
  /** Are this owner's pages still on their way to the host? Then it is not admitted. Default: they arrive at once. */
  readonly isLeaving?: (owner: number) => boolean;
}

/** What the GPU made of a plan. */
export interface StepResult {
  /** By sample; NO_TOKEN where none could be chosen. Of samples that wanted logits it is not looked at. */
  readonly tokens: ArrayLike<number>;
  /** By sample that wanted them: [V]. */
  readonly logits?: ReadonlyMap<number, Float32Array>;
}

/** What `schedule` did to requests, and what came of a step, in order. */
export type SchedulerUpdate =
  | { readonly type: "admitted"; readonly request: Request }
  | { readonly type: "preempted"; readonly request: Request; readonly how: Preemption }
  | {
      readonly type: "token";
      readonly request: Request;
      /** Which of its sequences. */
      readonly index: number;
      readonly owner: number;
      readonly token: number;
      /** Text that it sets free. */
      readonly text: string;
      /** Of the sequence: null if it goes on. */
      readonly finishReason: FinishReason | null;
    }
  /** All its sequences have ended; or it cannot go on, then request.error says why. */
  | { readonly type: "finished"; readonly request: Request };

export type SchedulerStats = Omit<
  EngineMetrics,
  "running" | "waiting" | "kvUsage" | "timeToFirstToken" | "interTokenTime"
>;
