import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CAPACITY_RESULTS, type CapacityResults } from "../../src/bench/capacity-results.ts";
import { BadInput } from "../../src/check.ts";
import { benchCommand } from "../../src/cli/bench.ts";
import { Engine } from "../../src/generate/engine.ts";
import { OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { TINY } from "../model/tiny.ts";
import { pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

let out: string;
beforeEach(() => {
  out = join(mkdtempSync(join(tmpdir(), "quire-capacity-")), "results");
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(join(out, ".."), { recursive: true });
});

const SHORT = ["--num-prompts", "6", "--input-len", "uniform:2-8", "--output-len", "uniform:2-6"];
const SMALL = ["--prefix-len", "8", "--max-seq-len", "32", "--kv-tokens", "72", "--page-sizes", "8"];
const ROWS = ["--max-batched-tokens", "24", "--no-warmup", "--no-async"];

const bench = (...args: string[]) =>
  runCommand(
    benchCommand,
    ...["bench", "capacity", "--model", TINY, "--out", out, ...TEST_ADAPTER],
    ...[...SHORT, ...SMALL, ...ROWS, ...args],
  );

/** What was written, once it has been found to be of the schema. */
const written = (folder = out): CapacityResults =>
  CAPACITY_RESULTS.parse(JSON.parse(readFileSync(join(folder, "results.json"), "utf8")));

describe("quire bench capacity", () => {
  it("prints both tables and the conclusion, and writes every file", async () => {
    const { out: text, err, error, exitCode } = await bench("--measure", "all");
    expect([error, exitCode]).toEqual([undefined, 0]);
    expect(text).toMatch(/^Log-normal lengths: 6 requests[\s\S]*^Shared prefix: 6 requests/m);
    expect(text).toContain("- The rows on the engine took the steps of their simulations, one for one.");
    expect(err).toMatch(/^quire: wrote 12 files to .*results; open report\.html$/m);
    const { rows, options, adapter } = written();
    expect(rows).toHaveLength(2 * 4);
    for (const { simulated, measured } of rows) {
      expect(measured!.steps).toBe(simulated!.steps);
      expect(measured!.outputTokensPerSecond).toBeGreaterThan(0);
    }
    expect(adapter).not.toBeNull();
    expect(options).toMatchObject({
      mixes: ["lognormal", "shared-prefix"],
      inputLen: "uniform:2-8",
      prefixLen: 8,
      maxSeqLen: 32,
      kvTokens: 72,
      pageSizes: [8],
      measure: "all",
      async: false,
      warmup: false,
    });
    for (const name of ["capacity.csv", "steps.csv", "report.html", "charts/page-map-lognormal.svg"])
      expect(existsSync(join(out, name)), name).toBe(true);
  });

  it("--measure none needs no GPU, and --json prints results.json alone", async () => {
    const open = vi.spyOn(Gpu, "open");
    const { out: text, exitCode } = await bench("--measure", "none", "--json", "--mix", "shared-prefix");
    expect(exitCode).toBe(0);
    expect(open).not.toHaveBeenCalled();
    const results = CAPACITY_RESULTS.parse(JSON.parse(text));
    expect(results).toEqual(written());
    expect([results.adapter, results.model.weightBytes, results.options.mixes]).toEqual([
      null,
      null,
      ["shared-prefix"],
    ]);
    expect(results.rows.every((r) => r.measured === null && r.simulated !== null)).toBe(true);
  });

  it("takes the budget in bytes: as many slots as they hold", async () => {
    const { kvBytesPerToken } = written72(await bench("--measure", "none", "--json")).model;
    rmSync(out, { recursive: true });
    const bytes = ["--kv-memory", String(80 * kvBytesPerToken + 1)];
    const flags = [...SHORT, "--max-seq-len", "32", "--page-sizes", "8", "--measure", "none", ...bytes];
    await runCommand(benchCommand, "bench", "capacity", "--model", TINY, "--out", out, ...flags);
    expect(written().options).toMatchObject({ kvTokens: 80, kvBytes: 80 * kvBytesPerToken });
  });

  function written72({ out: text }: { out: string }): CapacityResults {
    const results = CAPACITY_RESULTS.parse(JSON.parse(text));
    expect(results.options.kvBytes).toBe(72 * results.model.kvBytesPerToken);
    return results;
  }

  it("an error in one row keeps the others, is reported, and exits with 2", async () => {
    const open = Engine.open;
    let opened = 0;
    vi.spyOn(Engine, "open").mockImplementation((...args) => {
      if (++opened === 2) throw new OutOfMemory("OOM: no room for it");
      return open.apply(Engine, args);
    });
    const { out: text, error, exitCode } = await bench("--measure", "all", "--mix", "lognormal");
    expect([exitCode, error?.message]).toEqual([2, "OOM: no room for it"]);
    expect(text).toContain("- The experiment is incomplete: OOM: no room for it");
    const { rows, incomplete } = written();
    expect(incomplete).toBe("OOM: no room for it");
    expect(rows.map((r) => r.error)).toEqual([undefined, "OOM: no room for it", undefined, undefined]);
    expect(rows.map((r) => r.measured !== null)).toEqual([true, false, true, true]);
  });

  it("on Ctrl-C keeps what was done, writes it beside an earlier experiment, and exits with 130", async () => {
    await bench("--measure", "none", "--mix", "lognormal");
    const open = Engine.open;
    let opened = 0;
    vi.spyOn(Engine, "open").mockImplementation((...args) => {
      if (++opened === 2) pressCtrlC();
      return open.apply(Engine, args);
    });
    const { exitCode, err } = await bench("--measure", "all", "--mix", "lognormal");
    expect(exitCode).toBe(130);
    expect(err).toContain("results-incomplete");
    expect("incomplete" in written()).toBe(false);
    const { rows, incomplete } = written(`${out}-incomplete`);
    expect(incomplete).toBe("interrupted");
    expect(rows.map((r) => r.measured !== null)).toEqual([true, false, false, false]);
    expect(rows.every((r) => r.simulated !== null)).toBe(true);
  });

  it.each([
    [["--mix", "lognormal,chat"], /^--mix is "chat"; wanted lognormal, shared-prefix$/],
    [["--mix", "lognormal,lognormal"], /^--mix names lognormal twice$/],
    [["--page-sizes", "8,4"], /^--page-sizes is "4"; wanted an integer from 8 to 256$/],
    [["--input-len", "normal:3"], /^--input-len is "normal:3"; wanted a number of tokens/],
    [["--input-len", "40"], /^--input-len is 40/],
    [["--max-seq-len", "65"], /^--max-seq-len is 65; at most the model's context of 64$/],
    [["--kv-tokens", "31"], /^the budget is 31 slots of \d+ bytes; a strip of the maximum length is 32/],
    [["--kv-memory", "1MiB"], /^--kv-tokens and --kv-memory are both given/],
    [["--prefix-len", "31"], /^--prefix-len is 31/],
    [["--measure", "some"], /^--measure is "some"; wanted all, few, none$/],
    [["--out", "/dev/null/results"], /^--out: cannot write/],
  ])("refuses %j before anything runs", async (flags, message) => {
    const open = vi.spyOn(Engine, "open");
    // The last of two is the one that counts.
    const { out: text, error, exitCode } = await bench("--measure", "none", ...flags);
    expect([text, exitCode]).toEqual(["", 2]);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
    expect(open).not.toHaveBeenCalled();
    expect(existsSync(join(out, "results.json"))).toBe(false);
  });
});
