import type { KvSpace } from "../kv/kv-space.ts";
import { EngineLatencies } from "./engine-metrics.ts";
import type { Request } from "./request.ts";
import type { Branch } from "./request-branch.ts";
import { RequestQueue } from "./scheduler-queue.ts";
import type { SchedulerOptions, SchedulerUpdate } from "./scheduler-types.ts";
import type { PlanSwap } from "./step-plan.ts";

/** Who is where. A request is in one of the two queues until it is over. */
export class SchedulerState {
  readonly space: KvSpace;
  readonly options: SchedulerOptions;
  /** Requests by id, in the order in which they came. */
  readonly requests = new Map<number, Request>();
  readonly running = new RequestQueue();
  /** New ones and preempted ones. */
  readonly waiting = new RequestQueue();
  /** Pages that the next plan takes to the host. */
  swapOuts: PlanSwap[] = [];
  /** What nobody has been told. */
  changes: SchedulerUpdate[] = [];
  readonly stats = {
    prefixQueries: 0,
    prefixHits: 0,
    preemptions: 0,
    recomputedTokens: 0,
    swappedPages: 0,
    steps: 0,
    computedTokens: 0,
    generatedTokens: 0,
    surplusTokens: 0,
    finished: 0,
    aborted: 0,
  };

  readonly latencies = new EngineLatencies();

  constructor(space: KvSpace, options: SchedulerOptions) {
    this.space = space;
    this.options = options;
  }

  /** Seconds. */
  now(): number {
    return this.options.clock?.() ?? performance.now() / 1e3;
  }

  /** A request is over: its places are free at once, whatever is on its way. */
  end(request: Request, state: "finished" | "aborted" | "failed", now: number): void {
    (request.state === "running" ? this.running : this.waiting).remove(request);
    request.state = state;
    request.times.finished = now;
    this.requests.delete(request.id);
    for (const branch of request.branches) this.leave(branch);
  }

  /** A branch has ended: its place is free, and what waits to go to the host need not. */
  leave(branch: Branch): void {
    if (branch.holding) this.space.release(branch.holding);
    branch.holding = undefined;
    if (this.swapOuts.length > 0) this.swapOuts = this.swapOuts.filter(({ owner }) => owner !== branch.owner);
  }
}
