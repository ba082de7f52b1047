import { check } from "../check.ts";
import type { Request } from "./request.ts";
import type { Branch } from "./request-branch.ts";
import { moveBeams } from "./scheduler-beams.ts";
import type { SchedulerState } from "./scheduler-state.ts";
import { commitKnown } from "./scheduler-step.ts";
import { NO_TOKEN, type SchedulerUpdate } from "./scheduler-types.ts";

/** A token that was sampled for a branch is known. Adds to `updates` what came of it. */
export function takeToken(
  state: SchedulerState,
  branch: Branch,
  token: number,
  now: number,
  updates: SchedulerUpdate[],
): void {
  const { request, index, owner } = branch;
  const sequence = branch.sequence!;
  branch.pending--;
  if (token === NO_TOKEN) {
    fail(state, request, now, updates);
    return;
  }
  const text = sequence.accept(token);
  state.stats.generatedTokens++;
  noteTime(state, branch, now);
  if (index === 0) request.tokenTimes.push(now);
  const { finishReason } = sequence;
  updates.push({ type: "token", request, index, owner, token, text, finishReason });
  if (finishReason === null) {
    commitKnown(state.space, branch);
    return;
  }
  request.live = request.live.filter((other) => other !== branch);
  state.leave(branch);
  if (request.live.length === 0) finish(state, request, now, updates);
}

/** The logits of a beam are known. The search goes on when those of all its beams are. */
export function takeLogits(
  state: SchedulerState,
  branch: Branch,
  logits: Float32Array | undefined,
  now: number,
  updates: SchedulerUpdate[],
): void {
  const { request } = branch;
  check(logits, () => `scheduler: request ${request.id} is a search, and its logits did not come`);
  const search = request.search!;
  request.logits.push(logits);
  if (request.logits.length < request.live.length) return;
  const choices = search.advance(request.logits);
  request.logits = [];
  request.awaitsLogits = false;
  if (choices === undefined) {
    fail(state, request, now, updates);
    return;
  }
  noteTime(state, request.branches[0]!, now);
  request.tokenTimes.push(now);
  if (!search.isDone) {
    moveBeams(request, choices, state.space);
    return;
  }
  for (const { tokens } of search.results) state.stats.generatedTokens += tokens.length;
  finish(state, request, now, updates);
}

/** A branch has a token more. The beams of a search count as one. */
function noteTime({ latencies }: SchedulerState, branch: Branch, now: number): void {
  const { times } = branch.request;
  if (times.firstToken === undefined) latencies.first(times.submitted, now);
  times.firstToken ??= now;
  if (branch.tokenTime !== undefined) latencies.next(branch.tokenTime, now);
  branch.tokenTime = now;
}

function finish(state: SchedulerState, request: Request, now: number, updates: SchedulerUpdate[]): void {
  state.stats.finished++;
  state.end(request, "finished", now);
  updates.push({ type: "finished", request });
}

/** Others go on. */
function fail(state: SchedulerState, request: Request, now: number, updates: SchedulerUpdate[]): void {
  request.error =
    "a logit is NaN or Infinity, or none is finite; there is no token to choose: the model's weights may be damaged";
  for (const branch of request.live) branch.ended = "error";
  state.end(request, "failed", now);
  updates.push({ type: "finished", request });
}
