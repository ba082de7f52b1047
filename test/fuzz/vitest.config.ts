import { defineConfig } from "vitest/config";

// npm run fuzz: the long run; test/formats/fuzz.test.ts is the short one in the suite.
export default defineConfig({
  test: {
    include: ["test/fuzz/run.ts"],
    pool: "forks",
    maxWorkers: 1,
    // An hour: the number of cases is the caller's choice.
    testTimeout: 3_600_000,
  },
});
