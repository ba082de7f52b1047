import { defineConfig } from "vitest/config";

// Two workers: one waits for SwiftShader, which uses every core, while the other parses files. More only contend.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
