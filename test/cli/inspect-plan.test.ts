import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { BadInput } from "../../src/check.ts";
import { inspectCommand } from "../../src/cli/inspect.ts";
import type { Inspection } from "../../src/cli/inspect-model.ts";
import type { InspectedPlan } from "../../src/cli/inspect-plan.ts";
import { runCommand } from "./run-command.ts";

const TINY = fileURLToPath(new URL("../golden/tiny", import.meta.url));
const plan = (...args: string[]) => runCommand(inspectCommand, "inspect", ...args, "--memory-plan");

async function inspected(...args: string[]): Promise<Inspection> {
  return JSON.parse((await runCommand(inspectCommand, "inspect", ...args, "--json")).out);
}

async function json(...args: string[]): Promise<InspectedPlan> {
  return (await inspected(...args, "--memory-plan")).memoryPlan!;
}

describe("quire inspect --memory-plan", () => {
  it("shows values, buffers, and who is where when, in a terminal's width", async () => {
    const { out, error } = await plan("novels-en", "--tokens", "256");
    expect(error).toBeUndefined();
    expect(out).toContain("a step of 256 rows, logits for the last\n");
    expect(out).toMatch(/^ {2}activations: 1\.5 MiB in 5 buffers, /m);
    expect(out).toMatch(/^ {2}qkv +\[256, 576\] +f32 +576\.0 KiB +0 +qkv +attend/m);
    expect(out).toMatch(/^ +0 +768\.0 KiB +qkv, act$/m);
    expect(out).toContain("the last of 6 layers; those before it are alike");
    const lines = out.split("\n");
    const picture = lines.slice(lines.findIndex((line) => line.includes("who is in which buffer")) + 1, -1);
    expect(picture[0]).toMatch(
      /^ +before +ln_1 +qkv +store +attend +proj +ln_2 +fc +fc_proj +gather +ln_f +head$/,
    );
    expect(picture).toHaveLength(1 + 5);
    // Lines begin under the launch that makes the value.
    expect(picture[1]!.indexOf("qkv")).toBe(picture[0]!.indexOf("qkv"));
    expect(picture[1]!.indexOf("act ")).toBe(picture[0]!.indexOf("fc"));
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(110);
  });

  it("draws of each launch at most one value in a buffer", async () => {
    const { values, buffers, launches } = await json("novels-en", "--sequences", "5");
    expect(launches).toHaveLength(4 + 8 * 6);
    buffers.forEach((_, b) => {
      const held = values.filter(({ buffer }) => buffer === b).sort((x, y) => x.from - y.from);
      held.slice(1).forEach((value, i) => {
        expect(value.from).toBeGreaterThan(held[i]!.to);
      });
    });
  });

  it("--json has the whole inspection with every launch, value and buffer, and fields that add up", async () => {
    const p = await json(TINY, "--tokens", "10", "--sequences", "2");
    expect(Object.keys(p)).toEqual([
      "tokens",
      "rows",
      "sequences",
      "prefillChunk",
      "tensorCores",
      "launches",
      "values",
      "buffers",
      "totalBytes",
      "ledgerBytes",
      "unsharedBytes",
      "liveBytes",
    ]);
    expect(p).toMatchObject({ tokens: 10, rows: 10, sequences: 2, prefillChunk: 8192, tensorCores: false });
    expect(p.launches[0]).toEqual({ stage: "embed", name: "embed" });
    expect(Object.keys(p.values[0]!)).toEqual([
      "name",
      "stage",
      "shape",
      "dtype",
      "bytes",
      "from",
      "to",
      "lastRead",
      "buffer",
    ]);
    expect(p.values.at(-1)).toMatchObject({
      name: "logits",
      stage: "head",
      shape: [2, 131],
      bytes: 2 * 132 * 4,
    });
    expect(p.totalBytes).toBe(p.buffers.reduce((sum, { bytes }) => sum + bytes, 0));
    expect(p.ledgerBytes).toBe(p.buffers.reduce((sum, { ledgerBytes }) => sum + ledgerBytes, 0));
    expect(p.unsharedBytes).toBeGreaterThan(p.totalBytes);
    expect(p.liveBytes).toBeLessThanOrEqual(p.totalBytes);
  });

  it("is of a full piece, or of the context, when nothing is said", async () => {
    expect(await json(TINY)).toMatchObject({ tokens: 64, rows: 64 });
    expect(await json(TINY, "--prefill-chunk", "16")).toMatchObject({ tokens: 16, rows: 16 });
    // A piece has at least a row of each sequence.
    expect(await json(TINY, "--prefill-chunk", "2", "--sequences", "3")).toMatchObject({ rows: 3 });
  });

  it("of more tokens than a piece has is the plan of the piece", async () => {
    const flags = ["--sequences", "4", "--prefill-chunk", "32"];
    const whole = await json(TINY, "--tokens", "200", ...flags);
    expect(whole).toEqual({ ...(await json(TINY, "--tokens", "32", ...flags)), tokens: 200 });
    const { out } = await plan(TINY, "--tokens", "200", ...flags);
    expect(out).toContain("of 200 new tokens in pieces of up to 32 rows (--prefill-chunk), the last piece:");
    expect(out).toContain("a step of 32 rows, logits for the last of each of 4 sequences");
  });

  it("by tensor cores has rows of halves, and queries alone", async () => {
    const p = await json(TINY, "--tensor-cores");
    const names = p.values.map(({ name, dtype }) => `${name} ${dtype}`);
    expect(names).toEqual(expect.arrayContaining(["queries f32", "normed f16", "act f16"]));
    expect(p.totalBytes).toBeLessThan((await json(TINY)).totalBytes);
  });

  it("agrees with what inspect says of a prompt, whole and in pieces", async () => {
    for (const args of [[], ["--prefill-chunk", "7"]]) {
      const { prefill, memoryPlan } = await inspected(TINY, ...args, "--length", "40");
      expect(memoryPlan).toBeNull();
      const { ledgerBytes } = await json(TINY, ...args, "--tokens", "40");
      expect(prefill).toMatchObject({ length: 40, chunk: args.length ? 7 : 40, activations: ledgerBytes });
    }
  });

  it("the largest step is a piece of the prompt", async () => {
    const { out } = await runCommand(inspectCommand, "inspect", TINY, "--prefill-chunk", "8");
    expect(out).toContain("to compute a prompt of 64 tokens with a cache, in pieces of 8 rows:");
  });

  it.each([
    [
      ["--memory-plan", "--tokens", "65"],
      /^--tokens is 65 and --sequences is 1; wanted at least a token and at most/,
    ],
    [["--memory-plan", "--tokens", "2", "--sequences", "3"], /^--tokens is 2 and --sequences is 3/],
    [["--tokens", "2"], /^--tokens is of a memory plan; wanted --memory-plan with it$/],
    [["--tensor-cores"], /^--tensor-cores is of a memory plan/],
    [["--memory-plan", "--sequences", "0"], /^--sequences is "0"/],
    [["--prefill-chunk", "x"], /^--prefill-chunk is "x"; wanted an integer of at least 1/],
  ])("refuses %j", async (args, message) => {
    const { error, out } = await runCommand(inspectCommand, "inspect", TINY, ...args);
    expect(error).toBeInstanceOf(BadInput);
    expect([error!.message, out]).toEqual([expect.stringMatching(message), ""]);
  });
});
