import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { uniform } from "../../src/generate/random.ts";
import type { SamplingOptions } from "../../src/generate/sampler.ts";
import { probabilities, sample, validateSampling } from "../../src/generate/sampler.ts";

interface GoldenCase {
  temperature: number;
  top_k: number | null;
  top_p: number | null;
  min_p: number | null;
  repetition_penalty: number | null;
  probs: number[];
}
const golden: { logits: number[]; history: number[]; order: string; cases: GoldenCase[] } = JSON.parse(
  readFileSync(new URL("../golden/sampling.json", import.meta.url), "utf8"),
);

function optionsOf(row: GoldenCase): SamplingOptions {
  return {
    temperature: row.temperature,
    topK: row.top_k ?? undefined,
    topP: row.top_p ?? undefined,
    minP: row.min_p ?? undefined,
    repetitionPenalty: row.repetition_penalty ?? undefined,
    seed: 0,
  };
}

/** The same filters one after another, each with its own softmax and a full stable sort, as the processors do. */
function reference(logits: Float32Array, history: readonly number[], options: SamplingOptions): number[] {
  const { temperature, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  const softmax = (scores: number[]): number[] => {
    const max = Math.max(...scores);
    const total = scores.reduce((sum, x) => sum + Math.exp(x - max), 0);
    return scores.map((x) => Math.exp(x - max) / total);
  };
  let scores = [...logits];
  for (const id of new Set(history)) {
    scores[id]! *= scores[id]! < 0 ? repetitionPenalty : 1 / repetitionPenalty;
  }
  scores = scores.map((x) => x / temperature);
  if (topK > 0) {
    const kth = [...scores].sort((a, b) => b - a)[Math.min(topK, scores.length) - 1]!;
    scores = scores.map((x) => (x < kth ? -Infinity : x));
  }
  if (topP < 1) {
    const p = softmax(scores);
    const ids = scores.map((_, id) => id).sort((a, b) => p[a]! - p[b]! || a - b);
    let sum = 0;
    for (const id of ids.slice(0, -1)) {
      sum += p[id]!;
      if (sum <= 1 - topP) scores[id] = -Infinity;
    }
  }
  const p = softmax(scores);
  const least = minP * Math.max(...p);
  return softmax(scores.map((x, id) => (p[id]! < least ? -Infinity : x)));
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!)));
}

const VOCABULARY = 24;
const logitRow = fc
  .array(fc.oneof(fc.integer({ min: -4, max: 4 }), fc.double({ min: -20, max: 20, noNaN: true })), {
    minLength: VOCABULARY,
    maxLength: VOCABULARY,
  })
  .map((row) => Float32Array.from(row));
const historyIds = fc.array(fc.nat(VOCABULARY - 1), { maxLength: 10 });
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const anyOptions: fc.Arbitrary<SamplingOptions> = fc.record({
  temperature: fc.double({ min: 0.05, max: 5, noNaN: true }),
  topK: optional(fc.integer({ min: 0, max: VOCABULARY + 4 })),
  topP: optional(fc.double({ min: 0.01, max: 1, noNaN: true })),
  minP: optional(fc.double({ min: 0, max: 1, noNaN: true })),
  repetitionPenalty: optional(fc.double({ min: 0.5, max: 2, noNaN: true })),
  seed: fc.constant(0),
});
const anyU = fc.nat(2 ** 24 - 1).map((bits) => bits / 2 ** 24);

describe("probabilities", () => {
  test("are those of Hugging Face in all 144 golden cases", () => {
    expect(golden.order).toBe("repetition_penalty, temperature, top_k, top_p, min_p");
    expect(golden.cases.length).toBe(144);
    const logits = Float32Array.from(golden.logits);
    const wrong = golden.cases.filter((row) => {
      const p = probabilities(logits, golden.history, optionsOf(row));
      const sameSupport = row.probs.every((want, id) => want === 0 || p[id]! > 0);
      return largestDifference(p, row.probs) > 1e-6 || !sameSupport;
    });
    expect(wrong).toEqual([]);
  });

  test("are those of the filters applied one by one, with ties, for any options", () => {
    fc.assert(
      fc.property(logitRow, historyIds, anyOptions, (logits, history, options) => {
        const p = probabilities(logits, history, options);
        expect(largestDifference(p, reference(logits, history, options))).toBeLessThan(1e-9);
      }),
      { numRuns: 1000, seed: 3 },
    );
  });

  test("sum to one and are never negative", () => {
    fc.assert(
      fc.property(logitRow, historyIds, anyOptions, (logits, history, options) => {
        const p = probabilities(logits, history, options);
        expect(p.reduce((sum, x) => sum + x, 0)).toBeCloseTo(1, 12);
        expect(Math.min(...p)).toBeGreaterThanOrEqual(0);
      }),
      { numRuns: 300 },
    );
  });

  test("keep ties with the k-th token, and all tokens when k is 0 or above the vocabulary", () => {
    const logits = Float32Array.from([1, 3, 2, 2, 0, 2]);
    const support = (topK: number) =>
      [...probabilities(logits, [], { temperature: 1, topK, seed: 0 }).entries()]
        .filter(([, p]) => p > 0)
        .map(([id]) => id);
    expect(support(1)).toEqual([1]);
    expect(support(2)).toEqual([1, 2, 3, 5]);
    expect(support(5)).toEqual([0, 1, 2, 3, 5]);
    expect(support(0)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(support(99)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test("stay numbers at extreme temperatures and logits", () => {
    const logits = Float32Array.from([3e38, -3e38, 3e38, Number.NEGATIVE_INFINITY]);
    for (const temperature of [5e-324, 1e-10]) {
      expect([...probabilities(logits, [], { temperature, seed: 0 })]).toEqual([0.5, 0, 0.5, 0]);
    }
    const flat = probabilities(logits, [], { temperature: 1e308, topP: 0.99, seed: 0 });
    expect(largestDifference(flat, [1 / 3, 1 / 3, 1 / 3, 0])).toBeLessThan(1e-9);
  });

  test("agree with the reference over GPT-2's whole vocabulary", () => {
    const logits = Float32Array.from({ length: 50_257 }, (_, id) => {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform(5, 0, id)));
      return 3 * radius * Math.cos(2 * Math.PI * uniform(5, 1, id));
    });
    for (const filters of [{ topK: 40 }, { topP: 0.9 }, { topK: 5000, topP: 0.95, minP: 0.01 }]) {
      const options = { temperature: 0.7, repetitionPenalty: 1.2, seed: 0, ...filters };
      const p = probabilities(logits, [1, 2, 3], options);
      let furthest = 0;
      const want = reference(logits, [1, 2, 3], options);
      for (let id = 0; id < p.length; id++) furthest = Math.max(furthest, Math.abs(p[id]! - want[id]!));
      expect(furthest).toBeLessThan(1e-9);
    }
  });
});

describe("sample", () => {
  test("never picks a token of probability zero, and the same u picks the same token", () => {
    fc.assert(
      fc.property(logitRow, historyIds, anyOptions, anyU, (logits, history, options, u) => {
        const token = sample(logits, history, options, u);
        expect(probabilities(logits, history, options)[token]).toBeGreaterThan(0);
        expect(sample(logits, history, options, u)).toBe(token);
      }),
      { numRuns: 500 },
    );
  });

  test("is the inverse of the cumulative distribution: the sum below the token is at most u, with it above", () => {
    fc.assert(
      fc.property(logitRow, anyOptions, anyU, (logits, options, u) => {
        const token = sample(logits, [], options, u);
        const p = probabilities(logits, [], options);
        const below = p.subarray(0, token).reduce((sum, x) => sum + x, 0);
        expect(below).toBeLessThanOrEqual(u);
        expect(below + p[token]!).toBeGreaterThan(u - 1e-12);
      }),
      { numRuns: 500 },
    );
  });

  test("never goes down as u goes up", () => {
    fc.assert(
      fc.property(logitRow, anyOptions, anyU, anyU, (logits, options, u, v) => {
        const [low, high] = [Math.min(u, v), Math.max(u, v)];
        expect(sample(logits, [], options, low)).toBeLessThanOrEqual(sample(logits, [], options, high));
      }),
      { numRuns: 500 },
    );
  });

  test("reaches the first and the last token that may be picked", () => {
    const logits = Float32Array.from([Number.NEGATIVE_INFINITY, 1, 1, 1, Number.NEGATIVE_INFINITY]);
    expect(sample(logits, [], { temperature: 1, seed: 0 }, 0)).toBe(1);
    expect(sample(logits, [], { temperature: 1, seed: 0 }, 1 - 2 ** -53)).toBe(3);
  });

  test("gives a token the numbers from the sum below it, which is its own, to the next one's", () => {
    const quarters = Float32Array.of(0, 0, 0, 0);
    const tokens = [0, 0.25 - 2 ** -24, 0.25, 0.5, 0.75, 1 - 2 ** -24].map((u) =>
      sample(quarters, [], { temperature: 1, seed: 0 }, u),
    );
    expect(tokens).toEqual([0, 0, 1, 2, 3, 3]);
  });

  test("draws tokens as often as their probabilities say (chi-square, p above 0.001)", () => {
    const logits = Float32Array.from([0, 1, 2, -1, 0.5]);
    const options = { temperature: 1, seed: 9 };
    const draws = 20_000;
    const counts = new Array<number>(5).fill(0);
    for (let step = 0; step < draws; step++) counts[sample(logits, [], options, uniform(9, 0, step))]! += 1;
    const p = probabilities(logits, [], options);
    const chiSquare = counts.reduce((sum, n, id) => sum + (n - draws * p[id]!) ** 2 / (draws * p[id]!), 0);
    expect(chiSquare).toBeLessThan(18.5);
  });

  test("is greedy at temperature 0: the lowest of equal ids, whatever u and the filters", () => {
    const logits = Float32Array.from([1, 5, 2, 5, -1]);
    for (const u of [0, 0.5, 0.999]) {
      expect(sample(logits, [], { temperature: 0, topK: 3, topP: 0.1, minP: 1, seed: 0 }, u)).toBe(1);
    }
    expect([...probabilities(logits, [], { temperature: 0, seed: 0 })]).toEqual([0, 1, 0, 0, 0]);
  });

  test("applies the penalty at temperature 0 too, once however often a token came", () => {
    const logits = Float32Array.from([1, 5, 4, -1]);
    expect(sample(logits, [1], { temperature: 0, repetitionPenalty: 1.5, seed: 0 }, 0)).toBe(2);
    expect(sample(logits, [1, 1, 1], { temperature: 0, repetitionPenalty: 1.2, seed: 0 }, 0)).toBe(1);
    const negative = Float32Array.from([-1, -1.5]);
    expect(sample(negative, [0], { temperature: 0, repetitionPenalty: 2, seed: 0 }, 0)).toBe(1);
  });
});

describe("wrong sampling options", () => {
  test.each([
    [{ temperature: -0.1 }, /^temperature is -0.1; it must be a finite number of at least 0/],
    [{ temperature: Number.NaN }, /^temperature is NaN/],
    [{ temperature: Number.POSITIVE_INFINITY }, /^temperature is Infinity/],
    [{ topK: -1 }, /^topK is -1; it must be an integer of at least 0 \(0 is off\)/],
    [{ topK: 2.5 }, /^topK is 2.5/],
    [{ topP: 0 }, /^topP is 0; it must be a number above 0 and up to 1/],
    [{ topP: 1.01 }, /^topP is 1.01/],
    [{ minP: -0.01 }, /^minP is -0.01; it must be a number from 0 to 1/],
    [{ minP: 1.5 }, /^minP is 1.5/],
    [{ repetitionPenalty: 0 }, /^repetitionPenalty is 0; it must be a finite number above 0/],
    [{ repetitionPenalty: Number.POSITIVE_INFINITY }, /^repetitionPenalty is Infinity/],
    [{ seed: -1 }, /^seed is -1; it must be an integer from 0 to 2\^64 - 1/],
  ])("%j is refused by name", (wrong, message) => {
    const options = { temperature: 1, seed: 0, ...wrong };
    expect(() => validateSampling(options)).toThrow(BadInput);
    expect(() => validateSampling(options)).toThrow(message);
    expect(() => sample(Float32Array.of(1, 2), [], options, 0)).toThrow(message);
  });

  test.each([
    { temperature: 0 },
    { temperature: 1e-9, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
    { temperature: 100, topK: 1, topP: 1e-9, minP: 1, repetitionPenalty: 1e-3, seed: 2n ** 64n - 1n },
  ])("%o is allowed, at the ends of the ranges", (options) => {
    expect(() => validateSampling({ seed: 0, ...options })).not.toThrow();
  });
});

describe("wrong logits", () => {
  test.each([0, 1])("are refused by name at temperature %i", (temperature) => {
    const options = { temperature, repetitionPenalty: 1.1, seed: 0 };
    const draw = (row: number[], history: number[] = []) =>
      sample(Float32Array.from(row), history, options, 0);
    expect(() => draw([1, Number.NaN, 3])).toThrow("logit 1 of 3 is NaN");
    expect(() => draw([Number.NaN])).toThrow("logit 0 of 1 is NaN");
    expect(() => draw([1, 2, Number.POSITIVE_INFINITY])).toThrow("logit 2 of 3 is Infinity");
    expect(() => draw([-Infinity, -Infinity])).toThrow("none of 2 logits is finite");
    expect(() => draw([])).toThrow("none of 0 logits is finite");
    expect(() => draw([1, 2], [2])).toThrow("token 2 of the history is not in the vocabulary of 2");
  });

  test("and a u outside [0, 1) are refused", () => {
    for (const u of [-0.1, 1, Number.NaN]) {
      expect(() => sample(Float32Array.of(1), [], { temperature: 1, seed: 0 }, u)).toThrow(`u is ${u}`);
    }
  });
});
