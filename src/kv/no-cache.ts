import type { Gpu } from "../gpu/gpu.ts";
import { attention } from "../ops/attention.ts";
import { kvWrite } from "../ops/kv-write.ts";
import { scope, Tensor } from "../tensor.ts";
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
      attend: (_layer, qkv, slotMapping, batch, scale) =>
        scope(gpu, () => {
          const strip = () =>
            Tensor.empty(gpu, [total, shape.heads, shape.headSize], {
              dtype: shape.dtype,
              label: "kv of one layer",
            });
          const k = strip();
          const v = strip();
          kvWrite(qkv, slotMapping, k, v);
          return attention(qkv, k, v, stripStarts, batch, scale);
        }),
    };
  }

  close(): void {}

  usage(): KvUsage {
    return { allocated: 0, reserved: 0, used: 0, wasted: 0 };
  }

  free(): void {}
}
