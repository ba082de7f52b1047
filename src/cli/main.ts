#!/usr/bin/env node
import process from "node:process";
import { Command, CommanderError } from "commander";
import { quireVersion } from "../packages.ts";
import { benchCommand } from "./bench.ts";
import { doctorCommand } from "./doctor.ts";
import { EXIT_BAD_INPUT, exitCode, watchOutput } from "./exit.ts";
import { generateCommand } from "./generate.ts";
import { inspectCommand } from "./inspect.ts";
import { perplexityCommand } from "./perplexity.ts";
import { profileCommand } from "./profile.ts";
import { pullCommand } from "./pull.ts";

/** The whole command line. Every action throws what went wrong; `main` makes it one line and an exit code. */
function buildProgram(): Command {
  const program = new Command("quire")
    .description("GPT-2 on the GPU through WebGPU: three KV caches, one ledger, every kernel to be read")
    .version(quireVersion())
    .option("--debug", "print the stack of an error")
    .showHelpAfterError("(quire <command> --help tells the options)")
    .exitOverride();
  for (const add of [
    generateCommand,
    benchCommand,
    profileCommand,
    perplexityCommand,
    inspectCommand,
    pullCommand,
    doctorCommand,
  ])
    add(program);
  // Commander copies settings to subcommands only where these are made before the settings.
  const inherit = (command: Command): void => {
    for (const sub of command.commands) {
      sub.copyInheritedSettings(command);
      sub.exitOverride();
      inherit(sub);
    }
  };
  inherit(program);
  return program;
}

async function main(argv: readonly string[]): Promise<void> {
  const outputError = watchOutput();
  const program = buildProgram();
  try {
    await program.parseAsync(argv);
    await flushOutput();
    const closed = outputError();
    if (closed) throw closed;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed its message; --help and --version come here too, with exit code 0.
      process.exitCode = error.exitCode === 0 ? 0 : EXIT_BAD_INPUT;
      return;
    }
    const { message, stack } = error as Error;
    process.exitCode = exitCode(error);
    if (process.exitCode !== 0) process.stderr.write(`quire: ${program.opts().debug ? stack : message}\n`);
  }
}

/** What was written is out, or its error has been told. */
function flushOutput(): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write("", () => resolve());
  });
}

await main(process.argv);
