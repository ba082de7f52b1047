// Requests through scheduler and space without a model: the steps that the engine would run one after the other, to the last slot.
// The tokens are made up, which changes nothing: lengths are given, and nobody ends early.
import { check } from "../check.ts";
import type { Preemption } from "../generate/engine-types.ts";
import { Request } from "../generate/request.ts";
import { Scheduler } from "../generate/scheduler.ts";
import type { KvSpace } from "../kv/kv-space.ts";
import type { CapacityStep, StepLimits } from "./capacity-figures.ts";
import type { WorkloadRequest } from "./workload.ts";

export interface SimulationOptions extends StepLimits {
  readonly chunkedPrefill: boolean;
  readonly preemption: Preemption;
  readonly contextLength: number;
}

export interface SimulationEnd {
  /** Prompt tokens asked of the prefix cache, and found. */
  readonly prefixQueries: number;
  readonly prefixHits: number;
  readonly recomputedTokens: number;
}

/** How requests are sampled, here and on the engine: greedy, each to its full length. */
export const GREEDY = { sampling: { temperature: 0, seed: 0 }, ignoreEos: true } as const;

/**
 * Run `requests` in `space`, which is empty, and yield every step when all is handed out for it and nothing given back.
 * Throws BadInput for a request that can never fit.
 */
export function* simulate(
  space: KvSpace,
  requests: readonly WorkloadRequest[],
  options: SimulationOptions,
): Generator<CapacityStep, SimulationEnd> {
  const scheduler = new Scheduler(space, options);
  requests.forEach(({ prompt, outputLen }, id) => {
    scheduler.add(new Request(id, { prompt, maxNewTokens: outputLen, ...GREEDY }, options.contextLength));
  });
  let preemptions = 0;
  for (;;) {
    const plan = scheduler.schedule();
    if (plan === undefined) break;
    const { reserved, used, logical } = space.usage();
    yield {
      tokens: plan.tokens,
      sampled: plan.samples.length,
      running: scheduler.running,
      waiting: scheduler.waiting,
      preempted: scheduler.stats.preemptions - preemptions,
      reserved,
      used,
      logical,
    };
    preemptions = scheduler.stats.preemptions;
    // Nobody reads the changes; taken, they do not pile up.
    scheduler.takeChanges();
    // Requests that are alike to this point go on alike, as greedy ones do, so a token is a function of its place.
    const tokens = Uint32Array.from(plan.samples, ({ generated }) => generated);
    scheduler.update(plan, { tokens, logits: new Map() });
  }
  check(scheduler.isIdle, "capacity: the scheduler has nothing to do, but requests are left");
  const { prefixQueries, prefixHits, recomputedTokens } = scheduler.stats;
  return { prefixQueries, prefixHits, recomputedTokens };
}
