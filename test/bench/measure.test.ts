import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { mean, median, percentile, standardDeviation, statistics } from "../../src/bench/measure.ts";

const values = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 60 });

describe("statistics", () => {
  test("are those of a list worked out by hand", () => {
    expect(statistics([4, 1, 3, 2])).toEqual({
      count: 4,
      mean: 2.5,
      p50: 2.5,
      p95: expect.closeTo(3.85, 12),
      min: 1,
      max: 4,
      std: expect.closeTo(Math.sqrt(5 / 3), 12),
    });
  });

  test("of a single value are that value, without spread", () => {
    expect(statistics([7])).toEqual({ count: 1, mean: 7, p50: 7, p95: 7, min: 7, max: 7, std: 0 });
  });

  test("percentile interpolates between closest ranks, as NumPy does by default", () => {
    const list = [15, 20, 35, 40, 50];
    expect([0, 5, 30, 40, 95, 100].map((p) => percentile(list, p))).toEqual([
      15,
      16,
      expect.closeTo(23, 12),
      expect.closeTo(29, 12),
      48,
      50,
    ]);
  });

  test("do not change the list", () => {
    const list = [3, 1, 2];
    median(list);
    expect(list).toEqual([3, 1, 2]);
  });

  test("a percentile lies between minimum and maximum and never falls as p rises", () => {
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 100, noNaN: true }), (list, p) => {
        const at = percentile(list, p);
        expect(at).toBeGreaterThanOrEqual(Math.min(...list));
        expect(at).toBeLessThanOrEqual(Math.max(...list));
        expect(percentile(list, 100)).toBeGreaterThanOrEqual(at);
        expect(percentile(list, p / 2)).toBeLessThanOrEqual(at);
      }),
    );
  });

  test("a shift moves the mean and leaves the standard deviation", () => {
    const list = [1, 2, 4, 8];
    const shifted = list.map((v) => v + 100);
    expect(mean(shifted)).toBeCloseTo(mean(list) + 100, 9);
    expect(standardDeviation(shifted)).toBeCloseTo(standardDeviation(list), 9);
  });

  test("of nothing are refused, and so is a percentile beyond 100", () => {
    expect(() => mean([])).toThrow("mean: no values");
    expect(() => percentile([], 50)).toThrow("percentile: no values");
    expect(() => percentile([1], 101)).toThrow("p is 101; it must be from 0 to 100");
  });
});
