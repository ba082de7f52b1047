import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EngineLatencies, TimeDistribution } from "../../src/generate/engine-metrics.ts";

function distributionOf(values: readonly number[]): TimeDistribution {
  const distribution = new TimeDistribution();
  for (const value of values) distribution.add(value);
  return distribution;
}

/** The smallest value that p percent do not exceed. */
const nearestRank = (values: readonly number[], p: number): number =>
  [...values].sort((a, b) => a - b)[Math.ceil((p / 100) * values.length) - 1]!;

describe("a distribution of times", () => {
  test("is undefined before there is a value", () => {
    expect(new TimeDistribution().summary()).toBeUndefined();
  });

  test("of one value is that value", () => {
    expect(distributionOf([0.25]).summary()).toEqual({
      count: 1,
      mean: 0.25,
      median: 0.25,
      p90: 0.25,
      p99: 0.25,
    });
  });

  test("has the exact mean, and percentiles within 0.5 %, whatever the values", () => {
    const value = fc.double({ min: Math.log(1e-6), max: Math.log(9e3), noNaN: true }).map(Math.exp);
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 300 }), (values) => {
        const { count, mean, median, p90, p99 } = distributionOf(values).summary()!;
        expect(count).toBe(values.length);
        expect(mean).toBeCloseTo(values.reduce((a, b) => a + b) / values.length, 9);
        for (const [p, found] of [
          [50, median],
          [90, p90],
          [99, p99],
        ] as const)
          expect(Math.abs(found / nearestRank(values, p) - 1)).toBeLessThan(0.005);
      }),
      { numRuns: 100, seed: 3 },
    );
  });

  test("takes what lies outside of its buckets: nothing, and more than hours", () => {
    const { count, mean, median, p99 } = distributionOf([0, 0, 5e4]).summary()!;
    expect([count, mean]).toEqual([3, 5e4 / 3]);
    expect(median).toBeLessThan(1.1e-6);
    expect(p99).toBeGreaterThan(9e3);
  });
});

test("an engine has the time to first tokens and from token to token apart", () => {
  const latencies = new EngineLatencies();
  expect(latencies.summary()).toEqual({ timeToFirstToken: undefined, interTokenTime: undefined });
  latencies.first(1, 3);
  latencies.next(3, 3.5);
  latencies.next(3.5, 4.5);
  const { timeToFirstToken, interTokenTime } = latencies.summary();
  expect([timeToFirstToken?.count, timeToFirstToken?.mean]).toEqual([1, 2]);
  expect([interTokenTime?.count, interTokenTime?.mean]).toEqual([2, 0.75]);
});
