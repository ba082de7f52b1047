import { describe, expect, it } from "vitest";
import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import { fuzz, fuzzCase } from "../fuzz/harness.ts";
import { TARGETS } from "../fuzz/targets.ts";

/** `npm run fuzz` runs 100,000. */
const CASES = 1000;

describe("mutated files", () => {
  it.each(TARGETS.map((target) => [target.name, target] as const))(
    "%s: 1,000 of them end in its own error or in data",
    async (_name, target) => {
      const { accepted, refused } = await fuzz(target, CASES, 1);
      const total = [...refused.values()].reduce((sum, count) => sum + count, accepted);
      expect(total).toBe(CASES);
      // A fuzzer that only ever meets the first check of a parser, or none, tests little.
      expect(refused.size).toBeGreaterThanOrEqual(target.minCodes);
      expect(accepted).toBeGreaterThan(0);
    },
  );
});

describe("the harness", () => {
  it.each(TARGETS.map((target) => [target.name, target] as const))(
    "%s: starts from sound files and leaves them so",
    async (_name, target) => {
      const before = target.seeds.map((seed) => new Uint8Array(seed));
      for (let index = 0; index < 200; index++) fuzzCase(target, 1, index);
      expect(target.seeds).toEqual(before);
      for (const seed of target.seeds)
        await expect(Promise.resolve(seed).then(target.parse)).resolves.not.toThrow();
    },
  );

  const seeds = [Uint8Array.from({ length: 50 }, (_, index) => index)];

  it("makes the same cases from the same seed, and others from another", () => {
    const target = { name: "x", minCodes: 1, seeds, parse: () => undefined };
    for (let index = 0; index < 50; index++) {
      expect(fuzzCase(target, 1, index)).toEqual(fuzzCase(target, 1, index));
    }
    const cases = (seed: number) => Array.from({ length: 20 }, (_, index) => fuzzCase(target, seed, index));
    expect(cases(1)).not.toEqual(cases(2));
  });

  it.each([
    ["another error", new RangeError("deep")],
    ["an error of two lines", new CheckpointError("CODE", "f", "one\ntwo")],
    ["a code that is none", new CheckpointError("not a code", "f", "x")],
  ])("reports %s, with the input", async (_name, error) => {
    const parse = () => {
      throw error;
    };
    await expect(fuzz({ name: "x", minCodes: 1, seeds, parse }, 1, 7)).rejects.toThrow(
      /^x: case 0 of seed 7 threw .*input/s,
    );
  });

  it("counts what was accepted and what was refused by code", async () => {
    let calls = 0;
    const parse = () => {
      if (calls++ % 2 === 0) throw new CheckpointError("ODD", "f", "x");
    };
    expect(await fuzz({ name: "x", minCodes: 1, seeds, parse }, 10, 1)).toEqual({
      accepted: 5,
      refused: new Map([["ODD", 5]]),
    });
  });
});
