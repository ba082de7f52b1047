import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheShape } from "../../src/kv/cache.ts";
import { type CacheOptions, checkFits, makeCache } from "../../src/kv/make-cache.ts";
import { scope } from "../../src/tensor.ts";

// Slots only, which the null backend has.
const gpu = await Gpu.open({ backend: "null" });
afterAll(() => gpu.close());

const SHAPE: CacheShape = { layers: 1, heads: 1, headSize: 4, dtype: "f32" };
const CONTEXT = 40;
const options = (some: Partial<CacheOptions>): CacheOptions => ({
  mode: "paged",
  sequences: 1,
  contextLength: CONTEXT,
  expectedLength: 20,
  ...some,
});

/** Whether sequences that get as long as they may find a slot for every token that is fed to the model. */
function finishes(given: CacheOptions): boolean {
  const cache = makeCache(gpu, SHAPE, given);
  const fed = Math.min(given.expectedLength, given.contextLength) - 1;
  try {
    for (let s = 0; s < given.sequences; s++) {
      const place = cache.open();
      scope(gpu, () => void cache.prepare([{ place, count: fed }]));
    }
    return true;
  } catch (error) {
    expect((error as Error).name).toMatch(/BadInput|OutOfPages/);
    return false;
  } finally {
    cache.free();
  }
}

describe("checkFits", () => {
  test("refuses exactly the runs that their cache could not finish", () => {
    const given = fc.record({
      mode: fc.constantFrom(...CACHE_MODES),
      sequences: fc.integer({ min: 1, max: 3 }),
      contextLength: fc.constant(CONTEXT),
      expectedLength: fc.integer({ min: 2, max: CONTEXT + 10 }),
      maxSeqLen: fc.option(fc.integer({ min: 1, max: CONTEXT }), { nil: undefined }),
      pageSize: fc.option(fc.integer({ min: 8, max: 20 }), { nil: undefined }),
      pages: fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
    });
    let refused = 0;
    fc.assert(
      fc.property(given, (run) => {
        if (finishes(run)) expect(() => checkFits(run)).not.toThrow();
        else {
          refused++;
          expect(() => checkFits(run)).toThrow(BadInput);
        }
      }),
      { numRuns: 300 },
    );
    expect(refused).toBeGreaterThan(20);
  });

  test("says which flag, what the run needs and why", () => {
    expect(() => checkFits(options({ mode: "contiguous", maxSeqLen: 18 }))).toThrow(
      "--max-seq-len is 18; this run needs 19: a sequence of up to 20 tokens needs a slot for each but the last; raise it,",
    );
    expect(() => checkFits(options({ mode: "contiguous", maxSeqLen: 19 }))).not.toThrow();
    expect(() => checkFits(options({ pages: 1 }))).toThrow(
      "--kv-pages is 1; this run needs 2 pages of 16 slots: a sequence of up to 20 tokens",
    );
    expect(() => checkFits(options({ pages: 2 }))).not.toThrow();
    expect(() => checkFits(options({ pages: 1, expectedLength: 17 }))).not.toThrow();
  });

  test("expects no sequence to outgrow the model's context", () => {
    const run = options({ mode: "contiguous", expectedLength: 1000, maxSeqLen: CONTEXT - 1 });
    expect(() => checkFits(run)).not.toThrow();
    expect(() => checkFits({ ...run, maxSeqLen: CONTEXT - 2 })).toThrow(/needs 39/);
  });

  test("does not mind the flags of other modes", () => {
    expect(() => checkFits(options({ mode: "paged", maxSeqLen: 1 }))).not.toThrow();
    expect(() => checkFits(options({ mode: "contiguous", pages: 1 }))).not.toThrow();
    expect(() => checkFits(options({ mode: "none", pages: 1, maxSeqLen: 1 }))).not.toThrow();
  });
});
