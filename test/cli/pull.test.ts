import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import { pullCommand } from "../../src/cli/pull.ts";
import { digests, digestsIn, goldenFiles, setUp } from "../hub/pull-fixture.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** Run `quire pull …` in this process; what it wrote, by stream. */
async function quire(...args: string[]): Promise<{ out: string; err: string }> {
  const streams = { out: "", err: "" };
  const capture = (name: "out" | "err") => (text: unknown) => {
    streams[name] += String(text);
    return true;
  };
  vi.spyOn(process.stdout, "write").mockImplementation(capture("out"));
  vi.spyOn(process.stderr, "write").mockImplementation(capture("err"));
  const program = new Command().exitOverride();
  pullCommand(program);
  await program.parseAsync(["pull", ...args], { from: "user" });
  return streams;
}

const FILES = ["config.json", "model.safetensors"];

describe("quire pull", () => {
  it("in a pipe prints one line a file on stderr and the result on stdout", async () => {
    const files = await goldenFiles("tiny", FILES);
    const { hub, into } = await setUp({ files });
    vi.stubEnv("HF_ENDPOINT", `${hub.endpoint}/`);
    const first = await quire("someone/tiny", "--into", into);
    expect(first.err).toMatch(
      /^config.json: [\d.]+ (Ki)?B, downloaded\nmodel.safetensors: [\d.]+ KiB, downloaded\n$/,
    );
    expect(first.out).toMatch(
      /^someone\/tiny at commit 0123456789ab is in .*tiny: 2 files, [\d.]+ KiB, .* downloaded\n$/,
    );
    const again = await quire("someone/tiny", "--into", into);
    expect(again.err.match(/already there/g)).toHaveLength(2);
    expect(again.out).toContain("everything was there already");
    expect(await digestsIn(join(into, "someone", "tiny"))).toEqual(digests(files));
  });

  it("--json prints the result and nothing else on stdout; --endpoint and --revision are heeded", async () => {
    const files = await goldenFiles("tiny", FILES);
    const commit = "c".repeat(40);
    const { hub, into } = await setUp({ files: {}, revisions: { v2: { commit, files } } });
    vi.stubEnv("HF_ENDPOINT", "http://not-asked.invalid");
    const args = ["--into", into, "--endpoint", hub.endpoint, "--revision", "v2", "--json"];
    const result = JSON.parse((await quire("someone/tiny", ...args)).out);
    expect(result).toMatchObject({ repo: "someone/tiny", commit, folder: join(into, "someone", "tiny") });
    expect(result.files.map(({ name }: { name: string }) => name)).toEqual(FILES);
  });

  it("on a terminal shows a bar that ends at 100 %", async () => {
    const { hub, into } = await setUp({ files: await goldenFiles("tiny", FILES) });
    const before = Object.getOwnPropertyDescriptor(process.stderr, "isTTY");
    onTestFinished(() => {
      if (before) Object.defineProperty(process.stderr, "isTTY", before);
      else Reflect.deleteProperty(process.stderr, "isTTY");
    });
    Object.defineProperty(process.stderr, "isTTY", { value: true, configurable: true });
    const { err } = await quire("someone/tiny", "--into", into, "--endpoint", hub.endpoint);
    expect(err).toContain("100%");
    expect(err).not.toContain("downloaded");
  });

  it("leaves what is wrong to the caller, as BadInput", async () => {
    await expect(quire("not-a-model")).rejects.toBeInstanceOf(BadInput);
  });

  it("on SIGINT keeps the part, sets the exit code 130 and takes its listener away", async () => {
    const { hub, into } = await setUp({
      files: await goldenFiles("tiny", FILES),
      intercept: (seen, response, content) => {
        if (seen.from !== "cdn") return false;
        response
          .writeHead(200, { "content-length": content!.length })
          .write(content!.subarray(0, 7000), () => {
            // Later than the client's read of these bytes, which is on the same event loop.
            setTimeout(() => process.emit("SIGINT"), 200);
          });
        return true;
      },
    });
    const listeners = process.listenerCount("SIGINT");
    const { exitCode } = process;
    try {
      const { out, err } = await quire("someone/tiny", "--into", into, "--endpoint", hub.endpoint);
      expect(process.exitCode).toBe(130);
      expect(out).toBe("");
      expect(err).toContain("the same command continues the download");
    } finally {
      process.exitCode = exitCode;
    }
    expect(process.listenerCount("SIGINT")).toBe(listeners);
    expect(await readFile(join(into, "someone", "tiny", "model.safetensors.part"))).toHaveLength(7000);
  });
});
