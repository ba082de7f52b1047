import type { KvSpace } from "../kv/kv-space.ts";
import type { BeamChoice } from "./beam-search.ts";
import type { Request } from "./request.ts";

/**
 * Make the beams of the next step of those of this one: a beam's first continuation takes its place over, each further one gets a fork, and
 * a beam that does not go on gives its place back. A preempted request has no places; then only tokens move.
 */
export function moveBeams(request: Request, choices: readonly BeamChoice[], space: KvSpace): void {
  const { live: parents, branches } = request;
  const tokens = choices.map(({ parent, token }) => [...parents[parent]!.tokens, token]);
  const continued = new Set(choices.map(({ parent }) => parents[parent]!));
  for (const parent of parents) {
    if (continued.has(parent)) continue;
    if (parent.holding) space.release(parent.holding);
    parent.holding = undefined;
  }
  const unused = branches.filter((branch) => !continued.has(branch));
  request.live = choices.map(({ parent }) => {
    const from = parents[parent]!;
    if (continued.delete(from)) return from;
    const twin = unused.pop()!;
    twin.holding = from.holding && space.fork(from.holding, twin.owner);
    twin.planned = from.planned;
    twin.committed = from.committed;
    twin.computedBefore = from.computedBefore;
    return twin;
  });
  request.live.forEach((branch, i) => {
    branch.beamTokens = tokens[i]!;
  });
}
