import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { keepNucleus, kthLargest } from "../../src/generate/logit-filters.ts";

/** Few distinct values, so that ties are common. */
const tied = fc.array(fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constant(Number.NEGATIVE_INFINITY)), {
  minLength: 1,
  maxLength: 60,
});
const spread = fc.array(fc.double({ min: -40, max: 40, noNaN: true }), { minLength: 1, maxLength: 60 });

describe("kthLargest", () => {
  test("is what sorting gives, for every k, with ties and without", () => {
    fc.assert(
      fc.property(fc.oneof(tied, spread), (values) => {
        const sorted = Float64Array.from(values).sort().reverse();
        const found = values.map((_, i) => kthLargest(Float64Array.from(values), i + 1));
        expect(found.map((v) => v + 0)).toEqual([...sorted].map((v) => v + 0));
      }),
      { numRuns: 300, seed: 5 },
    );
  });
});

/** Indices that stay, by a stable sort of all tokens from the least likely up. */
function nucleusReference(logWeights: readonly number[], topP: number): number[] {
  const total = logWeights.reduce((sum, x) => sum + Math.exp(x), 0);
  const ids = logWeights.map((_, id) => id).sort((a, b) => logWeights[a]! - logWeights[b]! || a - b);
  let sum = 0;
  const kept = ids.filter((id, i) => {
    sum += Math.exp(logWeights[id]!) / total;
    return sum > 1 - topP || i === ids.length - 1;
  });
  return kept.sort((a, b) => a - b);
}

function nucleus(logWeights: readonly number[], topP: number): number[] {
  const weights = Float64Array.from(logWeights, Math.exp);
  keepNucleus(Float64Array.from(logWeights), weights, topP);
  return [...weights.keys()].filter((id) => weights[id]! > 0);
}

describe("keepNucleus", () => {
  test("keeps what a stable sort of the whole vocabulary keeps", () => {
    fc.assert(
      fc.property(spread, fc.double({ min: 0.01, max: 0.99, noNaN: true }), (values, topP) => {
        const max = Math.max(...values);
        const logWeights = values.map((x) => (x - max) / 4);
        expect(nucleus(logWeights, topP)).toEqual(nucleusReference(logWeights, topP));
      }),
      { numRuns: 500, seed: 5 },
    );
  });

  test("drops the lower ids first among equals at the boundary", () => {
    expect(nucleus([0, 0, 0, 0], 0.5)).toEqual([2, 3]);
    expect(nucleus([0, 0, 0, 0], 0.51)).toEqual([1, 2, 3]);
    expect(nucleus([0, 0, 0, 0], 0.25)).toEqual([3]);
    expect(nucleus([-1, 0, -1, -1], 0.6)).toEqual([1, 3]);
  });

  test("keeps the most likely token however small topP is", () => {
    expect(nucleus([-0.1, 0, -0.1], 1e-12)).toEqual([1]);
    expect(nucleus([0], 0.1)).toEqual([0]);
  });

  test("leaves tokens out that were out", () => {
    expect(nucleus([Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY, -2], 0.999)).toEqual([1, 3]);
  });
});
