import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vitest/config";
import { MUTANTS, PURE_TESTS } from "./list.ts";

// One run of the pure tests with the bug number QUIRE_MUTANT in its source file, or with none. run.ts starts it.
const PROJECT = fileURLToPath(new URL("../../", import.meta.url));
const number = process.env.QUIRE_MUTANT;
const mutant = number === undefined ? undefined : MUTANTS[Number(number)];

const mutate: Plugin = {
  name: "quire-mutant",
  enforce: "pre",
  transform: (code, id) => {
    if (mutant === undefined || id !== PROJECT + mutant.file) return undefined;
    return code.replace(mutant.find, () => mutant.replace);
  },
};

export default defineConfig({
  root: PROJECT,
  plugins: [mutate],
  test: {
    include: PURE_TESTS.map((start) => `${start}*.test.ts`),
    setupFiles: ["test/mutants/setup.ts"],
    pool: "forks",
    maxWorkers: 1,
    testTimeout: 120_000,
  },
});
