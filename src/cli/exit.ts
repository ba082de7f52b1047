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

/** Whoever read stdout has gone, or it cannot be written to: the command stops in good order. */
export class OutputClosed extends Error {
  override name = "OutputClosed";
  /** EPIPE means that a reader had seen enough (| head), which is no error. */
  readonly quiet: boolean;

  constructor(cause: NodeJS.ErrnoException) {
    super(`cannot write to stdout: ${cause.message}`);
    this.quiet = cause.code === "EPIPE";
  }
}

let outputError: OutputClosed | undefined;
const outputListeners = new Set<(error: OutputClosed) => void>();

/**
 * Watch stdout. Its errors come as events, at any time: the command in progress is told through its signal, and `main`
 * asks for the error at the end. Ending the process at once would tear the GPU down in the middle of its work.
 */
export function watchOutput(): () => OutputClosed | undefined {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    outputError ??= new OutputClosed(error);
    for (const listener of outputListeners) listener(outputError);
  });
  return () => outputError;
}

/** Exit code for an error: 2 for what the user can put right, 3 for no usable GPU, 130 for Ctrl-C, 1 for our own bugs. */
export function exitCode(error: unknown): number {
  if (error instanceof Interrupted) return EXIT_INTERRUPTED;
  if (error instanceof OutputClosed) return error.quiet ? 0 : EXIT_BAD_INPUT;
  if (error instanceof NoAdapter || error instanceof DeviceLost) return EXIT_NO_GPU;
  const bad = [BadInput, CheckpointError, OutOfMemory, OutOfPages];
  return bad.some((kind) => error instanceof kind) ? EXIT_BAD_INPUT : EXIT_FAILURE;
}

/**
 * Run `body` with a signal that Ctrl-C sets, or a closed stdout: it should come to a good end, keep what it has, and throw
 * the signal's reason. A second Ctrl-C ends the process at once.
 */
export async function interruptible<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED);
    controller.abort(new Interrupted("interrupted"));
  };
  const closed = (error: OutputClosed) => controller.abort(error);
  process.on("SIGINT", stop);
  outputListeners.add(closed);
  try {
    return await body(controller.signal);
  } finally {
    process.off("SIGINT", stop);
    outputListeners.delete(closed);
  }
}
