import { expect, it } from "vitest";
import { fuzz, summary } from "./harness.ts";
import { TARGETS } from "./targets.ts";

// Mutated files for every parser:  FUZZ_CASES=100000 FUZZ_SEED=1 FUZZ_ONLY=zip npm run fuzz
const cases = Number(process.env.FUZZ_CASES ?? 100_000);
const seed = Number(process.env.FUZZ_SEED ?? 1);
const only = process.env.FUZZ_ONLY ?? "";

it.each(TARGETS.filter(({ name }) => name.includes(only)).map((target) => [target.name, target] as const))(
  `%s survives ${cases} mutated files of seed ${seed}`,
  async (_name, target) => {
    const result = await fuzz(target, cases, seed);
    console.log(summary(target, result));
    expect(result.refused.size).toBeGreaterThanOrEqual(1);
  },
);
