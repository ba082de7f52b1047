import { defineConfig } from "vitest/config";

// One worker: SwiftShader already uses every core, and two GPU tests at once only slow each other down.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
