import { slotBytes } from "../kv/cache.ts";
import type { KvSpace } from "../kv/kv-space.ts";
import { PagedSpace } from "../kv/page-space.ts";
import { StripSpace } from "../kv/strip-space.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { RaggedStep } from "../model/ragged-step.ts";
import type { Tokenizer } from "../tokenizer.ts";
import { type EngineMemory, memoryLines, planMemory } from "./engine-memory.ts";
import { type EngineSettings, engineSettings } from "./engine-settings.ts";
import type { StepDevice } from "./engine-steps.ts";
import type { EngineOptions } from "./engine-types.ts";

/** What an Engine is made of. */
export interface EngineParts {
  readonly settings: EngineSettings;
  readonly memory: EngineMemory;
  readonly space: KvSpace;
  readonly device: StepDevice;
  readonly vocabSize: number;
  /** Of requests that do not name their own. */
  readonly eosIds: readonly number[];
  readonly tokenizer: Tokenizer | undefined;
}

/** For lists of pages to move, and params of the kernels that move them. */
const MOVE_BYTES = 2 ** 18;

/** Share out the memory and take it. Throws BadInput on options that cannot be or too small a budget, OutOfMemory. */
export async function openParts(model: Gpt2, options: EngineOptions): Promise<EngineParts> {
  const { gpu, config } = model;
  const settings = engineSettings(options, config.contextLength, gpu.forms);
  const { layout, pageSize, kvDtype, maxSequences, maxBatchedTokens, maxSeqLen, preemption } = settings;
  const step = {
    layout: layout === "pages" ? "pages" : "strips",
    pageSize,
    kvDtype,
    maxSequences,
    maxBatchedTokens,
    maxSeqLen,
  } as const;
  // What is only kept for reuse is no part of what is taken.
  gpu.trim();
  const shape = model.cacheShape(kvDtype);
  const before = gpu.memory.current;
  const { budget } = gpu.memory;
  const computing = RaggedStep.footprint(model, step).total + MOVE_BYTES;
  // A sequence on its way to the host, but not much of a small budget: what finds no room there is computed again.
  const swapping =
    preemption === "swap"
      ? Math.min(maxSeqLen * slotBytes(shape), Math.max(0, budget - before - computing) / 16)
      : 0;
  const limits = {
    before,
    stepBytes: computing + swapping,
    budget,
    maxBindingBytes: gpu.maxBindingBytes,
  };
  const memory = planMemory(settings, shape, limits);
  if (options.log) for (const line of memoryLines(memory, settings, limits)) options.log(line);
  const space = makeSpace(settings, memory);
  const device = await RaggedStep.open(model, { ...step, slots: space.slots });
  const { vocabSize, eosTokenIds: eosIds } = config;
  return { settings, memory, space, device, vocabSize, eosIds, tokenizer: options.tokenizer };
}

/** Who has which of the planned slots. */
export function makeSpace(settings: EngineSettings, { pages }: Pick<EngineMemory, "pages">): KvSpace {
  const { layout, pageSize, prefixCache, watermark, maxSeqLen } = settings;
  if (layout === "pages") return new PagedSpace({ pages, pageSize, prefixCache, watermark });
  const policy = layout === "strips-max" ? "max" : "exact";
  return new StripSpace({ slots: pages, policy, maxLength: maxSeqLen });
}
