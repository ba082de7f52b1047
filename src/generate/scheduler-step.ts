import { check } from "../check.ts";
import type { KvSpace, PageCopy } from "../kv/kv-space.ts";
import type { Request } from "./request.ts";
import type { Branch } from "./request-branch.ts";
import type { PlanPiece, PlanSample, PlanSwap, StepPlan } from "./step-plan.ts";

export interface StepLimits {
  /** Most new tokens of a step. */
  readonly maxBatchedTokens: number;
  /** What does not fit into the rest of a step is cut; else it waits for a step that has room for all of it. */
  readonly chunkedPrefill: boolean;
}

/** The plan of one step while it is made: request after request catches up with its tokens, until the budget is used up. */
export class StepBuilder {
  readonly space: KvSpace;
  readonly limits: StepLimits;
  /** Number of the plan. */
  readonly number: number;
  /** Tokens that the step may still have. */
  left: number;
  readonly copies: PageCopy[] = [];
  readonly swapIns: PlanSwap[] = [];
  /** Tokens that were computed before, and lost by a preemption. */
  recomputed = 0;
  /** The branch of each sample. */
  readonly targets: Branch[] = [];
  readonly #pieces: PlanPiece[] = [];
  readonly #samples: PlanSample[] = [];

  constructor(space: KvSpace, limits: StepLimits, number: number) {
    this.space = space;
    this.limits = limits;
    this.number = number;
    this.left = limits.maxBatchedTokens;
  }

  /**
   * Plan what the request can do in this step, which may be nothing. False if the space has no room for it: nothing is planned then, but
   * some of its holdings may have grown, so try again after making room, or release them.
   */
  add(request: Request): boolean {
    const total = this.#shareOut(request);
    if (total === 0) return true;
    const { live, isShared } = request;
    const count = isShared ? 1 : live.length;
    for (let i = 0; i < count; i++) {
      const { holding, planned, step } = live[i]!;
      if (step > 0 && !this.space.grow(holding!, planned + step, this.copies)) return false;
    }
    // Only now, when nothing can be taken back, may others find its pages in the prefix cache.
    for (let i = 0; i < count; i++) if (live[i]!.step > 0) this.#plan(live[i]!);
    return true;
  }

  /** The plan, or undefined if nothing is to be computed. */
  build(swapOuts: readonly PlanSwap[]): StepPlan | undefined {
    if (this.#pieces.length === 0) return undefined;
    return {
      number: this.number,
      swapOuts,
      copies: this.copies,
      swapIns: this.swapIns,
      pieces: this.#pieces,
      samples: this.#samples,
      tokens: this.limits.maxBatchedTokens - this.left,
    };
  }

  /** Set `step` of the branches that have a place. Returns the sum. */
  #shareOut(request: Request): number {
    const { live, isShared, search, lastLength } = request;
    if (isShared) {
      const [leader] = live;
      leader!.step = this.#cut(request.prompt.length - leader!.planned, this.left);
      return leader!.step;
    }
    let total = 0;
    if (search && live.length > 1) {
      // All beams sample in one step: if they cannot, each stops before its last token. Until their logits have come nothing is missing.
      let missing = 0;
      for (const { length, planned } of live) missing += length - planned;
      const kept = missing > this.left ? 1 : 0;
      for (const branch of live) {
        branch.step = Math.min(branch.length - kept - branch.planned, this.left - total);
        total += branch.step;
      }
      return total;
    }
    for (const branch of live) {
      const { length, planned } = branch;
      // The last token of all is sampled and never computed.
      branch.step = length < lastLength ? this.#cut(length - planned, this.left - total) : 0;
      total += branch.step;
    }
    return total;
  }

  /** How many of `missing` tokens to compute if `left` may be. */
  #cut(missing: number, left: number): number {
    const { chunkedPrefill, maxBatchedTokens } = this.limits;
    // What has grown beyond a whole step before it was preempted can only come back in parts.
    if (missing <= left || chunkedPrefill || missing > maxBatchedTokens) return Math.min(missing, left);
    return 0;
  }

  #plan(branch: Branch): void {
    const { request, planned: begin, step } = branch;
    const end = begin + step;
    const isPending = branch.pending > 0;
    if (isPending && end !== branch.length)
      check(
        false,
        `scheduler: request ${request.id}: tokens ${begin} to ${end} of ${branch.length} are not known`,
      );
    const tokens = isPending
      ? [{ plan: branch.pendingPlan, sample: branch.pendingSample }]
      : branch.tokens.slice(begin, end);
    this.#pieces.push({ holding: branch.holding!, position: begin, tokens });
    this.left -= step;
    this.recomputed += Math.max(0, Math.min(end, branch.computedBefore) - begin);
    branch.planned = end;
    commitKnown(this.space, branch);
    if (request.isShared) {
      if (end === request.prompt.length) this.#spread(branch);
    } else if (end === branch.length) this.#sample(branch);
  }

  /** The prompt is computed: the other branches get forks, and a first token if they have none. */
  #spread(leader: Branch): void {
    const { request, planned, committed } = leader;
    const isFirst = leader.length === planned;
    request.isShared = false;
    for (const branch of request.live) {
      if (branch !== leader) {
        branch.holding = this.space.fork(leader.holding!, branch.owner);
        branch.planned = planned;
        branch.committed = committed;
      }
      if (isFirst) this.#sample(branch);
    }
  }

  /** A token after the last piece. */
  #sample(branch: Branch): void {
    const { request, owner, index } = branch;
    const wantsLogits = request.search !== undefined;
    this.#samples.push({
      piece: this.#pieces.length - 1,
      owner,
      sampling: request.sampling,
      sequenceId: request.sequenceId + index,
      generated: branch.length - request.prompt.length,
      wantsLogits,
    });
    this.targets.push(branch);
    if (wantsLogits) request.awaitsLogits = true;
    else {
      branch.pending++;
      branch.pendingPlan = this.number;
      branch.pendingSample = this.#samples.length - 1;
    }
  }
}

/** Tell the space of full pages of which it does not know. */
export function commitKnown(space: KvSpace, branch: Branch): void {
  const { holding, tokens, planned, committed } = branch;
  const length = Math.min(planned, tokens.length);
  if (holding === undefined || length - committed < space.pageSize) return;
  space.commit(holding, tokens, length);
  branch.committed = length - (length % space.pageSize);
}
