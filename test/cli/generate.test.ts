import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import { generateCommand } from "../../src/cli/generate.ts";
import { modelFolder } from "../../src/cli/options.ts";
import { BatchRunner } from "../../src/generate/batch-runner.ts";
import { CACHE_MODES } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { loadTokenizer } from "../../src/tokenizer.ts";
import { golden } from "../model/tiny.ts";
import { pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

const generate = (...args: string[]) => runCommand(generateCommand, "generate", ...args, ...TEST_ADAPTER);
const { prompts } = JSON.parse(readFileSync(golden("novels-en.json"), "utf8"));
const [{ prompt, ids, greedy }] = prompts as [{ prompt: string; ids: number[]; greedy: number[] }];
const tokenizer = await loadTokenizer(modelFolder("novels-en"));

afterEach(() => {
  vi.restoreAllMocks();
});

describe("quire generate", () => {
  it.each(CACHE_MODES)("streams the golden text, with figures on stderr, --kv %s", async (mode) => {
    const { out, err, exitCode } = await generate(prompt, "-n", "4", "--temperature", "0", "--kv", mode);
    expect(exitCode).toBe(0);
    expect(out).toBe(`${tokenizer.decode(greedy.slice(0, 4))}\n`);
    expect(err).toMatch(/^4 tokens in .*, prompt of 7, GPU memory at most [\d.]+ MiB, KV /m);
    expect(err).toContain(`KV ${mode}: `);
    expect(err).toContain("; ended by length\n");
  });

  it("--json prints one object and nothing else to stdout", async () => {
    const seed = "18446744073709551615";
    const { out } = await generate(...prompt.split(" "), "-n", "3", "--seed", seed, "--json");
    const result = JSON.parse(out);
    expect(Object.keys(result)).toEqual([
      "model",
      "prompt",
      "text",
      "promptIds",
      "ids",
      "finishReason",
      "seed",
      "adapter",
      "promptTokens",
      "newTokens",
      "totalSeconds",
      "timeToFirstTokenSeconds",
      "tokensPerSecond",
      "peakBytes",
      "kv",
    ]);
    expect(result).toMatchObject({ prompt, promptIds: ids, promptTokens: 7, newTokens: 3, seed });
    expect(result.finishReason).toBe("length");
    expect(result.text).toBe(tokenizer.decode(result.ids));
    expect(result.totalSeconds).toBeGreaterThanOrEqual(result.timeToFirstTokenSeconds);
    expect(result.tokensPerSecond).toBeCloseTo(3 / result.totalSeconds, 9);
    // 7 prompt tokens and the two of three that are fed back, at 9 KiB; a page has 16 slots.
    expect(result.kv).toMatchObject({ mode: "paged", used: 9 * 9216, reserved: 16 * 9216 });
  });

  it("reads the prompt from a file, and ends before a --stop text", async () => {
    const folder = mkdtempSync(join(tmpdir(), "quire-generate-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, "prompt.txt"), prompt);
    const text = tokenizer.decode(greedy.slice(0, 9));
    const stop = tokenizer.decode(greedy.slice(1, 3)).trim();
    const flags = ["--prompt-file", join(folder, "prompt.txt"), "--stop", "@@", "--stop", stop];
    const { out, err } = await generate(...flags, "--temperature", "0", "-n", "9");
    expect(out).toBe(`${text.slice(0, text.indexOf(stop))}\n`);
    expect(err).toContain("; ended by stop\n");
  });

  it("on Ctrl-C ends after the token, tells the figures and exits with 130", async () => {
    const next = BatchRunner.prototype.next;
    let steps = 0;
    vi.spyOn(BatchRunner.prototype, "next").mockImplementation(function (this: BatchRunner, ...args) {
      if (++steps === 2) pressCtrlC();
      return next.call(this, ...args);
    });
    const { out, err, exitCode, error } = await generate(prompt, "-n", "9", "--temperature", "0");
    expect(out).toBe(`${tokenizer.decode(greedy.slice(0, 2))}\n`);
    expect(err).toMatch(/^2 tokens in .*ended by Ctrl-C$/m);
    expect([exitCode, error?.message]).toEqual([130, "interrupted"]);
  });

  it.each([
    [["--kv", "contiguous", "--max-seq-len", "8"], "--max-seq-len is 8; this run needs 46"],
    [["--kv-pages", "1"], "--kv-pages is 1; this run needs 3 pages of 16 slots"],
    [["--kv", "contiguous", "--max-seq-len", "2000"], "--max-seq-len is 2000"],
  ])("refuses %j before the first token", async (flags, message) => {
    const forward = vi.spyOn(Gpt2.prototype, "forward");
    const { out, exitCode, error } = await generate(prompt, "-n", "40", ...flags);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toContain(message);
    expect([out, exitCode]).toEqual(["", 2]);
    expect(forward).not.toHaveBeenCalled();
  });

  it("--prefill-chunk bounds the memory of the prompt and changes no token", async () => {
    const fill = vi.spyOn(Gpt2.prototype, "fill");
    const { out } = await generate(prompt, "-n", "2", "--temperature", "0", "--prefill-chunk", "3");
    expect(out).toBe(`${tokenizer.decode(greedy.slice(0, 2))}\n`);
    // 7 tokens: two pieces before the one with the last token.
    expect(fill.mock.calls.map(([, [item]]) => item!.tokens.length)).toEqual([3, 1]);
  });

  it("a cache without a slot for the last token is enough", async () => {
    const flags = ["-n", "2", "--temperature", "0", "--kv", "contiguous", "--max-seq-len", "8"];
    const { exitCode } = await generate(prompt, ...flags);
    expect(exitCode).toBe(0);
  });

  it.each([
    [[], /^no prompt; give a text/],
    [[""], /^the prompt is empty/],
    [["It", "--prompt-file", "x"], /both given/],
    [["--prompt-file", "no-such-file"], /^the prompt cannot be read: .*no-such-file/],
    [["It", "--stop", ""], /^--stop is ""/],
    [["It", "-n", "0"], /^--max-new-tokens is "0"/],
    [["It", "--model", "none"], /^--model is "none"/],
    [["It", "--prefill-chunk", "0"], /^--prefill-chunk is "0"; wanted an integer of at least 1$/],
    [
      ["It", "--prefill-chunk", "8", "--n", "2"],
      /^--prefill-chunk is for one sequence; .*--max-batched-tokens$/,
    ],
  ])("refuses %j", async (args, message) => {
    const { out, error, exitCode } = await generate(...args);
    expect([out, exitCode]).toEqual(["", 2]);
    expect(error!.message).toMatch(message);
  });
});
