/**
 * Throw an Error with `message` unless `condition` holds.
 * Say the op, what was given and what was wanted: "matmul: x is [4, 768] but w is [1024, 768]; …".
 */
export function check(condition: unknown, message: string | (() => string)): asserts condition {
  if (!condition) throw new Error(typeof message === "string" ? message : message());
}

/** `[4, 768]`, for messages. */
export const shapeText = (shape: readonly number[]): string => `[${shape.join(", ")}]`;

/** What the user gave is wrong (a flag, a prompt, a file that is not there): the command line prints it and exits 2. */
export class BadInput extends Error {
  override name = "BadInput";
}
