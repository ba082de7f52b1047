import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { type MemoryLimits, memoryLines, planMemory } from "../../src/generate/engine-memory.ts";
import { engineSettings } from "../../src/generate/engine-settings.ts";
import type { EngineOptions } from "../../src/generate/engine-types.ts";
import { type CacheShape, slotBytes } from "../../src/kv/cache.ts";

const settingsOf = (options: EngineOptions = {}, contextLength = 1024) =>
  engineSettings(options, contextLength, "gpu");

describe("settings", () => {
  test("defaults are those of the documents, and depend on who computes", () => {
    expect(settingsOf()).toEqual({
      layout: "pages",
      kvDtype: "f32",
      pageSize: 16,
      kvPages: undefined,
      kvBytes: undefined,
      maxSeqLen: 1024,
      maxSequences: 256,
      maxBatchedTokens: 2048,
      chunkedPrefill: true,
      prefixCache: true,
      preemption: "recompute",
      watermark: 0.01,
      async: true,
    });
    expect(engineSettings({}, 1024, "software")).toMatchObject({ maxBatchedTokens: 256, async: false });
  });

  test("strips have slots instead of pages, and share nothing", () => {
    expect(settingsOf({ layout: "strips-max" })).toMatchObject({ pageSize: 1, prefixCache: false });
  });

  test("whole prompts need steps as long as a prompt can be", () => {
    const whole = { chunkedPrefill: false };
    expect(engineSettings(whole, 1024, "software").maxBatchedTokens).toBe(1024);
    expect(settingsOf({ ...whole, maxBatchedTokens: 1024 }).maxBatchedTokens).toBe(1024);
    expect(() => settingsOf({ ...whole, maxBatchedTokens: 1023 })).toThrow(
      /^maxBatchedTokens is 1023 and chunkedPrefill is false; a prompt of up to maxSeqLen 1024 tokens/,
    );
  });

  test.each<[EngineOptions, RegExp]>([
    [{ layout: "strips" as "pages" }, /^layout is "strips"; wanted pages, strips-max, strips-exact$/],
    [{ kvDtype: "f64" as "f32" }, /^kvDtype is "f64"; wanted f32, f16$/],
    [{ preemption: "never" as "swap" }, /^preemption is "never"; wanted recompute, swap$/],
    [{ pageSize: 7 }, /^page size is 7/],
    [{ maxSeqLen: 1 }, /^maxSeqLen is 1; wanted an integer from 2 to 1024, the model's context$/],
    [{ maxSeqLen: 1025 }, /^maxSeqLen is 1025/],
    [{ maxSequences: 0 }, /^maxSequences is 0; wanted an integer from 1 to 4096$/],
    [{ maxBatchedTokens: 0.5 }, /^maxBatchedTokens is 0.5/],
    [{ maxBatchedTokens: 65_536 }, /^maxBatchedTokens is 65536; wanted an integer from 1 to 65535$/],
    [{ kvPages: 0 }, /^kvPages is 0; wanted an integer of at least 1$/],
    [{ kvBytes: Number.NaN }, /^kvBytes is NaN/],
    [{ kvPages: 1, kvBytes: 1 }, /^kvPages and kvBytes are both given/],
    [{ kvPages: 1, layout: "strips-exact" }, /^kvPages is given and layout is strips-exact/],
    [{ watermark: 1 }, /^watermark is 1; wanted a share/],
    [{ watermark: Number.NaN }, /^watermark is NaN/],
  ])("%j is refused", (options, message) => {
    expect(() => settingsOf(options)).toThrow(BadInput);
    expect(() => settingsOf(options)).toThrow(message);
  });
});

describe("memory", () => {
  // GPT-2 124M in f16: 36 KiB a token.
  const shape: CacheShape = { layers: 12, heads: 12, headSize: 64, dtype: "f16" };
  const slot = slotBytes(shape);
  const limits = (more: Partial<MemoryLimits> = {}): MemoryLimits => ({
    before: 250 * 2 ** 20,
    stepBytes: 100 * 2 ** 20,
    budget: Number.POSITIVE_INFINITY,
    maxBindingBytes: 2 ** 31,
    ...more,
  });
  const plan = (options: EngineOptions, more: Partial<MemoryLimits> = {}) =>
    planMemory(settingsOf(options), shape, limits(more));

  test("kvPages are what sequences can have; the null page comes on top", () => {
    expect(slot).toBe(36 * 1024);
    expect(plan({ kvPages: 100 })).toMatchObject({
      pages: 100,
      tokens: 1600,
      kvBytes: 101 * 16 * slot,
      // 1,023 tokens need a slot, which are 64 pages.
      maxConcurrency: 100 / 64,
    });
  });

  test("kvBytes hold as many pages as fit, the null page included", () => {
    expect(plan({ kvBytes: 11 * 16 * slot })).toMatchObject({ pages: 10, kvBytes: 11 * 16 * slot });
    expect(plan({ kvBytes: 11 * 16 * slot - 1 }).pages).toBe(9);
  });

  test("a budget gives what weights and the largest step leave", () => {
    const budget = 350 * 2 ** 20 + 65 * 16 * slot;
    expect(plan({}, { budget })).toMatchObject({ pages: 64, maxConcurrency: 1 });
    // An explicit number wins: it fails at the allocation, if at all.
    expect(plan({ kvPages: 5000 }, { budget }).pages).toBe(5000);
  });

  test("without a budget there is room for 16 full contexts, and at most 1 GiB", () => {
    expect(plan({}).pages).toBe(16 * 64);
    const large = planMemory(settingsOf(), { ...shape, layers: 48, dtype: "f32" }, limits());
    expect(large.kvBytes).toBeLessThanOrEqual(2 ** 30);
    expect(large.kvBytes).toBeGreaterThan(2 ** 30 - 16 * 8 * slot);
  });

  test("a layer's keys must fit into one binding", () => {
    const { kvBytes } = plan({ kvBytes: 2 ** 32 }, { maxBindingBytes: 2 ** 20 });
    expect(kvBytes / 24).toBeLessThanOrEqual(2 ** 20);
    expect(kvBytes / 24).toBeGreaterThan(2 ** 20 - (16 * slot) / 24);
  });

  test("strips are counted in slots", () => {
    const strips = plan({ layout: "strips-max", kvBytes: 2049 * slot });
    expect(strips).toMatchObject({ pages: 2048, tokens: 2048, maxConcurrency: 2 });
    expect(() => plan({ layout: "strips-max", kvBytes: 1024 * slot })).toThrow(
      /^kvBytes is \d+; one strip of 1024/,
    );
    expect(plan({ layout: "strips-exact", kvBytes: 1024 * slot }).tokens).toBe(1023);
  });

  test("too little is refused with what is missing", () => {
    expect(() => plan({}, { budget: 350 * 2 ** 20 })).toThrow(BadInput);
    expect(() => plan({}, { budget: 350 * 2 ** 20 + 17 })).toThrow(
      "the memory budget of 350.0 MiB leaves 0.0 MiB for keys and values: 250.0 MiB are taken (weights) and the largest step " +
        "takes 100.0 MiB; one page of 16 tokens and the null page take 1.1 MiB: raise --memory",
    );
    expect(() => plan({}, { budget: 300 * 2 ** 20 })).toThrow("leaves 50.0 MiB less than nothing");
    expect(() => plan({ kvBytes: 16 * slot })).toThrow(
      /^kvBytes is 589824; one page of 16 tokens .* take 1179648/,
    );
  });

  test("the start tells where memory goes, pages, tokens and the maximum concurrency", () => {
    const settings = settingsOf({ kvPages: 1864, kvDtype: "f16" });
    const memory = planMemory(settings, shape, limits());
    expect(memoryLines(memory, settings, limits({ budget: 2 ** 31 }))).toEqual([
      "GPU memory: 250.0 MiB taken before, 100.0 MiB for steps of up to 2,048 tokens of 256 sequences, 1049.1 MiB for f16 keys and " +
        "values, of a budget of 2048.0 MiB",
      "KV cache: 1,864 pages of 16 tokens, 29,824 tokens",
      "At once: 29.13 requests of 1,024 tokens, the most that one can have",
    ]);
  });
});
