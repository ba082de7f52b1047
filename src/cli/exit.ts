import process from "node:process";
import { BadInput } from "../check.ts";
import { CheckpointError } from "../formats/checkpoint-error.ts";
import { DeviceLost, NoAdapter, OutOfMemory } from "../gpu/errors.ts";
import { OutOfPages } from "../kv/page-allocator.ts";

export const EXIT_FAILURE = 1;
export const EXIT_BAD_INPUT = 2;
export const EXIT_NO_GPU = 3;
/** What shells report for Ctrl-C: 128 + SIGINT. */
export const EXIT_INTERRUPTED = 130;

/** The user pressed Ctrl-C, and the command stopped in good order. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/** Exit code for an error: 2 for what the user can put right, 3 for no usable GPU, 130 for Ctrl-C, 1 for our own bugs. */
export function exitCode(error: unknown): number {
  if (error instanceof Interrupted) return EXIT_INTERRUPTED;
  if (error instanceof NoAdapter || error instanceof DeviceLost) return EXIT_NO_GPU;
  const bad = [BadInput, CheckpointError, OutOfMemory, OutOfPages];
  return bad.some((kind) => error instanceof kind) ? EXIT_BAD_INPUT : EXIT_FAILURE;
}

/**
 * Run `body` with a signal that Ctrl-C sets: it should come to a good end, keep what it has, and throw Interrupted. A
 * second Ctrl-C ends the process at once.
 */
export async function interruptible<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED);
    controller.abort(new Interrupted("interrupted"));
  };
  process.on("SIGINT", stop);
  try {
    return await body(controller.signal);
  } finally {
    process.off("SIGINT", stop);
  }
}
