import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RESULTS } from "../../src/bench/results.ts";
import { prepareResultsDir, stepsCsv, writeResults } from "../../src/bench/write-results.ts";
import { BadInput } from "../../src/check.ts";
import { sampleResults } from "./sample-results.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-results-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("results.json", () => {
  test("the schema takes the sample and keeps every field in its order", () => {
    for (const results of [sampleResults(), sampleResults({ batch: 3, newTokens: 5 })])
      expect(JSON.stringify(RESULTS.parse(results))).toBe(JSON.stringify(results));
  });

  test("the schema takes a file from before --batch as one of a batch of 1", () => {
    const results = sampleResults();
    const { batch, ...before } = results.options;
    expect(batch).toBe(1);
    expect(RESULTS.parse({ ...results, options: before })).toEqual(results);
    // Of one sequence nothing else was added.
    expect(JSON.stringify(results).match(/"(batch|sequences)"/g)).toEqual(['"batch"']);
  });

  test("the schema refuses another version, a wrong mode, a bad time and a seed that lost digits", () => {
    const results = sampleResults();
    const step = { ...results.runs[0]!.steps[0]!, seconds: Number.NaN };
    const wrong = [
      { ...results, schema: "quire-bench-kv/1" },
      { ...results, options: { ...results.options, timing: "fast" } },
      { ...results, runs: [{ ...results.runs[0]!, surplus: -1 }] },
      { ...results, runs: [{ ...results.runs[0]!, mode: "magic" }] },
      { ...results, runs: [{ ...results.runs[0]!, totalSeconds: -1 }] },
      { ...results, runs: [{ ...results.runs[0]!, steps: [step] }] },
      { ...results, options: { ...results.options, seed: 2 ** 64 } },
    ];
    for (const value of wrong) expect(RESULTS.safeParse(value).success).toBe(false);
  });
});

describe("writeResults", () => {
  test("writes figures, steps, charts and report, and leaves nothing half written", async () => {
    const out = join(folder, "a", "b");
    const results = sampleResults();
    const files = await writeResults(out, results, "en");
    expect(files.map((f) => f.slice(out.length + 1))).toEqual([
      "results.json",
      "steps.csv",
      ...["modes", "normalised", "raw-latency", "raw-kv", "mode-none", "mode-contiguous", "mode-paged"].map(
        (id) => join("charts", `${id}.svg`),
      ),
      "report.html",
    ]);
    expect(readdirSync(out).sort()).toEqual(["charts", "report.html", "results.json", "steps.csv"]);
    expect(JSON.parse(readFileSync(join(out, "results.json"), "utf8"))).toEqual(results);
    // 2^64 - 1, digit by digit.
    for (const name of ["results.json", "report.html"])
      expect(readFileSync(join(out, name), "utf8")).toContain("18446744073709551615");
  });

  test("replaces an earlier experiment, whose other charts go, and leaves foreign files alone", async () => {
    await writeResults(folder, sampleResults(), "en");
    writeFileSync(join(folder, "charts", "mine.svg"), "<svg/>");
    await writeResults(folder, sampleResults({ modes: ["none", "paged"] }), "zh");
    expect(existsSync(join(folder, "charts", "mode-contiguous.svg"))).toBe(false);
    expect(existsSync(join(folder, "charts", "mode-paged.svg"))).toBe(true);
    expect(existsSync(join(folder, "charts", "mine.svg"))).toBe(true);
  });

  test("writes the other files when one cannot be written, then says which", async () => {
    mkdirSync(join(folder, "steps.csv"));
    const message = /^--out: cannot write .*steps\.csv: a folder is in the way of the file; name a folder/;
    await expect(writeResults(folder, sampleResults(), "en")).rejects.toThrow(message);
    expect(readdirSync(folder).sort()).toEqual(["charts", "report.html", "results.json", "steps.csv"]);
  });

  test("writes figures that the schema refuses as they are, and says so afterwards", async () => {
    const results = sampleResults();
    results.runs[0]!.totalSeconds = -1;
    await expect(writeResults(folder, results, "en")).rejects.toThrow("totalSeconds");
    expect(JSON.parse(readFileSync(join(folder, "results.json"), "utf8")).runs[0].totalSeconds).toBe(-1);
  });

  test("refuses a path through a file, and a file, as bad input on one line", async () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    for (const dir of [file, join(file, "below")]) {
      const error = await prepareResultsDir(dir).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(BadInput);
      expect((error as Error).message).toMatch(
        /^--out: cannot write .*: .*folder; name a folder that you can write to$/,
      );
    }
  });
});

describe("steps.csv", () => {
  test("has one line for each step of each repeat under a header with units", () => {
    const results = sampleResults({ newTokens: 5 });
    const [head, ...rows] = stepsCsv(results)
      .trimEnd()
      .split("\n")
      .map((line) => line.split(","));
    expect(head!.slice(0, 8).join()).toBe(
      "mode,repeat,step,token_id,context_length_tokens,new_tokens_computed,seconds,gpu_memory_bytes",
    );
    expect(rows).toHaveLength(3 * 2 * 5);
    for (const row of rows) expect(row).toHaveLength(head!.length);
    for (const row of rows) expect(row.at(-2)).toBe("1");
    const last = results.runs.at(-1)!.steps.at(-1)!;
    expect(rows.at(-1)!.slice(0, 7)).toEqual(
      ["paged", 2, 5, last.tokenId, last.contextLength, last.newTokensComputed, last.seconds].map(String),
    );
  });

  test("ends with the sequences of a step and the tokens of all of them a second", () => {
    const results = sampleResults({ batch: 2, newTokens: 2, repeats: 1, modes: ["paged"] });
    const [first, second] = results.runs[0]!.steps;
    const [head, ...rows] = stepsCsv(results).trimEnd().split("\n");
    expect(head).toMatch(/,kv_used_bytes,sequences,tokens_per_second$/);
    expect(rows.map((row) => row.split(",").slice(-2).map(Number))).toEqual([
      [2, 2 / first!.seconds],
      [1, 1 / second!.seconds],
    ]);
  });
});
