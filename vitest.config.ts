import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** The longest files, longest first: one that began last would leave a core idle. */
const LONG = [
  "golden-novels",
  "batch-runner",
  "ops/sample",
  "engine-preemption",
  "ragged-step",
  "cli/bench-kv",
  "decode-step",
  "int8",
  "norm-head",
  "generate-faults",
  "cli/generate",
  "bench/shaders",
  "deno/",
  "tokenizer.test",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LONG.findIndex((name) => moduleId.includes(name));
      return at < 0 ? LONG.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

// Two workers: one waits for SwiftShader, which uses every core, while the other parses files. More only contend.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/setup.ts"],
    pool: "forks",
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
