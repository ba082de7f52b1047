import process from "node:process";
import { Command } from "commander";
import { vi } from "vitest";

/** What a command did: its output by stream, the exit code that it set, and what it threw. */
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
  const exitCode = Number(process.exitCode);
  process.exitCode = before;
  for (const spy of spies) spy.mockRestore();
  return { ...streams, exitCode, error };
}
