import { BadInput, check } from "../check.ts";
import type { KvSpace, PageCopy } from "../kv/kv-space.ts";
import type { EngineMetrics } from "./engine-types.ts";
import type { Request } from "./request.ts";
import type { Branch } from "./request-branch.ts";
import { admit } from "./scheduler-admission.ts";
import { preempt } from "./scheduler-preemption.ts";
import { takeLogits, takeToken } from "./scheduler-results.ts";
import { SchedulerState } from "./scheduler-state.ts";
import { StepBuilder } from "./scheduler-step.ts";
import type { SchedulerOptions, SchedulerStats, SchedulerUpdate, StepResult } from "./scheduler-types.ts";
import type { StepPlan } from "./step-plan.ts";

export type { SchedulerOptions, SchedulerStats, SchedulerUpdate, StepResult } from "./scheduler-types.ts";

/** Branches whose samples a plan has; its results have not come. */
interface InFlight {
  readonly plan: StepPlan;
  readonly targets: readonly Branch[];
}

/**
 * Decides who computes what in each step, as vLLM V1's scheduler does. There are no phases: in each step those who run, first come first,
 * catch up with their tokens (a prompt, a piece of one, or the one token sampled last) until the budget is used up; then those who wait are
 * admitted. When there is no room for the next token, the last-come makes room. The first-come can always go on, so everybody finishes.
 *
 * `schedule` makes a plan, `update` takes its result. Plans may be made ahead of results: then tokens are pending.
 */
export class Scheduler {
  readonly #state: SchedulerState;
  #inFlight: InFlight[] = [];
  #arrivals = 0;
  #owners = 0;

  constructor(space: KvSpace, options: SchedulerOptions) {
    this.#state = new SchedulerState(space, options);
  }

  /** Requests that have a place. */
  get running(): number {
    return this.#state.running.length;
  }

  get waiting(): number {
    return this.#state.waiting.length;
  }

  /** Plans whose results have not come. */
  get inFlight(): number {
    return this.#inFlight.length;
  }

  /** Every request has finished, and every result has come. */
  get isIdle(): boolean {
    return this.#state.requests.size === 0 && this.#inFlight.length === 0;
  }

  get stats(): SchedulerStats {
    return this.#state.stats;
  }

  /** Distributions of time to first token and from token to token so far. */
  get latencies(): Pick<EngineMetrics, "timeToFirstToken" | "interTokenTime"> {
    return this.#state.latencies.summary();
  }

  /** Requests that are not over, in the order in which they came. */
  get requests(): IterableIterator<Request> {
    return this.#state.requests.values();
  }

  /** Put a request into the queue. Throws BadInput with the reason when it can never run. */
  add(request: Request): void {
    const { requests, waiting, space, options } = this.#state;
    check(
      request.state === "new" && !requests.has(request.id),
      () => `scheduler: request ${request.id} was added before`,
    );
    const refusal = refusalByLimits(request, options) ?? space.refusal(request.width, request.finalLength);
    if (refusal !== undefined) throw new BadInput(refusal);
    for (const branch of request.branches) branch.owner = this.#owners++;
    request.arrival = this.#arrivals++;
    request.state = "waiting";
    request.times.submitted = this.#state.now();
    requests.set(request.id, request);
    waiting.insert(request);
  }

  /**
   * The next step, for the caller to run after those before it; undefined if there is nothing to do now: all are finished, or wait for
   * results.
   */
  schedule(): StepPlan | undefined {
    const state = this.#state;
    const { space, options, stats } = state;
    const step = new StepBuilder(space, options, stats.steps);
    const { preemptions } = stats;
    this.#catchUp(step);
    // Who has just made room needs it more than who comes anew.
    if (stats.preemptions === preemptions) this.#admit(step);
    const plan = step.build(state.swapOuts);
    if (!plan) return undefined;
    state.swapOuts = [];
    this.#inFlight.push({ plan, targets: step.targets });
    stats.steps++;
    stats.computedTokens += plan.tokens;
    stats.recomputedTokens += step.recomputed;
    for (const { pages } of plan.swapOuts) stats.swappedPages += pages.length;
    return plan;
  }

  /** What `schedule` did to requests since the last call: admissions and preemptions. */
  takeChanges(): SchedulerUpdate[] {
    const { changes } = this.#state;
    this.#state.changes = [];
    return changes;
  }

  /** Take the result of the oldest plan that has none. What is for sequences that have ended since is dropped. */
  update(plan: StepPlan, { tokens, logits }: StepResult): SchedulerUpdate[] {
    const state = this.#state;
    check(
      this.#inFlight[0]?.plan === plan,
      () => `scheduler: the result of plan ${plan.number} came out of turn`,
    );
    const { targets } = this.#inFlight.shift()!;
    const now = state.now();
    const updates: SchedulerUpdate[] = [];
    for (let sample = 0; sample < targets.length; sample++) {
      const branch = targets[sample]!;
      if (branch.request.isOver || branch.finishReason !== null) state.stats.surplusTokens++;
      else if (branch.request.search) takeLogits(state, branch, logits?.get(sample), now, updates);
      else takeToken(state, branch, tokens[sample]!, now, updates);
    }
    return updates;
  }

  /** End a request wherever it is; what is on its way for it will be dropped. Undefined if no such request is open. */
  abort(id: number): Request | undefined {
    const state = this.#state;
    const request = state.requests.get(id);
    if (!request) return undefined;
    for (const branch of request.live) branch.ended = "aborted";
    state.stats.aborted++;
    state.end(request, "aborted", state.now());
    return request;
  }

  /** Those who run plan their next tokens; the last-come make room where it is short. */
  #catchUp(step: StepBuilder): void {
    const { running } = this.#state;
    for (let i = 0; i < running.length && step.left > 0; i++) {
      const request = running.at(i);
      const copied = step.copies.length;
      while (!step.add(request)) {
        const victim = running.removeLast()!;
        // A request that makes room for itself is planned no more: the copies that it was about to make are not made.
        this.#preempt(victim, victim === request ? step.copies.splice(copied) : []);
        if (victim === request) break;
      }
    }
  }

  #preempt(victim: Request, copies: readonly PageCopy[]): void {
    const { space, options, waiting, stats, swapOuts, changes } = this.#state;
    const how = preempt(victim, space, options.preemption, copies, swapOuts);
    victim.state = "waiting";
    waiting.insert(victim);
    stats.preemptions++;
    changes.push({ type: "preempted", request: victim, how });
  }

  /** Those who wait get places, strictly in order: nobody is overtaken for being large. */
  #admit(step: StepBuilder): void {
    const { running, waiting, options, changes } = this.#state;
    let width = 0;
    for (const request of running) width += request.width;
    for (let request = waiting.first; request && step.left > 0; request = waiting.first) {
      width += request.width;
      if (width > options.maxSequences || request.hasPending) return;
      this.#keepOffHost(request);
      if (this.#isLeaving(request)) return;
      if (!admit(request, step, running.length === 0)) return;
      waiting.remove(request);
      running.insert(request);
      request.state = "running";
      if (request.cachedTokens === undefined) this.#noteFirst(request);
      changes.push({ type: "admitted", request });
    }
  }

  /** Pages that did not leave for the host yet are not had back from there in the same step: it may have no room for them. */
  #keepOffHost({ live }: Request): void {
    const state = this.#state;
    const owners = new Set(live.map(({ owner }) => owner));
    if (!state.swapOuts.some(({ owner }) => owners.has(owner))) return;
    state.swapOuts = state.swapOuts.filter(({ owner }) => !owners.has(owner));
    for (const branch of live) branch.reset();
  }

  /** Its pages are on their way to the host, and may not find room there. */
  #isLeaving({ live }: Request): boolean {
    const { isLeaving } = this.#state.options;
    return isLeaving !== undefined && live.some((b) => b.pagesOnHost > 0 && isLeaving(b.owner));
  }

  #noteFirst(request: Request): void {
    const { cachedTokens } = request.branches[0]!.holding!;
    request.cachedTokens = cachedTokens;
    request.times.admitted = this.#state.now();
    this.#state.stats.prefixQueries += request.prompt.length;
    this.#state.stats.prefixHits += cachedTokens;
  }
}

/** Why the limits of a step let the request never run; else undefined. */
function refusalByLimits(
  { width, prompt, search }: Request,
  { maxSequences, maxBatchedTokens, chunkedPrefill }: SchedulerOptions,
): string | undefined {
  const what = search ? "beams" : "n";
  if (width > maxSequences)
    return `${what} is ${width}, and at most ${maxSequences} sequences run at once: raise maxSequences, or lower ${what}`;
  if (search && width > maxBatchedTokens)
    return `beams is ${width}, and a step has at most ${maxBatchedTokens} tokens: all beams step together; raise maxBatchedTokens, or lower beams`;
  if (!chunkedPrefill && prompt.length > maxBatchedTokens)
    return `the prompt has ${prompt.length} tokens, and a step has at most ${maxBatchedTokens}: turn chunkedPrefill on, raise maxBatchedTokens, or shorten the prompt`;
  return undefined;
}
