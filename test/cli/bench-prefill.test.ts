import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PREFILL_RESULTS } from "../../src/bench/prefill-results.ts";
import { BadInput } from "../../src/check.ts";
import { benchCommand } from "../../src/cli/bench.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { TINY } from "../model/tiny.ts";
import { pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

let folder: string;
let out: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-prefill-"));
  out = join(folder, "results");
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const bench = (...args: string[]) =>
  runCommand(benchCommand, "bench", "prefill", "--model", TINY, "--out", out, ...TEST_ADAPTER, ...args);
const SHORT = ["--cases", "1x9,2x20", "--num-iters", "2", "--num-iters-warmup", "0"];
const written = (path = out) =>
  PREFILL_RESULTS.parse(JSON.parse(readFileSync(join(path, "results.json"), "utf8")));

describe("quire bench prefill", () => {
  it("prints a line a case, and writes figures, chart and report", async () => {
    const peer = join(folder, "hf.json");
    writeFileSync(
      peer,
      JSON.stringify([{ dtype: "float32", prefill: [2, 20], ms: 1, tokens_per_s: 40_000 }]),
    );
    const outcome = await bench(...SHORT, "--peer", peer);
    expect([outcome.error, outcome.exitCode]).toEqual([undefined, 0]);
    expect(outcome.out).toMatch(/^tiny: weights f32, KV paged f32; random prompts/m);
    expect(outcome.out).toMatch(/^ 1x9 +[\d.]+/m);
    expect(outcome.out).toMatch(/^ 2x20 +hf f32 +1\.000 +40,000 +[\d.]+×$/m);
    expect(outcome.out).toMatch(/^check of 2x20: against chunks of 7 and 13 tokens: .* equal in 2 of 2$/m);
    expect(outcome.err).toMatch(/^quire: wrote 3 files to .*results; open report\.html$/m);
    expect(written().rows[1]!.peers).toHaveLength(1);
    for (const name of ["charts/tokens.svg", "report.html"])
      expect(existsSync(join(out, name)), name).toBe(true);
  });

  it("--json prints results.json alone, with the options as they were given", async () => {
    const more = [
      "--kv",
      "contiguous",
      "--dtype",
      "f16",
      "--kv-dtype",
      "f16",
      "--seed",
      "7",
      "--prefill-chunk",
      "16",
    ];
    const { out: printed, error } = await bench(...SHORT, ...more, "--json");
    expect(error).toBeUndefined();
    const results = PREFILL_RESULTS.parse(JSON.parse(printed));
    expect(results).toEqual(written());
    expect(results.options).toMatchObject({
      cases: [
        [1, 9],
        [2, 20],
      ],
      num_iters: 2,
      num_iters_warmup: 0,
      kv: "contiguous",
      prefill_chunk: 16,
      seed: "7",
      peer: null,
    });
    expect(results.model).toMatchObject({ name: "tiny", dtype: "f16", kvDtype: "f16" });
    expect("incomplete" in results).toBe(false);
  });

  it("writes the other cases when one fails, beside an earlier whole result, and says so", async () => {
    await bench(...SHORT);
    const prompts = Gpt2.prototype.forward;
    vi.spyOn(Gpt2.prototype, "forward").mockImplementation(function (this: Gpt2, cache, items, ...rest) {
      if (items.length === 2) throw new Error("no room");
      return prompts.call(this, cache, items, ...rest);
    });
    const { error, exitCode, out: printed } = await bench(...SHORT);
    expect([error?.message, exitCode]).toEqual(["no room", 1]);
    expect(printed).toContain("FAILED: 2x20: no room");
    expect(written().rows).toHaveLength(2);
    expect(written(`${out}-incomplete`)).toMatchObject({
      rows: [{ prefill: [1, 9] }],
      failures: [{ prefill: [2, 20], message: "no room" }],
    });
  });

  it("on Ctrl-C tells the cases before, and exits with 130", async () => {
    const prompts = Gpt2.prototype.forward;
    vi.spyOn(Gpt2.prototype, "forward").mockImplementation(function (this: Gpt2, cache, items, ...rest) {
      if (items.length === 2) pressCtrlC();
      return prompts.call(this, cache, items, ...rest);
    });
    const { out: printed, exitCode } = await bench(...SHORT, "--json");
    expect(exitCode).toBe(130);
    expect(PREFILL_RESULTS.parse(JSON.parse(printed))).toMatchObject({
      incomplete: "interrupted",
      rows: [{ prefill: [1, 9] }],
      failures: [],
    });
  });

  it.each([
    [["--cases", "1x65"], /^--cases has 1x65; a prompt has at most the model's context of 64 tokens$/],
    [["--cases", "8"], /^--cases is "8"; wanted sequences x tokens/],
    [["--peer", "/nowhere/hf.json"], /^--peer cannot be read/],
    [["--num-iters", "0"], /^--num-iters is "0"/],
    [["--out", "/dev/null/x"], /^--out: cannot write/],
  ])("refuses %j before anything is measured", async (flags, message) => {
    const measured = vi.spyOn(Gpt2.prototype, "forward");
    const { out: printed, error, exitCode } = await bench(...flags);
    expect([printed, exitCode]).toEqual(["", 2]);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
    expect(measured).not.toHaveBeenCalled();
  });
});
