import process from "node:process";
import { Command } from "commander";
import { vi } from "vitest";
import { exitCode } from "../../src/cli/exit.ts";

/** What a command did: its output by stream, what it threw, and the exit code for that or that it set itself. */
export interface Outcome {
  readonly out: string;
  readonly err: string;
  readonly exitCode: number;
  readonly error: Error | undefined;
}

/** Run a command in this process, as src/cli/main.ts does. `add` is its xyzCommand function. */
export async function runCommand(add: (program: Command) => void, ...args: string[]): Promise<Outcome> {
  const streams = { out: "", err: "" };
  const capture = (name: "out" | "err") => (text: unknown) => {
    streams[name] += String(text);
    return true;
  };
  const spies = [
    vi.spyOn(process.stdout, "write").mockImplementation(capture("out")),
    vi.spyOn(process.stderr, "write").mockImplementation(capture("err")),
  ];
  const before = process.exitCode;
  process.exitCode = 0;
  const program = new Command().exitOverride();
  add(program);
  let error: Error | undefined;
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (thrown) {
    error = thrown as Error;
  }
  const code = error ? exitCode(error) : Number(process.exitCode);
  process.exitCode = before;
  for (const spy of spies) spy.mockRestore();
  return { ...streams, exitCode: code, error };
}

/** The adapter that the test files use, as flags. */
export const TEST_ADAPTER = ["--adapter", process.env.QUIRE_TEST_ADAPTER ?? "auto"];

/** Ctrl-C for the command that runs now, and for nobody else who listens in this process. */
export function pressCtrlC(): void {
  process.listeners("SIGINT").at(-1)?.("SIGINT");
}
