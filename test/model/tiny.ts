import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../../src/formats/checkpoint.ts";
import type { Gpu } from "../../src/gpu/gpu.ts";
import type { CacheMode, KvCache } from "../../src/kv/cache.ts";
import { type CacheOptions, makeCache } from "../../src/kv/make-cache.ts";
import type { Gpt2 } from "../../src/model/gpt2.ts";
import { widenStored } from "../../src/model/widen-stored.ts";

/** Path of a golden file: see the house documents for what each holds. */
export const golden = (path: string): string => fileURLToPath(new URL(`../golden/${path}`, import.meta.url));

/** The GPT-2 of 2 layers, 3 heads and 48 channels, vocabulary 131, context 64. */
export const TINY = golden("tiny");

/** A tensor of a golden file, as floats; ids come exact. */
export async function goldenTensor(path: string, name: string): Promise<Float32Array> {
  const file = await openCheckpoint(golden(path));
  try {
    const tensor = file.tensors.get(name);
    if (!tensor) throw new Error(`${path} has no ${name}`);
    const bytes = (await tensor.read()).slice();
    return tensor.dtype === "I32"
      ? Float32Array.from(new Int32Array(bytes.buffer))
      : widenStored(bytes, tensor.dtype);
  } finally {
    await file.close();
  }
}

/** A cache with room for `sequences` of the model's whole context. */
export function cacheFor(
  gpu: Gpu,
  model: Gpt2,
  mode: CacheMode,
  sequences: number,
  options: Partial<CacheOptions> = {},
): KvCache {
  const { contextLength } = model.config;
  const all = { mode, sequences, contextLength, expectedLength: contextLength, ...options };
  return makeCache(gpu, model.cacheShape("f32"), all);
}

/** Token ids from 1 to 130, the same for the same seed; 0 is the tiny model's end of text. */
export function tokensOf(seed: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => 1 + ((seed * 7919 + i * i * 31 + i * 17 + 5) % 130));
}
