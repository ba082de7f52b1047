import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { MUTANTS, PURE_TESTS } from "./list.ts";

// Puts known bugs into the modules that hold and schedule sequences, one at a time, and fails where no test sees one:
//   npm run mutants                          all of them, some minutes
//   npm run mutants -- -t "prefix-cache"     those whose file or fault has these words
const PROJECT = fileURLToPath(new URL("../../", import.meta.url));
const VITEST = `${PROJECT}node_modules/vitest/vitest.mjs`;
const LIMIT_MS = 300_000;

/** What vitest's JSON reporter says of a run. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    /** Why the file could not be run; else "". */
    readonly message: string;
  }[];
}

/** Run the tests whose file names begin with one of `tests`, up to the first failure, with mutant `number` or with none. */
function runTests(tests: readonly string[], number?: number): Promise<Report> {
  const args = [VITEST, "run", "--config", "test/mutants/mutated.config.ts", "--reporter=json", "--bail=1"];
  const { QUIRE_MUTANT: _, ...env } = process.env;
  if (number !== undefined) env.QUIRE_MUTANT = String(number);
  return new Promise((resolve, reject) => {
    const options = { cwd: PROJECT, env, timeout: LIMIT_MS, maxBuffer: 2 ** 28 };
    execFile(process.execPath, [...args, ...tests], options, (error, stdout, stderr) => {
      const begin = stdout.indexOf('{"numTotal');
      if (error?.killed) reject(new Error(`the tests did not end in ${LIMIT_MS / 1000} s`));
      else if (begin < 0) reject(new Error(`no report: ${stderr || stdout}`));
      else resolve(JSON.parse(stdout.slice(begin)) as Report);
    });
  });
}

test("without a mutant all pure tests pass", async () => {
  const { numFailedTests, numPassedTests } = await runTests(PURE_TESTS);
  expect(numFailedTests).toBe(0);
  expect(numPassedTests).toBeGreaterThan(50);
});

describe("a bug is seen by a test", () => {
  MUTANTS.forEach(({ file, find, replace, breaks, tests = PURE_TESTS }, number) => {
    test.concurrent(`${file}: ${breaks}`, async () => {
      const source = readFileSync(PROJECT + file, "utf8");
      expect(source.split(find).length - 1, `how often ${file} has the text to replace: ${find}`).toBe(1);
      expect(replace).not.toBe(find);
      const report = await runTests(tests, number);
      // A mutant that cannot be loaded is none: then it is not a test that fails, but its file.
      const broken = report.testResults.map(({ message }) => message).filter((message) => message !== "");
      expect(broken).toEqual([]);
      expect(report.numFailedTests, "tests that failed").toBeGreaterThan(0);
    });
  });
});
