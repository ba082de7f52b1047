import { spawn } from "node:child_process";
import process from "node:process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { softwareAdapterMissing } from "../../src/gpu/software-adapter.ts";
import { packageFile } from "../../src/packages.ts";

// Quire's command line on Deno, where the software adapter needs a second process with another environment.

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const deno = packageFile("@deno/linux-x64-glibc", "deno") ?? packageFile("deno", "deno");
const missing = deno === undefined ? "npm brought no Deno for this platform" : softwareAdapterMissing();

interface Ended {
  readonly out: string;
  readonly err: string;
  readonly code: number | null;
}

/** Run `quire` with `args`, give it `input` on stdin, and tell `onOutput` whenever it prints. */
async function quire(
  args: readonly string[],
  input: string,
  onOutput?: (kill: () => void) => void,
): Promise<Ended> {
  const child = spawn(deno!, ["run", "-A", "--no-lock", MAIN, ...args, "--adapter", "software"], {
    env: { ...process.env, NO_COLOR: "1" },
  });
  child.stdin.end(input);
  child.stdout.on("data", () => onOutput?.(() => child.kill("SIGINT")));
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [out, err, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { out, err, code };
}

describe.skipIf(missing)(`quire on Deno${missing ? ` (skipped: ${missing})` : ""}`, () => {
  it("generate reads its prompt from stdin once, in the process that generates", async () => {
    const prompt = "It was a dark night, and";
    const { out, err, code } = await quire(["generate", "-", "-n", "1", "--json"], prompt);
    expect({ code, err }).toEqual({ code: 0, err: expect.stringContaining("software adapter") });
    const { prompt: read, ids } = JSON.parse(out);
    expect(read).toBe(prompt);
    expect(ids).toHaveLength(1);
  });

  it("perplexity reads its text from stdin", async () => {
    const { out, code } = await quire(["perplexity", "--file", "-", "--ids", "--json"], "[3, 4, 5]");
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ tokens: 3, count: 2 });
  });

  it("a signal to the process that was started reaches the one that works, which ends in good order", async () => {
    let killed = false;
    const { out, err, code } = await quire(
      ["generate", "It", "-n", "900", "--temperature", "0"],
      "",
      (kill) => {
        if (!killed) kill();
        killed = true;
      },
    );
    expect(code).toBe(130);
    expect(out.endsWith("\n")).toBe(true);
    expect(err).toContain("ended by Ctrl-C");
  });
});
