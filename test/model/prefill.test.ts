import fc from "fast-check";
import { afterAll, describe, expect, test, vi } from "vitest";
import { sizeClass } from "../../src/gpu/memory.ts";
import { CACHE_MODES, type CacheMode, sum } from "../../src/kv/cache.ts";
import { OutOfPages } from "../../src/kv/page-allocator.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { memoryPlan } from "../../src/model/memory-plan.ts";
import { cutPrefill, prefill } from "../../src/model/prefill.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { cacheFor, TINY, tokensOf } from "./tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

describe("pieces", () => {
  test("have all tokens, at most a chunk each, and the last one ends every sequence", () => {
    const counts = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 9 });
    fc.assert(
      fc.property(counts, fc.integer({ min: 1, max: 80 }), (counts, chunk) => {
        const pieces = cutPrefill(counts, chunk);
        const last = pieces.at(-1)!;
        expect(counts.map((_, s) => sum(pieces.map((piece) => piece[s]!)))).toEqual(counts);
        expect(Math.min(...last)).toBeGreaterThanOrEqual(1);
        expect(sum(last)).toBeLessThanOrEqual(Math.max(chunk, counts.length));
        // All but the last two are full: no piece is wasted.
        const rows = pieces.slice(0, -1).map(sum);
        expect(rows.slice(0, -1).every((n) => n === chunk)).toBe(true);
        expect(rows.every((n) => n >= 1 && n <= chunk)).toBe(true);
        if (pieces.length > 1) expect(sum(last)).toBe(Math.max(chunk, counts.length));
      }),
    );
  });

  test("are one where all rows fit, and of at least one token", () => {
    expect(cutPrefill([3, 4], 7)).toEqual([[3, 4]]);
    expect(cutPrefill([9, 3], 4)).toEqual([
      [4, 0],
      [4, 0],
      [1, 3],
    ]);
    expect(() => cutPrefill([3], 0)).toThrow("prefill: pieces of 0 tokens; wanted at least 1");
  });
});

const COUNTS = [17, 1, 6];

/** Logits of three prompts, and the activations at their peak. */
async function logitsOf(mode: CacheMode, chunk: number) {
  const cache = cacheFor(gpu, model, mode, COUNTS.length, { pageSize: 8 });
  await gpu.finish();
  gpu.trim();
  gpu.memory.resetPeak();
  const before = gpu.memory.currentByPurpose.activations;
  const items = COUNTS.map((count, s) => ({ place: cache.open(), tokens: tokensOf(s, count) }));
  const logits = prefill(model, cache, items, chunk);
  const values = await logits.read();
  const activations = gpu.memory.peakOfEach.activations - before;
  logits.free();
  const lengths = items.map(({ place }) => place.length);
  cache.free();
  return { values, activations, lengths };
}

describe.each(CACHE_MODES)("prompts in pieces, cache %s", (mode) => {
  test("have the same logits bit for bit, in memory bounded by the piece", async () => {
    const whole = await logitsOf(mode, 100);
    for (const chunk of [1, 3, 7, 24]) {
      const { values, activations, lengths } = await logitsOf(mode, chunk);
      expect(values).toEqual(whole.values);
      expect(lengths).toEqual(whole.lengths);
      if (mode === "none") expect(activations).toBe(whole.activations);
      else {
        const { sizes } = memoryPlan(model.config, { rows: Math.max(3, chunk), samples: 3 });
        expect([chunk, activations]).toEqual([chunk, sum(sizes.map(sizeClass))]);
      }
    }
  });
});

test("only the piece that ends the sequences computes logits", async () => {
  const head = vi.spyOn(model, "head");
  await logitsOf("paged", 3);
  expect(head).toHaveBeenCalledTimes(1);
  head.mockRestore();
});

test("prompts that do not fit the pages are refused before a piece is computed", () => {
  const cache = cacheFor(gpu, model, "paged", 1, { pageSize: 8, pages: 2 });
  const before = gpu.dispatchCount;
  const items = [{ place: cache.open(), tokens: tokensOf(0, 20) }];
  expect(() => prefill(model, cache, items, 4)).toThrow(OutOfPages);
  expect(gpu.dispatchCount).toBe(before);
  cache.free();
});
