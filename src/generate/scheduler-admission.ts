import { check } from "../check.ts";
import type { Holding } from "../kv/kv-space.ts";
import type { Request } from "./request.ts";
import type { Branch } from "./request-branch.ts";
import type { StepBuilder } from "./scheduler-step.ts";

/** The null page: what comes back into it nobody wants. */
const NULL_PAGE = 0;

/**
 * Find a place for a waiting request, and plan its first tokens. False if there is no room for it now, in the space or in the
 * step: then nothing has changed.
 *
 * @param isAlone nobody runs: if it does not fit now, it never will
 */
export function admit(request: Request, step: StepBuilder, isAlone: boolean): boolean {
  if (request.live.every((branch) => branch.pagesOnHost === 0)) return admitFresh(request, step);
  if (swapIn(request, step)) return true;
  if (!isAlone) return false;
  // Admission leaves a watermark free below the second of its branches and all after it. Computed again, they need not be admitted.
  for (const branch of request.live) branch.reset();
  return admitFresh(request, step);
}

/** One place, for the only branch or for the prompt that all branches share. */
function admitFresh(request: Request, step: StepBuilder): boolean {
  const { space, limits } = step;
  const leader = request.live[0]!;
  const isShared = request.live.length > 1;
  const tokens = isShared ? request.prompt : leader.tokens;
  const room = limits.chunkedPrefill ? step.left : limits.maxBatchedTokens;
  const holding = place(request, leader, tokens, Math.min(tokens.length, room), step);
  if (!holding) return false;
  request.isShared = isShared;
  leader.holding = holding;
  leader.planned = leader.committed = holding.cachedTokens;
  if (step.add(request) && leader.step > 0) return true;
  space.release(holding);
  leader.holding = undefined;
  leader.planned = leader.committed = 0;
  return false;
}

/** Places for all branches that have pages on the host, and the pages back into them. */
function swapIn(request: Request, step: StepBuilder): boolean {
  const { space } = step;
  const copied = step.copies.length;
  const swapped = step.swapIns.length;
  const branches = request.live.filter((branch) => branch.pagesOnHost > 0);
  const computed = branches.map(({ planned }) => planned);
  const isPlanned = branches.every((branch) => swapInBranch(request, branch, step)) && step.add(request);
  branches.forEach((branch, i) => {
    if (isPlanned) {
      branch.pagesOnHost = 0;
      return;
    }
    if (branch.holding) space.release(branch.holding);
    branch.holding = undefined;
    branch.planned = computed[i]!;
  });
  if (!isPlanned) {
    step.copies.splice(copied);
    step.swapIns.splice(swapped);
  }
  return isPlanned;
}

function swapInBranch(request: Request, branch: Branch, step: StepBuilder): boolean {
  const { space } = step;
  const { planned, owner, pagesOnHost } = branch;
  // Of a prompt that branches wait to share something must be left to compute: with its last token they get their forks.
  const tokens = request.isShared ? request.prompt : branch.tokens;
  const holding = place(request, branch, tokens, Math.min(tokens.length, planned + step.left), step);
  if (!holding) return false;
  branch.holding = holding;
  const { cachedTokens } = holding;
  branch.committed = cachedTokens;
  if (cachedTokens >= planned) {
    branch.planned = cachedTokens;
    return true;
  }
  if (!space.grow(holding, planned, step.copies)) return false;
  const pages = space.slotRow(holding).slice(0, pagesOnHost);
  check(
    pages.length === pagesOnHost,
    () => `scheduler: ${pagesOnHost} pages to swap in, and ${pages.length} to take them`,
  );
  pages.fill(NULL_PAGE, 0, Math.floor(cachedTokens / space.pageSize));
  step.swapIns.push({ owner, pages });
  return true;
}

function place(
  { finalLength, salt }: Request,
  { owner }: Branch,
  tokens: readonly number[],
  chunk: number,
  { space }: StepBuilder,
): Holding | undefined {
  return space.admit({ tokens, chunk, finalLength, salt, owner });
}
