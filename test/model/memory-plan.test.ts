import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { Arena } from "../../src/gpu/arena.ts";
import { type Allocation, Memory, sizeClass } from "../../src/gpu/memory.ts";
import { type CacheMode, remembers, sum } from "../../src/kv/cache.ts";
import { makeCache } from "../../src/kv/make-cache.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import {
  memoryPlan,
  type PlannedValue,
  type StepForm,
  smallerSizes,
  stepValues,
} from "../../src/model/memory-plan.ts";
import { largestLiveSet, overlaps, shareBuffers } from "../../src/model/share-buffers.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { TINY, tokensOf } from "./tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

/** GPT-2 small, as far as a plan looks at it. */
const SMALL = {
  layers: 12,
  heads: 12,
  headSize: 64,
  channels: 768,
  innerChannels: 3072,
  vocabSize: 50257,
} as ModelConfig;

const lifetimes = fc.array(
  fc
    .record({ bytes: fc.integer({ min: 1, max: 40 }), from: fc.nat(30), length: fc.nat(12) })
    .map(({ bytes, from, length }) => ({ bytes, from, to: from + length })),
  { maxLength: 40 },
);

const configs = fc
  .record({
    layers: fc.integer({ min: 1, max: 4 }),
    heads: fc.integer({ min: 1, max: 5 }),
    headSize: fc.integer({ min: 1, max: 20 }),
    innerChannels: fc.integer({ min: 1, max: 300 }),
    vocabSize: fc.integer({ min: 1, max: 500 }),
  })
  .map((c) => ({ ...c, channels: c.heads * c.headSize }) as ModelConfig);

const sizes = fc.record({ rows: fc.integer({ min: 1, max: 50 }), samples: fc.nat(60) });
const rowForms = fc.record({
  rowDtype: fc.constantFrom("f32" as const, "f16" as const),
  queriesOnly: fc.boolean(),
});

describe("sharing", () => {
  test("never puts two values that live at once in one buffer, and each fits its own", () => {
    fc.assert(
      fc.property(lifetimes, (values) => {
        const { sizes, bufferOf } = shareBuffers(values);
        values.forEach((value, i) => {
          expect(sizes[bufferOf[i]!]).toBeGreaterThanOrEqual(value.bytes);
          values.slice(0, i).forEach((other, j) => {
            expect(bufferOf[i] === bufferOf[j] && overlaps(value, other)).toBe(false);
          });
        });
      }),
    );
  });

  test("takes no less than what lives at once, no more than all values, and is the same each time", () => {
    fc.assert(
      fc.property(lifetimes, (values) => {
        const { sizes, bufferOf } = shareBuffers(values);
        expect(sum(sizes)).toBeGreaterThanOrEqual(largestLiveSet(values));
        expect(sum(sizes)).toBeLessThanOrEqual(sum(values.map(({ bytes }) => bytes)));
        expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
        expect(shareBuffers(values)).toEqual({ sizes, bufferOf });
      }),
    );
  });
});

describe("the plan of a step", () => {
  test("has the launches of a forward pass, 4 + 8 · L, and values that are read before they are given back", () => {
    const { launches, values } = memoryPlan(SMALL, { rows: 7, samples: 2 });
    expect(launches).toHaveLength(4 + 8 * 12);
    for (const { from, lastRead, to } of values) {
      expect(from).toBeLessThanOrEqual(lastRead);
      expect(lastRead).toBeLessThanOrEqual(to);
      expect(to).toBeLessThan(launches.length);
    }
  });

  test("takes what lives at once and nothing more, for GPT-2 in every form that has a cache", () => {
    const forms: Partial<StepForm>[] = [{}, { queriesOnly: true }, { queriesOnly: true, rowDtype: "f16" }];
    for (const form of forms) {
      const { totalBytes, liveBytes } = memoryPlan(SMALL, { rows: 512, samples: 1, ...form });
      expect([form, totalBytes]).toEqual([form, liveBytes]);
    }
  });

  test("in rows of C floats: 8, and 5.5 where products store keys and values and rows are halves", () => {
    const row = 4 * 768 * 512;
    const bytes = (form: Partial<StepForm>) =>
      memoryPlan(SMALL, { rows: 512, samples: 1, ...form }).totalBytes;
    expect(bytes({}) / row).toBe(8);
    expect(bytes({ queriesOnly: true, rowDtype: "f16" }) / row).toBe(5.5);
  });

  test("does not depend on how many layers there are", () => {
    const total = (layers: number) => memoryPlan({ ...SMALL, layers }, { rows: 512, samples: 8 }).totalBytes;
    expect([total(1), total(48)]).toEqual([total(2), total(2)]);
  });

  test("made for a large step has room for every smaller one", () => {
    fc.assert(
      fc.property(configs, sizes, sizes, rowForms, (config, a, b, form) => {
        const largest = { rows: Math.max(a.rows, b.rows), samples: Math.max(a.samples, b.samples, 1) };
        const plan = memoryPlan(config, { ...largest, ...form, takesTokens: true });
        const { values } = stepValues(config, { ...a, ...form, takesTokens: true });
        const small = smallerSizes(plan, values);
        values.forEach(({ bytes, from, to, name }, i) => {
          const twin = plan.values[i]!;
          expect([name, from, to]).toEqual([twin.name, twin.from, a.samples > 0 ? twin.to : to]);
          expect(small[plan.bufferOf[i]!]).toBeGreaterThanOrEqual(bytes);
        });
        small.forEach((bytes, i) => {
          expect(bytes).toBeLessThanOrEqual(plan.sizes[i]!);
        });
      }),
    );
  });
});

test("an arena that is asked in the plan's order never grows, whatever the size of the step", () => {
  fc.assert(
    fc.property(configs, sizes, fc.array(sizes, { maxLength: 3 }), rowForms, (config, a, more, form) => {
      const steps = [a, ...more];
      const most = (key: "rows" | "samples") => Math.max(1, ...steps.map((step) => step[key]));
      const all = { ...form, takesTokens: true };
      const plan = memoryPlan(config, { rows: most("rows"), samples: most("samples"), ...all });
      const memory = new Memory(() => ({ destroy() {} }) as GPUBuffer);
      const arena = new Arena(memory, plan.sizes, "test");
      for (const step of steps) {
        const { values } = stepValues(config, { ...step, ...all });
        const replay = () => {
          const live = new Map<PlannedValue, Allocation>();
          for (const value of values) {
            for (const [other, allocation] of live)
              if (other.to < value.from) {
                memory.free(allocation);
                live.delete(other);
              }
            live.set(value, memory.alloc(value.bytes, "activations", value.name));
          }
          for (const allocation of live.values()) memory.free(allocation);
        };
        arena.within(smallerSizes(plan, values), replay, plan.bufferOf);
      }
      expect(arena.bytes).toBe(plan.totalBytes);
    }),
  );
});

describe("the ledger's activations in a forward pass are the plan's", () => {
  const counts = [[61], [1], [1, 1, 1, 1, 1, 1, 1], [40, 1, 5]];
  const cases = (["none", "contiguous", "paged"] as const).flatMap((mode) => [
    ...counts.map((c) => [mode, "f32", c] as const),
    [mode, "f16", [20, 3]] as const,
  ]);
  test.each(cases)("cache %s, %s, new tokens %j", async (mode: CacheMode, dtype, tokens) => {
    const cache = makeCache(gpu, model.cacheShape(dtype), {
      mode,
      sequences: tokens.length,
      contextLength: 64,
      expectedLength: 64,
    });
    await gpu.finish();
    gpu.memory.trim();
    gpu.memory.resetPeak();
    const before = gpu.memory.currentByPurpose.activations;
    const items = tokens.map((count, s) => ({ place: cache.open(), tokens: tokensOf(s, count) }));
    const logits = model.forward(cache, items);
    await gpu.finish();
    const forgets = remembers(cache) ? {} : { forgets: model.cacheShape(dtype) };
    const plan = memoryPlan(model.config, { rows: sum(tokens), samples: tokens.length, ...forgets });
    expect(gpu.memory.peakOfEach.activations - before).toBe(sum(plan.sizes.map(sizeClass)));
    logits.free();
    cache.free();
    gpu.trim();
    expect(gpu.memory.currentByPurpose.activations).toBe(before);
  });
});
