// One row of the capacity experiment with a model: the same requests as the simulation, on the engine.
import { BadInput } from "../check.ts";
import { Engine } from "../generate/engine.ts";
import { slotBytes } from "../kv/cache.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import type { CapacityOptions } from "./capacity.ts";
import { type CapacityLayout, heldSlots, usableTokens } from "./capacity-cases.ts";
import { memoryFigures } from "./capacity-figures.ts";
import type { MeasuredCapacity } from "./capacity-results.ts";
import { GREEDY } from "./capacity-simulation.ts";
import { mean } from "./measure.ts";
import { type MeasuredThroughput, measureThroughput, untilWarm, warmUpRounds } from "./throughput.ts";
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

/**
 * Run the requests, all there from the beginning, to their ends. `atOnce` sequences are what the warm-up prepares for; on a GPU it lasts
 * 2 seconds at least.
 * Throws what the engine throws, and the signal's reason.
 */
export async function measureLayout(
  model: Gpt2,
  layout: CapacityLayout,
  requests: readonly WorkloadRequest[],
  atOnce: number,
  options: MeasureOptions,
): Promise<MeasuredCapacity> {
  const { budget, signal, maxSequences, maxBatchedTokens, chunkedPrefill, preemption, kvDtype } = options;
  const engine = await Engine.open(model, {
    layout: layout.layout,
    ...(layout.layout === "pages" ? { pageSize: layout.pageSize } : {}),
    prefixCache: layout.prefixCache,
    kvBytes: heldSlots(layout, budget) * slotBytes(model.cacheShape(kvDtype)),
    maxSeqLen: budget.maxSeqLen,
    watermark: budget.watermark,
    async: options.async,
    ...{ maxSequences, maxBatchedTokens, chunkedPrefill, preemption, kvDtype },
  });
  try {
    const total = usableTokens(layout, budget);
    if (engine.memory.tokens !== total)
      throw new BadInput(
        `the budget is ${budget.kvTokens} slots, of which ${total} can be had; this GPU's buffers hold ${engine.memory.tokens}: ` +
          "lower --kv-tokens or --kv-memory, or use --kv-dtype f16",
      );
    const run = async (workload: readonly WorkloadRequest[]) => {
      const measured = await measureThroughput(engine, workload, { ...GREEDY, signal });
      if (measured.error) throw measured.error;
      return measured;
    };
    const { vocabSize } = model.config;
    const sequences = options.warmup ? atOnce : 0;
    const rounds = warmUpRounds(requests, { sequences, maxBatchedTokens, vocabSize });
    await untilWarm(model.gpu.info.software || rounds.length === 0, async () => {
      for (const round of rounds) await run(round);
    });
    const measured = await run(requests);
    const steps = measured.steps.map((s) => ({ ...s, ...s.kv }));
    const { prefixQueries, prefixHits, recomputedTokens } = measured.counters;
    return {
      ...times(measured),
      ...memoryFigures(steps, { total, budget: budget.kvTokens, limits: options }),
      ...{ prefixQueries, prefixHits, recomputedTokens },
    };
  } finally {
    await engine.close();
  }
}

type Times = Pick<
  MeasuredCapacity,
  "seconds" | "outputTokensPerSecond" | "totalTokensPerSecond" | "meanTimeToFirstToken" | "meanEndToEnd"
>;

function times({ duration: seconds, finished }: MeasuredThroughput): Times {
  const outputs = finished.map(({ output }) => output);
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
