import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import { modelFolder } from "../../src/cli/options.ts";
import { perplexityCommand } from "../../src/cli/perplexity.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { loadTokenizer } from "../../src/tokenizer.ts";
import { TINY } from "../model/tiny.ts";
import { pressCtrlC, runCommand, TEST_ADAPTER } from "./run-command.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-perplexity-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

function file(content: string): string {
  const path = join(folder, "text");
  writeFileSync(path, content);
  return path;
}

const perplexity = (content: string, ...args: string[]) =>
  runCommand(perplexityCommand, "perplexity", "--file", file(content), ...args, ...TEST_ADAPTER);
const ofIds = (ids: unknown, ...args: string[]) =>
  perplexity(JSON.stringify(ids), "--ids", "--model", TINY, ...args);

const IDS = Array.from({ length: 30 }, (_, i) => 1 + ((i * 7) % 130));

describe("quire perplexity", () => {
  it("is of a text what it is of the text's ids", async () => {
    const text = "It was a dark night, and the old house stood silent.";
    const ids = (await loadTokenizer(modelFolder("novels-en"))).encode(text);
    const plain = await perplexity(text);
    expect(plain.out).toMatch(
      /^perplexity [\d.]+ \([\d.]+ nats a token\) over \d+ predicted tokens in 1 windows of up to 1024\n$/,
    );
    const { out } = await perplexity(JSON.stringify(ids), "--ids", "--json");
    const result = JSON.parse(out);
    expect(plain.out).toContain(`perplexity ${result.perplexity.toFixed(4)} `);
    expect(result).toMatchObject({ tokens: ids.length, count: ids.length - 1 });
  });

  it("--json prints one object, with --window, --stride and --max-windows honoured", async () => {
    const flags = ["--window", "8", "--stride", "4", "--max-windows", "3", "--kv", "contiguous"];
    const { out } = await ofIds(IDS, ...flags, "--json");
    const result = JSON.parse(out);
    expect(Object.keys(result)).toEqual([
      "model",
      "file",
      "tokens",
      "window",
      "stride",
      "adapter",
      "windows",
      "count",
      "meanNll",
      "perplexity",
    ]);
    expect(result).toMatchObject({ tokens: 30, window: 8, stride: 4, count: 16 });
    expect(result.windows.map((w: { start: number }) => w.start)).toEqual([0, 4, 8]);
  });

  it("on Ctrl-C tells the figures of the windows before, and exits with 130", async () => {
    const hidden = Gpt2.prototype.hidden;
    let windows = 0;
    vi.spyOn(Gpt2.prototype, "hidden").mockImplementation(function (this: Gpt2, ...args) {
      if (++windows === 2) pressCtrlC();
      return hidden.call(this, ...args);
    });
    const { out, exitCode, error } = await ofIds(IDS, "--window", "4");
    expect(out).toMatch(/over 8 predicted tokens in 2 windows/);
    expect([exitCode, error?.message]).toEqual([130, "interrupted; the figures are of the windows before"]);
  });

  it.each([
    [[3, 4, 131], /^perplexity: token id 131, token 3 of the text, is out of vocabulary \(0\.\.130\)$/],
    [[131, 4], /token id 131, token 1 /],
    [[3, -4], /must be a JSON list of token ids/],
    [[3, "4"], /must be a JSON list of token ids/],
    [{ ids: [3] }, /must be a JSON list of token ids/],
    [[3], /has 1 tokens; at least 2/],
    [[], /has 0 tokens/],
  ])("refuses the ids %j, and prints no figure", async (ids, message) => {
    const { out, error, exitCode } = await ofIds(ids);
    expect([out, exitCode]).toEqual(["", 2]);
    expect(error).toBeInstanceOf(BadInput);
    expect(error!.message).toMatch(message);
  });

  it.each([
    [["--window", "65"], /^--window is 65; wanted 1 to the model's context of 64$/],
    [["--window", "4", "--stride", "5"], /^--stride is 5; wanted 1 to the window of 4$/],
    [["--kv", "contiguous", "--max-seq-len", "8"], /raise --max-seq-len/],
    [["--file", "no-such-file"], /^--file cannot be read: .*no-such-file/],
  ])("refuses %j", async (flags, message) => {
    const { out, error, exitCode } = await ofIds(IDS, ...flags);
    expect([out, exitCode]).toEqual(["", 2]);
    expect(error!.message).toMatch(message);
  });

  it("refuses ids that are not JSON", async () => {
    const { error } = await perplexity("1 2 3", "--ids", "--model", TINY);
    expect(error!.message).toMatch(/is not JSON/);
  });
});
