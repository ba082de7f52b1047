import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { generateCommand } from "../../src/cli/generate.ts";
import { modelFolder } from "../../src/cli/options.ts";
import { Engine } from "../../src/generate/engine.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { loadTokenizer } from "../../src/tokenizer.ts";
import { golden } from "../model/tiny.ts";
import { pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

const generate = (...args: string[]) => runCommand(generateCommand, "generate", ...args, ...TEST_ADAPTER);
const { prompts } = JSON.parse(readFileSync(golden("novels-en.json"), "utf8"));
const [first, second] = prompts as { prompt: string; ids: number[]; greedy: number[] }[];
const tokenizer = await loadTokenizer(modelFolder("novels-en"));
const textOf = (ids: readonly number[]) => tokenizer.decode(ids);

/** A file of these contents, until the test ends. */
function file(name: string, contents: string): string {
  const folder = mkdtempSync(join(tmpdir(), "quire-generate-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, name), contents);
  return join(folder, name);
}

describe("quire generate with the engine", () => {
  it("continues all prompts of a file, each under a heading in their order, and says what the start found", async () => {
    const path = file("prompts.txt", `${first!.prompt}\n\n${second!.prompt}\n`);
    const { out, err, exitCode } = await generate("--prompts-file", path, "-n", "4", "--temperature", "0");
    expect(exitCode).toBe(0);
    expect(out).toBe(
      `== prompt 1 of 2 ==\n${textOf(first!.greedy.slice(0, 4))}\n== prompt 2 of 2 ==\n${textOf(second!.greedy.slice(0, 4))}\n`,
    );
    expect(err).toMatch(
      // Two sequences of less than a page each: no more pages are taken than these can need.
      /^quire: GPU memory: .* 2 sequences, .*\nquire: KV cache: \d pages of 16 tokens, \d\d tokens\nquire: At once: 0\.\d\d/m,
    );
    expect(err).toMatch(
      /^8 tokens of 2 prompts in .* GPU memory at most .*% of prompt tokens cached, 0 preemptions$/m,
    );
  });

  it("--n gives that many samples, and --json all of them with their prompts", async () => {
    const path = file("prompts.jsonl", `{"prompt": ${JSON.stringify(first!.prompt)}}\n{"prompt": "The"}\n`);
    const flags = [
      "--prompts-file",
      path,
      "-n",
      "3",
      "--n",
      "2",
      "--seed",
      "9",
      "--kv-pages",
      "20",
      "--no-prefix-cache",
    ];
    const { out } = await generate(...flags, "--json");
    const result = JSON.parse(out);
    expect(Object.keys(result)).toEqual([
      "model",
      "prompts",
      "completions",
      "seed",
      "adapter",
      "newTokens",
      "totalSeconds",
      "tokensPerSecond",
      "peakBytes",
      "kv",
      "metrics",
    ]);
    expect(result.prompts[0]).toMatchObject({
      prompt: first!.prompt,
      ids: first!.ids,
      cachedTokens: 0,
      preemptions: 0,
    });
    expect(result).toMatchObject({
      seed: "9",
      newTokens: 12,
      kv: { pages: 20 },
      metrics: { finished: 2, prefixHits: 0 },
    });
    const completions = result.completions as Record<string, unknown>[];
    expect(completions.map(({ prompt, index }) => [prompt, index])).toEqual([
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ]);
    for (const completion of completions) {
      expect(Object.keys(completion)).toEqual(["prompt", "index", "ids", "text", "finishReason", "score"]);
      expect(completion).toMatchObject({ finishReason: "length", score: null });
      expect(completion.text).toBe(textOf(completion.ids as number[]));
    }
  });

  it("--beams searches greedily without being told, and gives scores", async () => {
    const { out } = await generate(first!.prompt, "-n", "2", "--beams", "2");
    expect(out).toMatch(
      /^== beam 1 of 2, score -\d\.\d{4} ==\n.+\n== beam 2 of 2, score -\d\.\d{4} ==\n.+\n$/s,
    );
  });

  it("on Ctrl-C tells what there is, and exits with 130", async () => {
    const { step } = Engine.prototype;
    let steps = 0;
    vi.spyOn(Engine.prototype, "step").mockImplementation(function (this: Engine) {
      if (++steps === 3) pressCtrlC();
      return step.call(this);
    });
    const { out, err, exitCode } = await generate(first!.prompt, "--n", "2", "-n", "9", "--temperature", "0");
    vi.restoreAllMocks();
    const text = textOf(first!.greedy.slice(0, 2));
    expect(out).toBe(`== sample 1 of 2 ==\n${text}\n== sample 2 of 2 ==\n${text}\n`);
    expect(err).toContain("4 tokens of 1 prompt in ");
    expect(exitCode).toBe(130);
  });

  it.each<[string[], RegExp]>([
    [["x", "--n", "2", "--beams", "2"], /^--n and --beams are both given/],
    [["x", "--n", "0"], /^--n is "0"; wanted an integer from 1 to 4096$/],
    [["x", "--beams", "4", "--temperature", "1"], /^--beams needs --temperature 0, got 1/],
    [["x", "--n", "2", "--kv", "contiguous"], /^--kv is contiguous; several prompts/],
    [["x", "--kv-pages", "3", "--kv-memory", "1MiB"], /^--kv-pages and --kv-memory are both given/],
    [["x", "--prompts-file", "y"], /^--prompts-file and another prompt are both given/],
    [["--prompts-file", "no-such-file"], /^--prompts-file cannot be read: .*no-such-file/],
    [["x", "--preemption", "never"], /^--preemption is "never"; wanted recompute, swap$/],
    [["x", "--watermark", "2"], /^--watermark is "2"/],
  ])("refuses %j before a model is loaded", async (args, message) => {
    const load = vi.spyOn(Gpt2, "load");
    const { out, error, exitCode } = await generate(...args);
    expect([out, exitCode]).toEqual(["", 2]);
    expect(error!.message).toMatch(message);
    expect(load).not.toHaveBeenCalled();
    load.mockRestore();
  });

  it("refuses a request that its pages can never hold, and a file without prompts", async () => {
    const flags = ["--kv-pages", "2", "--n", "2", "-n", "40"];
    const { error } = await generate("It", ...flags);
    expect(error!.message).toMatch(
      /^2 sequences of up to 40 tokens can need 6 pages of 16 slots, and there are 2: raise --kv-pages/,
    );
    const empty = await generate("--prompts-file", file("empty.txt", "\n \n"));
    expect(empty.error!.message).toMatch(/empty.txt: has no prompts; wanted one a line$/);
  });
});
