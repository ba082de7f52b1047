import { setTimeout as sleep } from "node:timers/promises";
import { BadInput } from "../check.ts";
import type { Engine } from "../generate/engine.ts";
import type { EngineEvent, EngineMetrics, RequestOutput, StepRecord } from "../generate/engine-types.ts";
import type { SamplingOptions } from "../generate/sampler.ts";
import type { WorkloadRequest } from "./workload.ts";

// Many requests through one engine, each submitted when it arrives: what `vllm bench serve` measures, without a server between.

/** What the experiment needs of an Engine. */
export type ThroughputEngine = Pick<Engine, "now" | "open" | "submit" | "step" | "on" | "metrics">;

export interface ThroughputOptions {
  readonly sampling: SamplingOptions;
  /** Answers then have just the lengths that the workload says. */
  readonly ignoreEos: boolean;
  /** Default: the model's. */
  readonly eosIds?: readonly number[];
  /** Requests that may be in the engine at once; the others are held back. Default: all. */
  readonly maxConcurrency?: number;
  readonly signal?: AbortSignal;
  /** Called when a request is done with, and after every step. */
  readonly onProgress?: (done: number, total: number, running: number) => void;
}

/** A step, and the seconds after the start at which its tokens were known. */
export interface TimedStep extends StepRecord {
  readonly time: number;
}

/** A finished request, and which of the workload's it is. */
export interface FinishedRequest {
  readonly index: number;
  readonly output: RequestOutput;
}

/** A request that the engine can never run. */
export interface RefusedRequest {
  readonly index: number;
  readonly reason: string;
}

/** What EngineMetrics counts, from the start to the end of the measuring. */
export const COUNTERS = [
  "prefixQueries",
  "prefixHits",
  "preemptions",
  "recomputedTokens",
  "swappedPages",
  "computedTokens",
  "generatedTokens",
  "surplusTokens",
] as const satisfies readonly (keyof EngineMetrics)[];
export type Counters = Record<(typeof COUNTERS)[number], number>;

export interface MeasuredThroughput {
  /** The engine's clock when the first request was due: outputs tell their times by it. */
  readonly start: number;
  /** Seconds until the last request was finished, or the experiment broken off. */
  readonly duration: number;
  /** In the order of the workload. */
  readonly finished: readonly FinishedRequest[];
  readonly refused: readonly RefusedRequest[];
  readonly steps: readonly TimedStep[];
  readonly counters: Counters;
  /** What ended the experiment early: an error, or the signal's reason. */
  readonly error?: Error;
}

/** Node's timers can wait no longer; whoever wakes early waits again. */
const LONGEST_SLEEP_MS = 2 ** 31 - 1;
/** Tokens of a prompt whose computing is not what the warm-up is for. */
const SHORT_PROMPT = 4;

/**
 * Submit every request at its time of arrival and step the engine until all are finished. The engine is idle before and,
 * if nothing went wrong, after. An error or the signal ends it early, and what was finished before is kept.
 */
export async function measureThroughput(
  engine: ThroughputEngine,
  requests: readonly WorkloadRequest[],
  options: ThroughputOptions,
): Promise<MeasuredThroughput> {
  const before = engine.metrics();
  const start = engine.now;
  const indexOf = new Map<number, number>();
  const finished: FinishedRequest[] = [];
  const refused: RefusedRequest[] = [];
  const steps: TimedStep[] = [];
  const listener = (event: EngineEvent) => {
    if (event.type === "finished") finished.push({ index: indexOf.get(event.id)!, output: event.output });
    if (event.type === "step") steps.push({ ...event.step, time: event.time - start });
    if (event.type === "finished" || event.type === "step")
      options.onProgress?.(finished.length + refused.length, requests.length, steps.at(-1)?.running ?? 0);
  };
  const off = engine.on(listener, ["finished", "step"]);
  let error: Error | undefined;
  try {
    await submitAll(engine, requests, start, options, (index) => {
      try {
        indexOf.set(engine.submit(requestOptions(requests[index]!, index, options)), index);
      } catch (cause) {
        if (!(cause instanceof BadInput)) throw cause;
        refused.push({ index, reason: cause.message });
      }
    });
  } catch (cause) {
    error = cause as Error;
  } finally {
    off();
  }
  const end = finished.reduce((last, { output }) => Math.max(last, output.times.finished ?? 0), start);
  return {
    start,
    duration: (error === undefined ? end : engine.now) - start,
    finished: finished.sort((a, b) => a.index - b.index),
    refused,
    steps,
    counters: difference(engine.metrics(), before),
    ...(error && { error }),
  };
}

/** Calls `submit` for each request when it is due and has a place, and steps the engine as long as it has work. */
async function submitAll(
  engine: ThroughputEngine,
  requests: readonly WorkloadRequest[],
  start: number,
  { maxConcurrency = Number.POSITIVE_INFINITY, signal }: ThroughputOptions,
  submit: (index: number) => void,
): Promise<void> {
  let next = 0;
  const isDue = () => next < requests.length && requests[next]!.arrival <= engine.now - start;
  const ended = new AbortController();
  const wake = AbortSignal.any([ended.signal, ...(signal ? [signal] : [])]);
  let alarm: Promise<void> | undefined;
  try {
    for (;;) {
      signal?.throwIfAborted();
      while (isDue() && engine.open < maxConcurrency) submit(next++);
      const waits = next < requests.length && engine.open < maxConcurrency;
      if (engine.open === 0 && !waits) return;
      // One alarm at a time, though many steps may end before it rings.
      if (waits)
        alarm ??= wakeAt(start + requests[next]!.arrival, engine, wake).finally(() => {
          alarm = undefined;
        });
      await Promise.race([...(waits ? [alarm] : []), ...(engine.open > 0 ? [engine.step()] : [])]);
    }
  } finally {
    ended.abort();
  }
}

/** Resolves at `time` of the engine's clock, or when the signal is set. */
async function wakeAt(time: number, engine: ThroughputEngine, signal: AbortSignal): Promise<void> {
  const ms = Math.min(Math.max(0, (time - engine.now) * 1e3), LONGEST_SLEEP_MS);
  await sleep(ms, undefined, { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

function requestOptions(request: WorkloadRequest, index: number, options: ThroughputOptions) {
  const { prompt, outputLen, priority, salt } = request;
  const { sampling, ignoreEos, eosIds } = options;
  return { prompt, maxNewTokens: outputLen, sampling, sequenceId: index, ignoreEos, eosIds, priority, salt };
}

/**
 * The first `count` requests with other tokens and all at once: after them the engine has met most sizes of batch that the measured
 * ones have, and its prefix cache knows nothing of their prompts.
 */
export function rehearsal(
  requests: readonly WorkloadRequest[],
  count: number,
  vocabSize: number,
): WorkloadRequest[] {
  return requests
    .slice(0, count)
    .map((request) => ({ ...request, prompt: otherTokens(request.prompt, vocabSize), arrival: 0 }));
}

function otherTokens(prompt: readonly number[], vocabSize: number): number[] {
  return prompt.map((id) => (id + 1) % vocabSize);
}

/** What a warm-up needs to know of the engine and the model. */
export interface WarmUpShape {
  /** Sequences that the measured requests may run at once. 0: no warm-up. */
  readonly sequences: number;
  readonly maxBatchedTokens: number;
  readonly vocabSize: number;
}

/**
 * A shorter warm-up than `rehearsal`, where many engines are measured: two rounds of requests with other tokens. First batches of
 * every size, as half of the sequences end with each step; then prompts as they are, for a step as full as it gets and more.
 */
export function warmUpRounds(requests: readonly WorkloadRequest[], shape: WarmUpShape): WorkloadRequest[][] {
  const { sequences, maxBatchedTokens, vocabSize } = shape;
  const count = Math.min(sequences, requests.length);
  if (count === 0) return [];
  const others = requests.slice(0, count).map((r) => otherTokens(r.prompt, vocabSize));
  // All in one step, so that none has ended before the last begins.
  const each = Math.max(1, Math.floor(maxBatchedTokens / count));
  const batches = others.map((prompt, i) => ({
    prompt: prompt.slice(0, Math.min(each, SHORT_PROMPT)),
    outputLen: Math.min(requests[i]!.outputLen, 2 + Math.floor(Math.log2(count / (i + 1)))),
    arrival: 0,
  }));
  let tokens = 0;
  const prompts = others.filter((prompt) => {
    const wanted = tokens <= maxBatchedTokens;
    tokens += prompt.length;
    return wanted;
  });
  return [batches, prompts.map((prompt) => ({ prompt, outputLen: 1, arrival: 0 }))];
}

/** A GPU's clocks and the host's compiler need so many seconds of work before a step takes the time that it will take. */
const WARM_SECONDS = 2;

/** Run `round` once; on a GPU again and again until it has run for 2 seconds. On the software adapter nothing would become faster. */
export async function untilWarm(isSoftware: boolean, round: () => Promise<void>): Promise<void> {
  const begun = performance.now();
  do await round();
  while (!isSoftware && performance.now() - begun < 1e3 * WARM_SECONDS);
}

function difference(after: EngineMetrics, before: EngineMetrics): Counters {
  return Object.fromEntries(COUNTERS.map((name) => [name, after[name] - before[name]])) as Counters;
}
