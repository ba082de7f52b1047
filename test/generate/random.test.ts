import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { philox4x32, seedWords, uniform } from "../../src/generate/random.ts";

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });

/** Philox-4x32-10 as the paper's figure states it, in whole numbers without a size. */
function philoxReference(counter: readonly number[], key: readonly number[]): number[] {
  const mask = 0xffffffffn;
  let [a, b, c, d] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k, l] = key.map(BigInt) as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const left = 0xd2511f53n * a;
    const right = 0xcd9e8d57n * c;
    [a, b, c, d] = [(right >> 32n) ^ b ^ k, right & mask, (left >> 32n) ^ d ^ l, left & mask];
    k = (k + 0x9e3779b9n) & mask;
    l = (l + 0xbb67ae85n) & mask;
  }
  return [a, b, c, d].map(Number);
}

describe("philox4x32", () => {
  // Random123's file of known answers, rows "philox4x32 10": zeros, ones, the digits of pi.
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)("gives the published answer for counter %j", (counter, key, words) => {
    expect(philox4x32(counter, key)).toEqual(words);
  });

  test("equals the paper's formula in whole numbers for any counter and key", () => {
    fc.assert(
      fc.property(fc.tuple(u32, u32, u32, u32), fc.tuple(u32, u32), (counter, key) => {
        expect(philox4x32(counter, key)).toEqual(philoxReference(counter, key));
      }),
      { numRuns: 500 },
    );
  });
});

describe("uniform", () => {
  test("is in [0, 1) and has 24 bits, so float32 holds it", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), u32, u32, (seed, sequence, step) => {
        const u = uniform(seed, sequence, step);
        expect(u).toBe(Math.fround(u));
        expect(Number.isInteger(u * 2 ** 24) && u >= 0 && u < 1).toBe(true);
      }),
    );
  });

  test("is the first word's top 24 bits of counter (step, sequence, 0, 0) and the seed as key", () => {
    expect(uniform(0, 0, 0)).toBe((0x6627e8d5 >>> 8) / 2 ** 24);
    const [word] = philox4x32([7, 3, 0, 0], [0x9abcdef0, 0x12345678]);
    expect(uniform(0x123456789abcdef0n, 3, 7)).toBe((word >>> 8) / 2 ** 24);
  });

  test("differs by seed, by sequence and by step", () => {
    const numbers = new Set<number>();
    for (let i = 0; i < 5; i++) {
      for (let j = 0; j < 5; j++) for (let k = 0; k < 5; k++) numbers.add(uniform(i, j, k));
    }
    expect(numbers.size).toBe(125);
  });

  test("fills 16 equal bins equally (chi-square, 15 degrees of freedom, p above 0.001)", () => {
    const draws = 16_000;
    const bins = new Array<number>(16).fill(0);
    for (let step = 0; step < draws; step++) bins[Math.floor(uniform(42, 0, step) * 16)]! += 1;
    const chiSquare = bins.reduce((sum, n) => sum + (n - draws / 16) ** 2 / (draws / 16), 0);
    expect(chiSquare).toBeLessThan(37.7);
  });

  test.each([-1, 2 ** 32, 0.5, Number.NaN])("refuses %s as sequence or step", (value) => {
    expect(() => uniform(1, value, 0)).toThrow(`sequence is ${value}`);
    expect(() => uniform(1, 0, value)).toThrow(`step is ${value}`);
  });
});

describe("a seed", () => {
  test("is any integer from 0 to 2^64 - 1, number or bigint alike", () => {
    expect(seedWords(0)).toEqual([0, 0]);
    expect(seedWords(2 ** 40 + 5)).toEqual([5, 256]);
    expect(seedWords(2n ** 64n - 1n)).toEqual([0xffffffff, 0xffffffff]);
    expect(uniform(77, 1, 2)).toBe(uniform(77n, 1, 2));
  });

  test.each([-1, -1n, 1.5, 2 ** 53, 2n ** 64n, Number.NaN, Number.POSITIVE_INFINITY])("is not %s", (seed) => {
    expect(() => seedWords(seed)).toThrow(BadInput);
    expect(() => seedWords(seed)).toThrow(`seed is ${seed}; it must be an integer from 0 to 2^64 - 1`);
  });
});
