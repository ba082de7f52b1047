// One row of the capacity experiment with a model: the same requests as the simulation, on the engine.
import { check } from "../check.ts";
import { Engine } from "../generate/engine.ts";
import type { EngineMetrics, RequestOutput } from "../generate/engine-types.ts";
import { slotBytes } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import type { CapacityOptions } from "./capacity.ts";
import { type CapacityLayout, heldSlots, usableTokens } from "./capacity-cases.ts";
import { type CapacityStep, memoryFigures } from "./capacity-figures.ts";
import type { MeasuredCapacity } from "./capacity-results.ts";
import { requestOptions } from "./capacity-simulation.ts";
import { mean } from "./measure.ts";
import type { WorkloadRequest } from "./workload.ts";

/** What a measured row needs to know of the experiment. */
export type MeasureOptions = Pick<
  CapacityOptions,
  | "budget"
  | "maxSequences"
  | "maxBatchedTokens"
  | "chunkedPrefill"
  | "preemption"
  | "kvDtype"
  | "async"
  | "warmup"
  | "signal"
>;

/** Run the requests, all there from the beginning, to their ends. Throws what the engine throws, and the signal's reason. */
export async function measureLayout(
  model: Gpt2,
  layout: CapacityLayout,
  requests: readonly WorkloadRequest[],
  options: MeasureOptions,
): Promise<MeasuredCapacity> {
  const { budget, signal, warmup } = options;
  const { maxSequences, maxBatchedTokens, chunkedPrefill, preemption, kvDtype, async } = options;
  const engine = await Engine.open(model, {
    layout: layout.layout,
    ...(layout.layout === "pages" ? { pageSize: layout.pageSize } : {}),
    prefixCache: layout.prefixCache,
    kvBytes: heldSlots(layout, budget) * slotBytes(model.cacheShape(kvDtype)),
    maxSeqLen: budget.maxSeqLen,
    watermark: budget.watermark,
    ...{ maxSequences, maxBatchedTokens, chunkedPrefill, preemption, kvDtype, async },
  });
  try {
    const total = usableTokens(layout, budget);
    check(
      engine.memory.tokens === total,
      () => `bench capacity: the engine holds ${engine.memory.tokens} tokens, the simulation ${total}`,
    );
    // The salt keeps a run from finding what the one before left in the prefix cache.
    const run = async (salt: string) => {
      for (const request of requests) engine.submit({ ...requestOptions(request), salt });
      await engine.run(signal);
      signal?.throwIfAborted();
    };
    for (let i = 0; i < warmup; i++) await run(`warm-up ${i}`);

    const steps: CapacityStep[] = [];
    const outputs: RequestOutput[] = [];
    const stop = engine.on((event) => {
      if (event.type === "finished") outputs.push(event.output);
      if (event.type !== "step") return;
      const { tokens, sampled, running, waiting, preempted, kv } = event.step;
      const { reserved, used, logical } = kv;
      steps.push({ tokens, sampled, running, waiting, preempted, reserved, used, logical });
    });
    const before = engine.metrics();
    const start = engine.now;
    await run("");
    const seconds = engine.now - start;
    stop();
    const figures = memoryFigures(steps, { total, budget: budget.kvTokens, limits: options });
    return { ...times(outputs, seconds), ...figures, ...counted(before, engine.metrics()) };
  } finally {
    await engine.close();
  }
}

function times(
  outputs: readonly RequestOutput[],
  seconds: number,
): Pick<
  MeasuredCapacity,
  "seconds" | "outputTokensPerSecond" | "totalTokensPerSecond" | "meanTimeToFirstToken" | "meanEndToEnd"
> {
  const news = outputs.reduce((n, o) => n + o.completions.reduce((m, c) => m + c.tokens.length, 0), 0);
  const prompts = outputs.reduce((n, o) => n + o.promptTokens, 0);
  return {
    seconds,
    outputTokensPerSecond: news / seconds,
    totalTokensPerSecond: (news + prompts) / seconds,
    meanTimeToFirstToken: mean(outputs.map(({ times: t }) => t.firstToken! - t.submitted)),
    meanEndToEnd: mean(outputs.map(({ times: t }) => t.finished! - t.submitted)),
  };
}

function counted(before: EngineMetrics, after: EngineMetrics) {
  return {
    prefixQueries: after.prefixQueries - before.prefixQueries,
    prefixHits: after.prefixHits - before.prefixHits,
    recomputedTokens: after.recomputedTokens - before.recomputedTokens,
  };
}
