import type { Gpu } from "../gpu/gpu.ts";
import { Tensor } from "../tensor.ts";
import { lookInStrips } from "./attend-slots.ts";
import {
  type CacheShape,
  type CacheStep,
  type KvCache,
  type KvUsage,
  type Place,
  type StepRequest,
  sum,
} from "./cache.ts";

/**
 * No cache: each step is given every token of every sequence and computes all keys and values anew. They live for one
 * layer, as activations, and are forgotten.
 */
export class NoCache implements KvCache {
  readonly mode = "none";
  readonly remembers = false;
  private readonly gpu: Gpu;
  readonly shape: CacheShape;

  constructor(gpu: Gpu, shape: CacheShape) {
    this.gpu = gpu;
    this.shape = shape;
  }

  open(): Place {
    return { length: 0 };
  }

  prepare(requests: readonly StepRequest[]): CacheStep {
    const { gpu, shape } = this;
    const counts = requests.map((r) => r.count);
    const total = sum(counts);
    const starts = counts.map((_, i) => sum(counts.slice(0, i)));
    const stripStarts = Tensor.from(gpu, [starts.length], starts, {
      dtype: "u32",
      purpose: "tables",
      label: "strip starts",
    });
    return {
      slotMapping: Uint32Array.from({ length: total }, (_, i) => i),
      kv: () => {
        const strip = () =>
          Tensor.empty(gpu, [total, shape.heads, shape.headSize], {
            dtype: shape.dtype,
            label: "kv of one layer",
          });
        return { k: strip(), v: strip() };
      },
      look: lookInStrips(stripStarts),
    };
  }

  close(): void {}

  usage(): KvUsage {
    return { allocated: 0, reserved: 0, used: 0, wasted: 0 };
  }

  free(): void {}
}
