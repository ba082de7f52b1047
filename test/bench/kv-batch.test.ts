import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { batchLengths, checkPool, neededPages, poolPages } from "../../src/bench/kv-batch.ts";
import { BadInput } from "../../src/check.ts";

describe("the lengths of a batch", () => {
  test("go down in equal steps from all new tokens, at most eight of them", () => {
    expect(batchLengths(1, 50)).toEqual([50]);
    expect(batchLengths(4, 50)).toEqual([50, 38, 25, 13]);
    expect(batchLengths(3, 1)).toEqual([1, 1, 1]);
    expect(batchLengths(16, 80)).toEqual([80, 80, 70, 70, 60, 60, 50, 50, 40, 40, 30, 30, 20, 20, 10, 10]);
  });

  test("are never more than asked for, never none, and never rise", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 1000 }), (batch, newTokens) => {
        const lengths = batchLengths(batch, newTokens);
        expect(lengths).toHaveLength(batch);
        expect(lengths[0]).toBe(newTokens);
        expect(Math.min(...lengths)).toBeGreaterThanOrEqual(1);
        expect(lengths).toEqual([...lengths].sort((a, b) => b - a));
        expect(new Set(lengths).size).toBeLessThanOrEqual(8);
      }),
    );
  });
});

describe("the pages of a batch", () => {
  test("are what its sequences hold at once, step by step", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: 1, max: 40 }),
        (batch, newTokens, promptLength) => {
          const lengths = batchLengths(batch, newTokens);
          const held = Array.from({ length: newTokens }, (_, step) => {
            const running = lengths.filter((length) => length > step).length;
            return running * Math.ceil((promptLength + step) / 8);
          });
          expect(neededPages(promptLength, lengths, 8)).toBe(Math.max(...held));
          expect(poolPages(promptLength, lengths, 8)).toBeGreaterThanOrEqual(Math.max(...held));
        },
      ),
    );
  });

  test("that are too few are refused, with how many it takes", () => {
    // Of a prompt of 7 and 6, 4, 2 new tokens: 3 · ⌈8 / 8⌉, 2 · ⌈10 / 8⌉, ⌈12 / 8⌉.
    expect(neededPages(7, [6, 4, 2], 8)).toBe(4);
    expect(() => checkPool(4, 7, [6, 4, 2], 8)).not.toThrow();
    expect(() => checkPool(3, 7, [6, 4, 2], 8)).toThrow(BadInput);
    expect(() => checkPool(3, 7, [6, 4, 2], 8)).toThrow(
      /^--kv-pages is 3; this run needs 4 pages of 8 slots for its 3 sequences: raise it/,
    );
  });
});
