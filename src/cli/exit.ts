import process from "node:process";

export const EXIT_FAILURE = 1;
export const EXIT_BAD_INPUT = 2;
export const EXIT_NO_GPU = 3;
/** What shells report for Ctrl-C: 128 + SIGINT. */
export const EXIT_INTERRUPTED = 130;

/** The user pressed Ctrl-C, and the command stopped in good order. */
export class Interrupted extends Error {
  override name = "Interrupted";
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
