import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { THROUGHPUT_RESULTS } from "../../src/bench/throughput-results.ts";
import { BadInput } from "../../src/check.ts";
import { benchCommand } from "../../src/cli/bench.ts";
import { Engine } from "../../src/generate/engine.ts";
import { TINY } from "../model/tiny.ts";
import { pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

let folder: string;
let out: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-throughput-"));
  out = join(folder, "results");
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const bench = (...args: string[]) =>
  runCommand(benchCommand, "bench", "throughput", "--model", TINY, "--out", out, ...TEST_ADAPTER, ...args);
const SHORT = ["--num-prompts", "4", "--input-len", "uniform:3-6", "--output-len", "3", "--num-warmups", "2"];
const written = () => THROUGHPUT_RESULTS.parse(JSON.parse(readFileSync(join(out, "results.json"), "utf8")));
/** A dataset of these lines. */
function dataset(...lines: object[]): string {
  const file = join(folder, "requests.jsonl");
  writeFileSync(file, lines.map((line) => JSON.stringify(line)).join("\n"));
  return file;
}

describe("quire bench throughput", () => {
  it("prints figures and what they come to, and writes every file", async () => {
    const outcome = await bench(...SHORT);
    expect([outcome.error, outcome.exitCode]).toEqual([undefined, 0]);
    expect(outcome.out).toContain("4 requests: random tokens, uniform:3-6 in, 3 out; all at once");
    expect(outcome.out).toMatch(/^requests finished +4 of 4$/m);
    expect(outcome.out).toMatch(/^output tokens +12$/m);
    expect(outcome.out).toMatch(/^- 4 requests in [\d.]+ m?s: \d+(?:\.\d+)? output tokens a second/m);
    expect(outcome.err).toMatch(/^quire: KV cache: 64 pages of 16 tokens/m);
    expect(outcome.err).toMatch(/^quire: wrote 8 files to .*results; open report\.html$/m);
    const results = written();
    expect(results).toMatchObject({
      backend: "quire",
      completed: 4,
      failed: 0,
      total_output_tokens: 12,
      preemptions: 0,
    });
    expect(results.steps.full_decode).toMatchObject({ sequences: 4 });
    expect(readFileSync(join(out, "steps.csv"), "utf8").trim().split("\n")).toHaveLength(
      1 + results.steps.count,
    );
    expect(readFileSync(join(out, "requests.csv"), "utf8").trim().split("\n")).toHaveLength(1 + 4);
    for (const name of ["tokens", "load", "kv", "latency"])
      expect(existsSync(join(out, "charts", `${name}.svg`)), name).toBe(true);
  });

  it("--json prints results.json alone, with the options as they were given", async () => {
    const workload = [
      "--request-rate",
      "200",
      "--burstiness",
      "inf",
      "--max-concurrency",
      "3",
      "--prefix-len",
      "20",
    ];
    const engine = ["--page-size", "8", "--kv-pages", "30", "--preemption", "swap", "--no-chunked-prefill"];
    const more = [
      "--percentiles",
      "99.9,25",
      "--top-k",
      "5",
      "--seed",
      "18446744073709551615",
      "--no-ignore-eos",
    ];
    const outcome = await bench(...SHORT, ...workload, ...engine, ...more, "--json");
    expect(outcome.error).toBeUndefined();
    const results = THROUGHPUT_RESULTS.parse(JSON.parse(outcome.out));
    expect(results).toEqual(written());
    expect(results).toMatchObject({
      num_prompts: 4,
      request_rate: 200,
      burstiness: "inf",
      max_concurrency: 3,
      kv: { total_slots: 240 },
      model: { name: "tiny" },
      options: {
        input_len: "uniform:3-6",
        output_len: "3",
        prefix_len: 20,
        num_warmups: 2,
        percentiles: [25, 99.9],
        ignore_eos: false,
        page_size: 8,
        preemption: "swap",
        chunked_prefill: false,
        top_k: 5,
        seed: "18446744073709551615",
      },
    });
    // Two full pages of the shared 20 tokens, in the three requests after the first.
    expect(results.prefix_cache).toMatchObject({ hits: 48, shared_prefix_hit_percent: 80 });
    expect("incomplete" in results).toBe(false);
  });

  it("takes prompts from a file, as text too, and counts those that can never run", async () => {
    const ids = dataset(
      { prompt_ids: [1, 2, 3], max_tokens: 4 },
      { prompt_ids: [5], output_len: 60 },
      { prompt_ids: [9] },
    );
    const { out: printed } = await bench(
      "--dataset",
      ids,
      "--output-len",
      "2",
      "--kv-pages",
      "3",
      "--num-warmups",
      "0",
    );
    expect(printed).toContain(`3 requests: ${ids}; all at once`);
    expect(printed).toMatch(/1 failed, since they can never run; the first: a sequence of up to 60 tokens/);
    expect(written()).toMatchObject({
      completed: 2,
      failed: 1,
      total_input_tokens: 4,
      total_output_tokens: 6,
    });

    const text = dataset({ prompt: "It was a dark night", max_tokens: 1 });
    const novels = await bench("--model", "novels-en", "--dataset", text, "--num-warmups", "0");
    expect(novels.error).toBeUndefined();
    expect(written()).toMatchObject({ completed: 1, total_output_tokens: 1 });
    expect(written().total_input_tokens).toBeGreaterThan(3);
  });

  it("on Ctrl-C writes what was measured beside an earlier whole run, and exits with 130", async () => {
    mkdirSync(out);
    writeFileSync(join(out, "results.json"), "{}");
    const lengths = dataset({ prompt_ids: [1], max_tokens: 1 }, { prompt_ids: [2], max_tokens: 20 });
    pressAtStep(3);
    const outcome = await bench("--dataset", lengths, "--num-warmups", "0");
    expect(outcome.exitCode).toBe(130);
    expect(outcome.out).toContain(
      "Incomplete: interrupted; the figures are of the requests that were finished.",
    );
    expect(readFileSync(join(out, "results.json"), "utf8")).toBe("{}");
    const left = JSON.parse(readFileSync(join(`${out}-incomplete`, "results.json"), "utf8"));
    expect(THROUGHPUT_RESULTS.parse(left)).toMatchObject({
      completed: 1,
      incomplete: "interrupted",
      num_prompts: 2,
    });
  });

  it("on Ctrl-C in the warm-up has nothing to write", async () => {
    pressAtStep(1);
    const { out: printed, exitCode } = await bench(...SHORT);
    expect([printed, exitCode, existsSync(join(out, "results.json"))]).toEqual(["", 130, false]);
  });

  /** Ctrl-C in the n-th step. */
  function pressAtStep(n: number): void {
    const { step } = Engine.prototype;
    let steps = 0;
    vi.spyOn(Engine.prototype, "step").mockImplementation(function (this: Engine) {
      if (++steps === n) pressCtrlC();
      return step.call(this);
    });
  }

  it.each([
    [
      ["--input-len", "60", "--output-len", "5"],
      /^--input-len is 60, --output-len 5 and --prefix-len 0; together at most/,
    ],
    [["--input-len", "normal:5"], /^--input-len is "normal:5"; wanted a number of tokens/],
    [["--request-rate", "0"], /^--request-rate is "0"; wanted a number above 0, or inf$/],
    [["--burstiness", "x"], /^--burstiness is "x"; wanted a number above 0, or inf$/],
    [["--percentiles", "50,101"], /^--percentiles is "101"; wanted a number from 0 to 100$/],
    [["--percentiles", "9,9"], /^--percentiles names 9 twice$/],
    [["--dataset", "/nowhere.jsonl"], /^--dataset cannot be read: /],
    [["--dataset", "x.jsonl", "--prefix-len", "4"], /^--dataset and --prefix-len are both given/],
    [["--dataset", "x.jsonl", "--input-len", "4"], /^--dataset and --input-len are both given/],
    [["--kv-pages", "0"], /^--kv-pages is "0"/],
    [
      ["--input-len", "20", "--output-len", "40", "--kv-pages", "2", "--num-prompts", "1"],
      /^a sequence of up to 59 tokens/,
    ],
    [["--out", "/dev/null/x"], /^--out: cannot write/],
  ])("refuses %j", async (flags, message) => {
    const { out: printed, error, exitCode } = await bench(...flags);
    expect([printed, exitCode]).toEqual(["", 2]);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
  });
});
