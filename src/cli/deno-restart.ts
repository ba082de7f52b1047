import { spawn } from "node:child_process";
import process from "node:process";
import { isDeno, openAdapter } from "../gpu/adapter.ts";
import { NoAdapter } from "../gpu/errors.ts";
import { softwareAdapterMissing, softwareEnvironment } from "../gpu/software-adapter.ts";

/** Set in the child that Deno is started anew as, so that it does not start another. */
const RESTARTED = "QUIRE_DENO_RESTARTED";

/** What a terminal, a shell or a supervisor sends to end a command. */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Where Deno offers no GPU, run this same command again on the software adapter, and end with its exit code. Deno's
 * Vulkan loader is chosen by the environment that the process starts with, so there is no other way.
 *
 * To be called before anything else: the child reads stdin, and prints what is to be printed. Returns when the process
 * can stay as it is: on Node, with a GPU, in the child, and where the software adapter cannot be.
 */
export async function restartDenoWithoutGpu(choice: string): Promise<void> {
  const canHelp = choice === "auto" || choice === "software";
  if (!isDeno || !canHelp || process.env[RESTARTED] !== undefined || softwareAdapterMissing() !== undefined)
    return;
  if (choice === "auto" && (await hasGpu())) return;
  const env = { ...process.env, ...(await softwareEnvironment()), [RESTARTED]: "1" };
  process.exit(await runAgain(env));
}

/** Another CPU driver (Mesa's) is no GPU: SwiftShader is the one that the tests know. */
async function hasGpu(): Promise<boolean> {
  try {
    return !(await openAdapter("auto", "safe")).info.software;
  } catch (error) {
    if (error instanceof NoAdapter) return false;
    throw error;
  }
}

/** This process's command line under another environment: its exit code. */
function runAgain(env: NodeJS.ProcessEnv): Promise<number> {
  // In a session of its own a terminal's Ctrl-C does not reach the child, so that each signal comes once: from here.
  const child = spawn(process.execPath, ["run", "-A", ...process.argv.slice(1)], {
    env,
    stdio: "inherit",
    detached: true,
  });
  for (const signal of SIGNALS)
    process.on(signal, () => {
      // Not child.kill, after which Deno reports the signal instead of the exit code.
      if (child.exitCode === null) process.kill(child.pid!, signal);
    });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? (signal === "SIGINT" ? 130 : 1)));
  });
}
