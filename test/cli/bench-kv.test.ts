import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type BenchResults, RESULTS } from "../../src/bench/results.ts";
import { BadInput } from "../../src/check.ts";
import { benchCommand } from "../../src/cli/bench.ts";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { beforeSteps } from "../bench/before-steps.ts";
import { golden } from "../model/tiny.ts";
import { type Outcome, pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

const { prompts } = JSON.parse(readFileSync(golden("novels-en.json"), "utf8"));
const [{ prompt, greedy }] = prompts as [{ prompt: string; greedy: number[] }];

let out: string;
beforeEach(() => {
  out = join(mkdtempSync(join(tmpdir(), "quire-bench-")), "results");
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(join(out, ".."), { recursive: true });
});

const bench = (...args: string[]) =>
  runCommand(benchCommand, "bench", "kv", "--prompt", prompt, "--out", out, ...TEST_ADAPTER, ...args);
const SHORT = ["-n", "2", "--warmup", "0", "--temperature", "0"];

/** What was written, once it has been found to be of the schema. */
function written(): BenchResults {
  return RESULTS.parse(JSON.parse(readFileSync(join(out, "results.json"), "utf8")));
}

describe("quire bench kv", () => {
  it("prints the table and the same tokens of all modes, and writes every file", async () => {
    const outcome: Outcome = await bench(...SHORT);
    expect([outcome.error, outcome.exitCode]).toEqual([undefined, 0]);
    expect(outcome.out).toMatch(/steps: host-visible +no cache +contiguous +paged/);
    expect(outcome.out).toContain("All 3 modes gave the same 2 tokens (3 runs compared).");
    expect(outcome.err).toMatch(/^quire: wrote \d+ files to .*results; open report\.html$/m);
    const results = written();
    expect(results.runs.map((r) => r.mode)).toEqual(["none", "contiguous", "paged"]);
    for (const run of results.runs) expect(run.tokens).toEqual(greedy.slice(0, 2));
    expect(results.sameTokens).toEqual({ identical: true, runs: 3, tokens: 2 });
    expect("incomplete" in results).toBe(false);
    for (const name of ["steps.csv", "report.html", "charts/modes.svg", "charts/mode-paged.svg"])
      expect(existsSync(join(out, name)), name).toBe(true);
  });

  it("--json prints results.json alone to stdout, with the options as they were given", async () => {
    const flags = ["--modes", "paged,none", "--seed", "18446744073709551615", "--repeat", "2"];
    const more = [
      "--prefill-chunk",
      "4",
      "--page-size",
      "8",
      "--top-k",
      "5",
      "--max-seq-len",
      "64",
      "--ignore-eos",
    ];
    const outcome = await bench("-n", "1", "--warmup", "0", ...flags, ...more, "--json");
    const results = RESULTS.parse(JSON.parse(outcome.out));
    expect(results).toEqual(written());
    expect(results.options).toMatchObject({
      prompt,
      newTokens: 1,
      prefillChunk: 4,
      modes: ["paged", "none"],
      temperature: 0.7,
      topK: 5,
      seed: "18446744073709551615",
      repeat: 2,
      warmup: 0,
      pageSize: 8,
      maxSeqLen: 64,
      ignoreEos: true,
    });
    expect(results.runs.map((r) => `${r.mode} ${r.repeat}`)).toEqual([
      "paged 1",
      "none 1",
      "paged 2",
      "none 2",
    ]);
    expect(results.summary.map((s) => s.mode)).toEqual(["none", "paged"]);
  });

  it("--timing pipelined gives the same tokens, and says everywhere how steps were timed", async () => {
    const outcome = await bench("-n", "4", "--warmup", "0", "--temperature", "0", "--timing", "pipelined");
    expect([outcome.error, outcome.exitCode]).toEqual([undefined, 0]);
    expect(outcome.out).toMatch(/steps: pipelined +no cache +contiguous +paged/);
    expect(outcome.out).toContain("- A step's time is its round's time over its steps");
    const { options, runs, conclusion } = written();
    expect(options.timing).toBe("pipelined");
    expect(runs.map((r) => r.timing)).toEqual(["visible", "pipelined", "pipelined"]);
    for (const run of runs) expect(run.tokens).toEqual(greedy.slice(0, 4));
    expect(conclusion.join(" ")).toContain("No cache waits for each of its tokens");
    expect(readFileSync(join(out, "report.html"), "utf8")).toContain("steps: pipelined");
  });

  it("--batch runs sequences of different lengths in every mode, and says what paging saves", async () => {
    const outcome = await bench("-n", "3", "--warmup", "0", "--batch", "3", "--modes", "contiguous,paged");
    expect([outcome.error, outcome.exitCode]).toEqual([undefined, 0]);
    expect(outcome.out).toMatch(/would fit \(derived\) +3 +\d\d\d/);
    expect(outcome.out).toContain("with at most 3, 2, 1 new tokens");
    expect(outcome.out).toContain(
      "All 2 modes gave each of the 3 sequences the same tokens, 6 in all (2 runs compared).",
    );
    const { options, runs, summary } = written();
    expect(options.batch).toBe(3);
    for (const run of runs) expect(run.sequences!.map((s) => s.tokens.length)).toEqual([3, 2, 1]);
    expect(summary.map((s) => s.batch!.sequences)).toEqual([3, 3]);
    for (const name of ["batch-kv", "batch-rate"])
      expect(existsSync(join(out, `charts/${name}.svg`))).toBe(true);
  });

  it("a token that differs in one sequence of a batch is the experiment's failure", async () => {
    const forward = Gpt2.prototype.forward;
    vi.spyOn(Gpt2.prototype, "forward").mockImplementation(function (this: Gpt2, cache, items, trace) {
      const last = items.length - 1;
      const wrong = items.map((item, i) =>
        i === last ? { ...item, tokens: item.tokens.map((id) => id + 1) } : item,
      );
      return forward.call(this, cache, cache.mode === "paged" ? wrong : items, trace);
    });
    const outcome = await bench(...SHORT.slice(2), "-n", "1", "--batch", "2", "--modes", "contiguous,paged");
    expect([outcome.error, outcome.exitCode]).toEqual([undefined, 1]);
    expect(outcome.out).toMatch(
      /The runs DIFFER, first at step 1: contiguous, repeat 1, sequence 1: 263; paged/,
    );
  });

  it("of one run says that there is nothing to compare, which is no failure", async () => {
    const outcome = await bench(...SHORT, "--modes", "paged", "--lang", "zh");
    expect(outcome.exitCode).toBe(0);
    expect(outcome.out).toContain("只有一次运行，没有可比较的 token。");
    expect(written().sameTokens).toEqual({ identical: null, runs: 1, tokens: 2 });
  });

  it("names the first difference between modes, and exits with 1", async () => {
    const forward = Gpt2.prototype.forward;
    vi.spyOn(Gpt2.prototype, "forward").mockImplementation(function (this: Gpt2, cache, items, trace) {
      const other = (tokens: readonly number[]) => tokens.map((id) => id + 1);
      const given = cache.mode === "paged" ? items.map((i) => ({ ...i, tokens: other(i.tokens) })) : items;
      return forward.call(this, cache, given, trace);
    });
    const outcome = await bench(...SHORT);
    expect([outcome.error, outcome.exitCode]).toEqual([undefined, 1]);
    expect(outcome.out).toMatch(
      /The runs DIFFER, first at step 1: no cache, repeat 1: 263; paged, repeat 1: /,
    );
    expect(outcome.out).toContain("do not compare the times");
    expect(written().sameTokens).toMatchObject({ identical: false, runs: 3 });
  });

  it("an error in one mode keeps the others, is reported, and exits with 2", async () => {
    beforeSteps((mode, step) => {
      if (mode === "contiguous" && step === 2) throw new OutOfMemory("OOM: no room for it");
    });
    const { out: text, exitCode, error } = await bench(...SHORT);
    expect([exitCode, error?.message]).toEqual([2, "OOM: no room for it"]);
    expect(text).toMatch(/no cache +paged/);
    expect(text).toContain("The experiment is incomplete: OOM: no room for it");
    const results = written();
    expect(results.incomplete).toBe("OOM: no room for it");
    expect(results.runs.map((r) => [r.mode, r.finishReason])).toEqual([
      ["none", "length"],
      ["contiguous", "error"],
      ["paged", "length"],
    ]);
    expect(readFileSync(join(out, "report.html"), "utf8")).toContain("OOM: no room for it");
  });

  it("when nothing was measured has no table, and says why", async () => {
    beforeSteps(() => {
      throw new OutOfMemory("OOM: no room for it");
    });
    const { out: text, exitCode } = await bench(...SHORT);
    expect(exitCode).toBe(2);
    expect(text).toContain("No run reached its end, so there are no figures.");
    expect(text).toContain("No run gave a token: there is nothing to compare.");
    expect(text).not.toContain("time per token");
    expect(written().sameTokens).toEqual({ identical: null, runs: 0, tokens: 0 });
  });

  it("on Ctrl-C keeps what was measured, writes it, and exits with 130", async () => {
    beforeSteps((mode, step) => {
      if (mode === "contiguous" && step === 1) pressCtrlC();
    });
    const { out: text, exitCode } = await bench(...SHORT);
    expect(exitCode).toBe(130);
    expect(text).toContain("The experiment is incomplete: interrupted");
    const results = written();
    expect(results.incomplete).toBe("interrupted");
    expect(results.runs.map((r) => [r.mode, r.finishReason, r.steps.length])).toEqual([
      ["none", "length", 2],
      ["contiguous", "error", 1],
    ]);
  });

  it.each([
    [["--modes", "none,swap"], /^--modes is "swap"; wanted none, contiguous, paged$/],
    [["--modes", "none,none"], /^--modes names none twice$/],
    [["--prompt", ""], /^--prompt is empty/],
    [["--repeat", "0"], /^--repeat is "0"/],
    [["--lang", "fr"], /^--lang is "fr"/],
    [["--timing", "fast"], /^--timing is "fast"; wanted visible, pipelined$/],
    [["-n", "1018"], /the prompt has 7 tokens and --new-tokens is 1018; together at most .* 1024/],
    [["--max-seq-len", "8"], /^--max-seq-len is 8; this run needs 56/],
    [["--kv-pages", "3"], /^--kv-pages is 3; this run needs 4 pages of 16 slots/],
    [["--batch", "0"], /^--batch is "0"; wanted an integer from 1 to 1024$/],
    [["--batch", "2.5"], /^--batch is "2.5"; wanted an integer from 1 to 1024$/],
    [["--batch", "3", "--kv-pages", "5"], /^--kv-pages is 5; this run needs 6 pages .* its 3 sequences/],
    [["--batch", "3", "--max-seq-len", "8"], /^--max-seq-len is 8; this run needs 56/],
    [["--out", "/dev/null/results"], /^--out: cannot write/],
  ])("refuses %j before the first step", async (flags, message) => {
    const forward = vi.spyOn(Gpt2.prototype, "forward");
    const { out: text, error, exitCode } = await bench(...flags);
    expect([text, exitCode]).toEqual(["", 2]);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
    expect(forward).not.toHaveBeenCalled();
    expect(existsSync(join(out, "results.json"))).toBe(false);
  });

  it("minds the flags of a cache only where its mode runs", async () => {
    const { exitCode } = await bench(...SHORT, "--modes", "paged", "--max-seq-len", "4");
    expect(exitCode).toBe(0);
  });
});
