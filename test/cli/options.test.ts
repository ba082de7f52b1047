import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { Command } from "commander";
import { describe, expect, it, onTestFinished } from "vitest";
import { BadInput } from "../../src/check.ts";
import {
  addCacheOptions,
  addGpuOptions,
  addKvOption,
  addModelOptions,
  addSamplingOptions,
  integer,
  modelFolder,
  number,
  oneOf,
  openOptions,
  type SamplingFlags,
  samplingOptions,
  seed,
  size,
} from "../../src/cli/options.ts";

/** What the user is told. */
function refusal(parse: (text: string) => unknown, text: string): string {
  try {
    return `taken: ${String(parse(text))}`;
  } catch (error) {
    expect(error).toBeInstanceOf(BadInput);
    return (error as Error).message;
  }
}

describe("number", () => {
  const parse = number("--min-p", 0, 1);

  it.each([
    ["0", 0],
    ["1", 1],
    [" 0.5 ", 0.5],
    ["1e-3", 0.001],
  ])("takes %j", (text, value) => {
    expect(parse(text)).toBe(value);
  });

  it.each(["", " ", "-0.1", "1.1", "NaN", "Infinity", "half", "0.5x"])("refuses %j", (text) => {
    expect(refusal(parse, text)).toBe(`--min-p is "${text}"; wanted a number from 0 to 1`);
  });

  it("may leave out its lower bound, or have no upper one", () => {
    const above = number("--top-p", 0, 1, { above: true });
    expect(above("1e-9")).toBe(1e-9);
    expect(refusal(above, "0")).toBe('--top-p is "0"; wanted a number above 0 up to 1');
    const open = number("--temperature", 0, Number.POSITIVE_INFINITY);
    expect(refusal(open, "-1")).toBe('--temperature is "-1"; wanted a number of at least 0');
    expect(refusal(open, "Infinity")).toContain("wanted a number");
  });
});

describe("integer", () => {
  const parse = integer("--page-size", 8, 256);

  it("takes both of its bounds", () => {
    expect([parse("8"), parse("256")]).toEqual([8, 256]);
  });

  it.each(["7", "257", "8.5", "1e400", ""])("refuses %j", (text) => {
    expect(refusal(parse, text)).toBe(`--page-size is "${text}"; wanted an integer from 8 to 256`);
  });

  it("refuses what a number cannot hold exactly", () => {
    expect(refusal(integer("-n", 1), "9007199254740993")).toContain("wanted an integer of at least 1");
  });
});

describe("size", () => {
  const parse = size("--memory");

  it.each([
    ["1073741824", 2 ** 30],
    ["2GiB", 2 * 2 ** 30],
    ["500MB", 500e6],
    ["1.5 kib", 1536],
    ["3t", 3e12],
    ["7b", 7],
  ])("reads %j", (text, bytes) => {
    expect(parse(text)).toBe(bytes);
  });

  it.each(["", "0", "-1", "2 Gibibytes", "GiB", "1e9", "0.2", "99999999TiB"])("refuses %j", (text) => {
    expect(refusal(parse, text)).toBe(
      `--memory is "${text}"; wanted a size such as 2GiB, 500MB or 1073741824`,
    );
  });
});

describe("seed", () => {
  it("is a number while that is exact, then a bigint", () => {
    expect(seed("0")).toBe(0);
    expect(seed("9007199254740991")).toBe(Number.MAX_SAFE_INTEGER);
    expect(seed("9007199254740993")).toBe(9007199254740993n);
    expect(seed("18446744073709551615")).toBe(2n ** 64n - 1n);
  });

  it.each(["", "-1", "1.5", "1e3", "0x10", "18446744073709551616"])("refuses %j", (text) => {
    expect(refusal(seed, text)).toBe(`--seed is "${text}"; wanted an integer from 0 to 2^64 - 1`);
  });
});

it("oneOf names the words that it takes", () => {
  const parse = oneOf("--dtype", ["f32", "f16"]);
  expect(parse("f16")).toBe("f16");
  expect(refusal(parse, "F16")).toBe('--dtype is "F16"; wanted f32, f16');
});

describe("modelFolder", () => {
  it("takes a path, or a name under weights/", () => {
    const folder = mkdtempSync(`${tmpdir()}/quire-options-`);
    onTestFinished(() => rmSync(folder, { recursive: true }));
    expect(modelFolder(folder)).toBe(folder);
    expect(modelFolder("novels-zh")).toMatch(/weights.novels-zh$/);
  });

  it("says how to get a model that is not there", () => {
    expect(refusal(modelFolder, "openai/none")).toMatch(/--model is "openai\/none".*quire pull openai\/none/);
  });
});

describe("the options of commands", () => {
  /** What a command's action gets. */
  function flags(add: (command: Command) => unknown, ...args: string[]): Record<string, unknown> {
    const command = new Command("x").exitOverride();
    add(command);
    return command.parse(args, { from: "user" }).opts();
  }

  it("have their defaults", () => {
    expect(flags(addGpuOptions)).toEqual({ adapter: "auto", gpuProfile: "safe", kernels: "auto" });
    expect(flags((c) => addGpuOptions(c, "fast"))).toMatchObject({ gpuProfile: "fast" });
    expect(flags(addModelOptions)).toEqual({ model: "novels-en", dtype: "f32", kvDtype: "f32" });
    expect(flags(addCacheOptions)).toEqual({ pageSize: 16 });
    expect(flags(addKvOption)).toEqual({ kv: "paged" });
    expect(flags(addSamplingOptions)).toEqual({
      temperature: 0.7,
      topK: 0,
      topP: 1,
      minP: 0,
      repetitionPenalty: 1,
      seed: 0,
      specialTokens: true,
    });
  });

  it("reach the engine", () => {
    const gpu = flags(addGpuOptions, "--adapter", "NVIDIA", "--memory", "1KiB", "--kernels", "portable");
    expect(openOptions(gpu as never)).toEqual({
      adapter: "NVIDIA",
      profile: "safe",
      kernels: "portable",
      memoryBudget: 1024,
    });
    const given = ["--temperature", "0", "--top-k", "3", "--top-p", "0.5", "--min-p", "0.1"];
    const sampling = flags(addSamplingOptions, ...given, "--seed", "7", "--repetition-penalty", "1.2");
    expect(samplingOptions(sampling as unknown as SamplingFlags)).toEqual({
      temperature: 0,
      topK: 3,
      topP: 0.5,
      minP: 0.1,
      repetitionPenalty: 1.2,
      seed: 7,
    });
  });

  it("refuse by the name of the flag", () => {
    expect(() => flags(addCacheOptions, "--page-size", "7")).toThrow("--page-size");
    expect(() => flags(addCacheOptions, "--max-seq-len", "0")).toThrow("--max-seq-len");
    expect(() => flags(addCacheOptions, "--kv-pages", "none")).toThrow("--kv-pages");
    expect(() => flags(addKvOption, "--kv", "swap")).toThrow("--kv is");
    expect(() => flags(addGpuOptions, "--gpu-profile", "mad")).toThrow("--gpu-profile");
    expect(() => flags(addSamplingOptions, "--top-p", "0")).toThrow("--top-p");
  });
});
