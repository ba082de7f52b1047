import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ContiguousCache } from "../../src/kv/contiguous-cache.ts";
import { PagedCache } from "../../src/kv/paged-cache.ts";
import { loadConfig, parameterCount, parseConfig } from "../../src/model/config.ts";
import { expectedTensors, WEIGHT_DTYPES } from "../../src/model/expected-tensors.ts";
import {
  contiguousBytes,
  mostThatFit,
  pagedBytes,
  stepBytes,
  weightBytes,
} from "../../src/model/footprint.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { product } from "../../src/tensor.ts";
import { openTestGpu } from "../gpu-fixture.ts";

const golden = (name: string) => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));
const gpu = await openTestGpu();

async function settled() {
  await gpu.finish();
  gpu.memory.trim();
  gpu.memory.resetPeak();
  return gpu.memory.currentByPurpose;
}

describe("expected tensors", () => {
  it.each([
    ["small", { n_layer: 12, n_head: 12, n_embd: 768 }, 124_439_808],
    ["XL", { n_layer: 48, n_head: 25, n_embd: 1600 }, 1_557_611_200],
  ])("of GPT-2 %s have the published number of parameters", (_name, fields, parameters) => {
    const config = parseConfig(
      JSON.stringify({ ...fields, n_positions: 1024, vocab_size: 50257 }),
      "config.json",
    );
    const count = expectedTensors(config).reduce((sum, { shape }) => sum + product(shape), 0);
    expect(count).toBe(parameters);
    expect(count).toBe(parameterCount(config));
  });
});

describe.each(["tiny", "tiny-erf-untied"])("the footprint of %s is what the ledger says", (name) => {
  it.each(WEIGHT_DTYPES)("weights in %s", async (dtype) => {
    const before = await settled();
    const model = await Gpt2.load(gpu, golden(name), { dtype });
    const expected = expectedTensors(model.config).reduce((sum, t) => sum + weightBytes(t, dtype), 0);
    expect(gpu.memory.currentByPurpose.weights - before.weights).toBe(expected);
    model.free();
  });

  it.each([
    ["a prompt", [61]],
    ["a token of each of 7 sequences", new Array<number>(7).fill(1)],
    ["prompts and single tokens", [40, 1, 5]],
  ])("cache, activations and read-back for %s", async (_name, counts) => {
    const config = await loadConfig(golden(name));
    const model = await Gpt2.load(gpu, golden(name));
    const shape = model.cacheShape("f32");
    const pageSize = 16;
    const before = await settled();
    const cache = new PagedCache(gpu, shape, counts.length * 4, pageSize);
    expect(gpu.memory.currentByPurpose.kv - before.kv).toBe(pagedBytes(shape, counts.length, 64, pageSize));
    const items = counts.map((count) => ({ place: cache.open(), tokens: new Array<number>(count).fill(1) }));
    const logits = model.forward(cache, items);
    await logits.read();
    const tokens = counts.reduce((a, b) => a + b, 0);
    const step = stepBytes(config, tokens, counts.length);
    expect(gpu.memory.peakOfEach.activations - before.activations).toBe(step.activations);
    expect(gpu.memory.peakOfEach.staging - before.staging).toBe(step.staging);
    logits.free();
    cache.free();
    const strips = new ContiguousCache(gpu, shape, 3, 64);
    expect(gpu.memory.currentByPurpose.kv - before.kv).toBe(contiguousBytes(shape, 3, 64));
    strips.free();
    model.free();
  });
});

describe("mostThatFit", () => {
  it("is the last n within the budget, whatever grows", () => {
    fc.assert(
      fc.property(fc.nat(1e9), fc.nat(1e6), fc.integer({ min: 1, max: 1e6 }), (budget, fixed, each) => {
        const bytes = (n: number) => fixed + n * each;
        const n = mostThatFit(budget, bytes);
        if (n === -1) return fixed > budget;
        return bytes(n) <= budget && bytes(n + 1) > budget;
      }),
    );
  });
});
