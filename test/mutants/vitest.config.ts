import { defineConfig } from "vitest/config";

// npm run mutants: minutes, so no part of the suite.
export default defineConfig({
  test: {
    include: ["test/mutants/run.ts"],
    pool: "forks",
    maxWorkers: 1,
    // Each mutant is a process of its own.
    maxConcurrency: 2,
    testTimeout: 600_000,
    reporters: ["verbose"],
  },
});
