import { Arena } from "../gpu/arena.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { KvCache } from "../kv/cache.ts";
import { NoCache } from "../kv/no-cache.ts";
import { scope, type Tensor } from "../tensor.ts";
import type { BatchItem } from "./batch.ts";
import type { ModelConfig } from "./config.ts";
import type { Products } from "./linear.ts";
import { type MemoryPlan, memoryPlan, productForm } from "./memory-plan.ts";

/** So many new tokens, and rows of logits: a step, or the largest of several that take the same memory. */
export interface StepSize {
  readonly rows: number;
  readonly samples: number;
}

/** The size of a step of these new tokens, with logits for each sequence. */
export function stepSize(items: readonly BatchItem[]): StepSize {
  return { rows: items.reduce((rows, { tokens }) => rows + tokens.length, 0), samples: items.length };
}

/** Plans a model's forward passes, and runs them by the plan. */
export class StepScratch {
  private readonly gpu: Gpu;
  private readonly config: ModelConfig;
  /** The last plan: the next step is often of the same size. */
  private last: { readonly key: string; readonly plan: MemoryPlan } | undefined;

  constructor(gpu: Gpu, config: ModelConfig) {
    this.gpu = gpu;
    this.config = config;
  }

  /**
   * Run `body`, a step of up to `size`, with its activations in buffers of the plan. They come from the pool and go back to it,
   * but for what `body` returns, which is its caller's. Throws OutOfMemory.
   */
  within<T extends Tensor | undefined>(size: StepSize, cache: KvCache, products: Products, body: () => T): T {
    const { sizes, bufferOf } = this.plan(size, cache, products);
    const arena = new Arena(this.gpu.memory, sizes, "forward pass", { exact: false });
    try {
      return arena.within(sizes, () => scope(this.gpu, body), bufferOf);
    } finally {
      arena.dissolve();
    }
  }

  private plan({ rows, samples }: StepSize, cache: KvCache, products: Products): MemoryPlan {
    const forgets = cache instanceof NoCache ? cache.shape : undefined;
    const form = { ...productForm(products), ...(forgets ? { forgets } : {}) };
    const key = JSON.stringify([rows, samples, form]);
    if (this.last?.key !== key)
      this.last = { key, plan: memoryPlan(this.config, { rows, samples, ...form }) };
    return this.last.plan;
  }
}
