import type { KvSpace, PageCopy } from "../kv/kv-space.ts";
import type { Preemption } from "./engine-types.ts";
import type { Request } from "./request.ts";
import type { PlanSwap } from "./step-plan.ts";

/** Give back all places of a request. */
export function releaseAll(request: Request, space: KvSpace): void {
  for (const branch of request.branches) {
    if (branch.holding) space.release(branch.holding);
    branch.holding = undefined;
  }
}

/**
 * Take a running request's places away. What it has computed will be computed again, or is copied to the host: then `swapOuts` gets
 * the pages. Tokens that are on their way still come. Returns what was done.
 *
 * @param copies page copies of the plan that is being made that are this request's: its pages have not got these contents yet
 */
export function preempt(
  request: Request,
  space: KvSpace,
  preemption: Preemption,
  copies: readonly PageCopy[],
  swapOuts: PlanSwap[],
): Preemption {
  // Strips would have to be copied whole; beams whose logits are on their way are others when they come.
  const swaps = preemption === "swap" && space.kind === "pages" && !request.awaitsLogits;
  const before = new Map(copies.map(({ from, to }) => [to, from]));
  for (const branch of request.live) {
    const { holding, planned, owner } = branch;
    // All tokens are sampled: nothing of it is needed any more.
    const isComplete = branch.length >= request.lastLength;
    if (!holding || planned === 0 || !swaps || isComplete) {
      branch.reset();
      continue;
    }
    branch.pagesOnHost = Math.ceil(planned / space.pageSize);
    const pages = space.slotRow(holding).slice(0, branch.pagesOnHost);
    swapOuts.push({ owner, pages: pages.map((page) => before.get(page) ?? page) });
  }
  releaseAll(request, space);
  request.preemptions++;
  return swaps ? "swap" : "recompute";
}
