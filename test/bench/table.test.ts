import { describe, expect, test } from "vitest";
import { completeResults } from "../../src/bench/conclude.ts";
import type { Timing } from "../../src/bench/results.ts";
import {
  generatedTexts,
  resultsText,
  samenessLine,
  summaryRows,
  summaryTable,
} from "../../src/bench/table.ts";
import { formatBytes, formatCount, formatSeconds } from "../../src/bench/units.ts";
import type { CacheMode } from "../../src/kv/cache.ts";
import { sampleMeasured, sampleResults, sampleRun } from "./sample-results.ts";

describe("the table", () => {
  test("has a row for each figure of the experiment and a column for each mode", () => {
    const rows = summaryRows(sampleResults().summary, "en");
    expect(rows.map((r) => r.label)).toEqual([
      "time per token, average",
      "time per token, p50",
      "time per token, p95",
      "time to first token",
      "average without the first",
      "total time",
      "tokens per second",
      "speed-up over no cache",
      "peak GPU memory",
      "weights",
      "keys and values",
      "activations",
      "tables",
      "staging",
      "peak, relative to no cache",
      "KV buffers on the GPU",
      "KV reserved at the end",
      "KV used",
      "KV wasted",
      "wasted, of the reserved",
    ]);
    for (const row of rows) expect(row.cells).toHaveLength(3);
    expect(rows.slice(-2).map((r) => r.cells)).toEqual([
      ["0 B", "8.5 MiB", "72.0 KiB"],
      ["–", "94.5 %", "12.5 %"],
    ]);
  });

  test("of a batch names what paging is for: what is reserved and wasted, and how many would fit", () => {
    const { summary } = sampleResults({ batch: 4, newTokens: 8 });
    const rows = summaryRows(summary, "en");
    expect(rows[0]!.label).toBe("time per step, average");
    expect(rows.slice(-8).map((r) => [r.label, ...r.cells])).toEqual([
      ["KV buffers on the GPU", "0 B", "36.0 MiB", "144.0 KiB"],
      ["KV reserved, most", "0 B", "36.0 MiB", "576.0 KiB"],
      ["KV reserved, mean", "0 B", "22.5 MiB", "360.0 KiB"],
      // Contexts of 7 to 14 tokens with 4, 4, 3, 3, 2, 2, 1 and 1 sequences: 190 / 8 slots of 9 KiB.
      ["KV used, mean", "0 B", "213.8 KiB", "213.8 KiB"],
      ["KV wasted, mean", "0 B", "22.3 MiB", "146.3 KiB"],
      ["wasted, of the reserved", "–", "99.1 %", "40.6 %"],
      ["KV of a sequence, mean", "0 B", "9.0 MiB", "144.0 KiB"],
      ["would fit (derived)", "–", "4", "256"],
    ]);
    for (const lang of ["en", "zh"] as const)
      expect(summaryTable(summary, "visible", lang, 80).split("\n")).toHaveLength(2 + 23);
  });

  test("fits 80 columns in both languages and holds no escape sequences", () => {
    for (const lang of ["en", "zh"] as const) {
      const lines = summaryTable(sampleResults({}, lang).summary, "visible", lang, 80).split("\n");
      expect(lines).toHaveLength(2 + 20);
      expect(lines.join("\n")).not.toContain("\u001b");
      expect(lines[1]).toMatch(/^─+$/);
    }
  });

  test("becomes a list where the columns do not fit", () => {
    const text = summaryTable(sampleResults().summary, "pipelined", "en", 50);
    expect(text).toMatch(/^steps: pipelined\nno cache\n/);
    expect(text).toContain("contiguous\n  time per token, average: ");
    for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(50);
  });

  test("leaves a dash for a speed-up over a mode that did not run", () => {
    const rows = summaryRows(sampleResults({ modes: ["paged"] }).summary, "en");
    expect(rows.find((r) => r.label.startsWith("speed-up"))!.cells).toEqual(["–"]);
  });
});

describe("the text of the results", () => {
  test("says in the table's corner and in the conclusion what a step's time is", () => {
    const first = (timing: Timing, modes?: CacheMode[]) =>
      resultsText(sampleResults({ timing, modes }), "en", 100).split("\n")[0];
    expect(first("visible")).toMatch(/^ ?steps: host-visible +no cache +contiguous +paged$/);
    expect(first("pipelined")).toMatch(/^ ?steps: pipelined +no cache +contiguous +paged$/);
    expect(first("pipelined", ["none"])).toMatch(/^ ?steps: host-visible +no cache$/);
    expect(resultsText(sampleResults({ timing: "pipelined" }), "zh", 100)).toContain("流水线");
  });

  test("ends with conclusion, text and the line of sameness", () => {
    const results = sampleResults();
    const text = resultsText(results, "en", 100);
    expect(text.endsWith("\nAll 3 modes gave the same 50 tokens (6 runs compared).")).toBe(true);
    for (const sentence of results.conclusion) expect(text).toContain(`- ${sentence}\n`);
    expect(text.split("said the priest")).toHaveLength(2);
  });

  test("shows every mode's text when they differ", () => {
    const results = sampleResults();
    for (const run of results.runs) if (run.mode === "paged") run.text = "something else";
    expect(generatedTexts(results, "en").map((t) => t.heading)).toEqual(["no cache", "contiguous", "paged"]);
  });

  test("has a sentence instead of a table when no run reached its end", () => {
    const broken = {
      ...sampleMeasured(),
      runs: [{ ...sampleRun("none", 1), finishReason: "error" as const }],
    };
    const text = resultsText(completeResults({ ...broken, incomplete: "none: OOM" }, "en"), "en", 100);
    expect(text.split("\n")[0]).toBe("No run reached its end, so there are no figures.");
    expect(text).not.toContain("time per token");
    expect(text).toContain("The experiment is incomplete: none: OOM");
  });

  test("lets no control character of a model through to the terminal", () => {
    const results = sampleResults();
    for (const run of results.runs) run.text = "a\u001b[2Jb\u0007\tc\nd\u009b";
    expect(resultsText(results, "en", 100)).toContain("a\ufffd[2Jb\ufffd\tc\nd\ufffd");
  });

  test("names the first difference", () => {
    const firstDifference = {
      step: 12,
      modeA: "none" as const,
      repeatA: 1,
      tokenA: 311,
      modeB: "paged" as const,
      repeatB: 2,
      tokenB: null,
    };
    const same = { identical: false, runs: 6, tokens: 50, firstDifference };
    expect(samenessLine(same, 3, "en")).toBe(
      "The runs DIFFER, first at step 12: no cache, repeat 1: 311; paged, repeat 2: no token.",
    );
    expect(samenessLine({ identical: null, runs: 1, tokens: 50 }, 1, "en")).toBe(
      "Only one run: there is nothing to compare its tokens with.",
    );
    expect(samenessLine({ identical: null, runs: 0, tokens: 0 }, 0, "en")).toBe(
      "No run gave a token: there is nothing to compare.",
    );
    expect(samenessLine({ identical: true, runs: 3, tokens: 50 }, 1, "en")).toBe(
      "All 3 runs gave the same 50 tokens.",
    );
  });

  test("says the same of each sequence of a batch", () => {
    const same = { identical: true, runs: 3, tokens: 12, sequences: 3 };
    expect(samenessLine(same, 3, "en")).toBe(
      "All 3 modes gave each of the 3 sequences the same tokens, 12 in all (3 runs compared).",
    );
    const firstDifference = {
      step: 2,
      modeA: "none" as const,
      repeatA: 1,
      tokenA: 311,
      modeB: "paged" as const,
      repeatB: 1,
      tokenB: 9,
      sequence: 2,
    };
    expect(samenessLine({ ...same, identical: false, firstDifference }, 3, "en")).toBe(
      "The runs DIFFER, first at step 2: no cache, repeat 1, sequence 2: 311; paged, repeat 1, sequence 2: 9.",
    );
    const [text] = generatedTexts(sampleResults({ batch: 3 }), "en");
    expect(text!.heading).toBe("all modes, sequence 0");
  });
});

describe("units", () => {
  test("are chosen by size and always written out", () => {
    expect([0.0000123, 0.00987, 0.1234, 12.3].map((s) => formatSeconds(s))).toEqual([
      "12.30 µs",
      "9.87 ms",
      "123.4 ms",
      "12.30 s",
    ]);
    expect([0, 1023, 1024, 2 ** 20 * 14.25, 2 ** 30 * 12].map((b) => formatBytes(b))).toEqual([
      "0 B",
      "1023 B",
      "1.0 KiB",
      "14.3 MiB",
      "12.0 GiB",
    ]);
    expect([7, 1000, 3_654_144].map(formatCount)).toEqual(["7", "1,000", "3,654,144"]);
  });
});
