import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PROFILE_RESULTS } from "../../src/bench/profile-results.ts";
import { BadInput } from "../../src/check.ts";
import { profileCommand } from "../../src/cli/profile.ts";
import { NoAdapter } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { TINY } from "../model/tiny.ts";
import { runCommand, TEST_ADAPTER } from "./run-command.ts";

let out: string;
beforeEach(() => {
  out = join(mkdtempSync(join(tmpdir(), "quire-profile-")), "results");
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(join(out, ".."), { recursive: true });
});

const profile = (...args: string[]) =>
  runCommand(profileCommand, "profile", "--model", TINY, "--out", out, ...TEST_ADAPTER, ...args);
const SHORT = ["--repeat", "2", "--context", "9", "--prompt-length", "5"];

describe("quire profile", () => {
  it("prints both steps by kernel, their totals and where the time goes, and writes its files", async () => {
    const { out: text, err, exitCode, error } = await profile(...SHORT);
    expect([error, exitCode]).toEqual([undefined, 0]);
    expect(text).toMatch(/^Decode step: one token that sees 9; \d+ dispatches$/m);
    expect(text).toMatch(/^Prefill step: a prompt of 5 tokens; \d+ dispatches$/m);
    expect(text.match(/^kernel +shape +calls +µs each/gm)).toHaveLength(2);
    expect(text.match(/^the step in one pass: [\d.]+ µs on the GPU, [\d.]+ µs by the host/gm)).toHaveLength(
      2,
    );
    expect(
      text.match(/^where the [\d.]+ µs go: dispatch .*memory .*arithmetic .*latency and/gm),
    ).toHaveLength(2);
    expect(err).toContain("quire: wrote profile.json, timeline.svg and kernels.svg to ");
    for (const name of ["timeline.svg", "kernels.svg"]) {
      const svg = readFileSync(join(out, name), "utf8");
      expect(svg).toMatch(/^<svg role="img" aria-label="/);
      expect(svg).not.toMatch(/NaN|undefined|Infinity/);
    }
    const results = PROFILE_RESULTS.parse(JSON.parse(readFileSync(join(out, "profile.json"), "utf8")));
    expect(results.steps.map((s) => s.name)).toEqual(["decode", "prefill"]);
  });

  it("--json prints profile.json alone, with every dispatch", async () => {
    const { out: text } = await profile(...SHORT, "--kv", "contiguous", "--json");
    const results = PROFILE_RESULTS.parse(JSON.parse(text));
    expect(results).toEqual(JSON.parse(readFileSync(join(out, "profile.json"), "utf8")));
    expect(results.options).toMatchObject({ kv: "contiguous", context: 9, promptLength: 5, repeat: 2 });
    for (const step of results.steps) expect(step.dispatches.length).toBeGreaterThan(10);
  });

  it("without timestamp-query says so in one line, and exits with 3", async () => {
    const open = Gpu.open.bind(Gpu);
    vi.spyOn(Gpu, "open").mockImplementation(async (options) => {
      const gpu = await open(options);
      return Object.assign(gpu, { features: new Set() });
    });
    const load = vi.spyOn(Gpt2, "load");
    const { out: text, exitCode, error } = await profile(...SHORT);
    expect([text, exitCode]).toEqual(["", 3]);
    expect(error).toBeInstanceOf(NoAdapter);
    expect(error!.message).toMatch(/^FEATURE: the timer needs timestamp-query, which .* lacks$/);
    expect(load).not.toHaveBeenCalled();
  });

  it.each([
    [["--context", "65"], /^--context is 65; wanted at most the model's context of 64$/],
    [["--prompt-length", "65"], /^--prompt-length is 65; wanted at most/],
    [["--kv", "none"], /^--kv is "none"; wanted paged, contiguous$/],
    [["--repeat", "0"], /^--repeat is "0"/],
  ])("refuses %j", async (flags, message) => {
    const { out: text, error, exitCode } = await profile(...SHORT, ...flags);
    expect([text, exitCode]).toEqual(["", 2]);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
    expect(existsSync(join(out, "profile.json"))).toBe(false);
  });
});
