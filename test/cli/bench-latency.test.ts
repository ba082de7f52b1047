import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LATENCY_RESULTS } from "../../src/bench/latency-results.ts";
import { BadInput } from "../../src/check.ts";
import { benchCommand } from "../../src/cli/bench.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { TINY } from "../model/tiny.ts";
import { pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-latency-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const bench = (...args: string[]) =>
  runCommand(benchCommand, "bench", "latency", "--model", TINY, ...TEST_ADAPTER, ...args);
const SHORT = ["--input-len", "4", "--output-len", "3", "--num-iters", "2", "--num-iters-warmup", "1"];

describe("quire bench latency", () => {
  it("prints figures that say what they are", async () => {
    const { out, err, exitCode, error } = await bench(...SHORT, "--batch-size", "2");
    expect([error, exitCode]).toEqual([undefined, 0]);
    expect(out).toMatch(/^tiny: weights f32, KV paged f32; 2 × \(4 tokens in, 3 out\), temperature 0\.7$/m);
    expect(out).toMatch(/^pipelined: steps run ahead/m);
    expect(out).toMatch(/^p99 +[\d.]+ (?:s|ms|µs)$/m);
    expect(out).toMatch(/^Iterations: 2, after 1 for warming up\./m);
    expect(err).toMatch(/software adapter[\s\S]*--num-iters 3 --num-iters-warmup 1|^$/);
  });

  it("--json prints the results alone, and --out writes the same to a file", async () => {
    const file = join(folder, "a", "latency.json");
    const more = [
      "--kv",
      "contiguous",
      "--timing",
      "visible",
      "--top-k",
      "5",
      "--seed",
      "7",
      "--prefill-chunk",
      "3",
    ];
    const { out } = await bench(...SHORT, ...more, "--json", "--out", file);
    const results = LATENCY_RESULTS.parse(JSON.parse(out));
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual(results);
    expect(results.latencies).toHaveLength(2);
    expect(results.options).toMatchObject({
      batch_size: 1,
      input_len: 4,
      output_len: 3,
      timing: "visible",
      kv: "contiguous",
      top_k: 5,
      prefill_chunk: 3,
      seed: "7",
    });
    expect(results.model).toMatchObject({ name: "tiny", dtype: "f32" });
    expect("incomplete" in results).toBe(false);
  });

  it("without a cache says that each token was waited for, whatever was asked", async () => {
    const { out } = await bench(...SHORT, "--kv", "none", "--timing", "pipelined", "--json");
    expect(LATENCY_RESULTS.parse(JSON.parse(out)).options).toMatchObject({ timing: "visible", kv: "none" });
  });

  it("on Ctrl-C tells the iterations before, and exits with 130", async () => {
    const { out, exitCode } = await pressingAt(2);
    expect(exitCode).toBe(130);
    expect(LATENCY_RESULTS.parse(JSON.parse(out))).toMatchObject({ incomplete: "interrupted" });
    expect(JSON.parse(out).latencies).toHaveLength(1);
  });

  it("on Ctrl-C before the first iteration ends has no figures", async () => {
    const { out, exitCode } = await pressingAt(1);
    expect([out, exitCode]).toEqual(["", 130]);
  });

  /** Ctrl-C in the prompt's step of the n-th run, the warm-up counted. */
  function pressingAt(n: number) {
    const prompts = Gpt2.prototype.forward;
    let runs = 0;
    vi.spyOn(Gpt2.prototype, "forward").mockImplementation(function (this: Gpt2, cache, items, trace) {
      if (items[0]!.tokens.length === 4 && ++runs === n + 1) pressCtrlC();
      return prompts.call(this, cache, items, trace);
    });
    return bench(...SHORT, "--kv", "paged", "--json");
  }

  it.each([
    [
      ["--input-len", "60", "--output-len", "5"],
      /^--input-len is 60 and --output-len is 5; together at most/,
    ],
    [["--batch-size", "0"], /^--batch-size is "0"/],
    [["--timing", "fast"], /^--timing is "fast"; wanted visible, pipelined$/],
    [["--out", "/dev/null/x"], /^--out: cannot write/],
    [["--out", "/tmp"], /^--out is "\/tmp"; that is a folder, wanted a file$/],
  ])("refuses %j before anything is measured", async (flags, message) => {
    const measured = vi.spyOn(Gpt2.prototype, "forward");
    const { out, error, exitCode } = await bench(...flags);
    expect([out, exitCode]).toEqual(["", 2]);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
    expect(measured).not.toHaveBeenCalled();
  });
});
