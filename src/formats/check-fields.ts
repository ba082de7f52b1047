import type { z } from "zod";
import { CheckpointError } from "./checkpoint-error.ts";
import { oneLine, quote } from "./quote.ts";

/** Characters of a value that an error message shows at most. */
const MAX_SHOWN = 80;

/**
 * Check a parsed JSON value against `schema`, whose own messages name what is wanted ("an integer from 1 to 512").
 * Throws CheckpointError with `code` for the first field that differs: "n_layer: got 0, expected an integer from 1 to 512".
 */
export function checkFields<T>(schema: z.ZodType<T>, value: unknown, code: string, file: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.length === 0 ? "the file" : issue.path.map(step).join(".");
  let given = value;
  for (const key of issue.path) given = (given as Record<PropertyKey, unknown> | undefined)?.[key];
  const got = given === undefined ? "is missing" : `got ${show(given)}`;
  throw new CheckpointError(code, file, `${oneLine(field)}: ${got}, expected ${oneLine(issue.message)}`);
}

/** A key of a path: names as we write them plain, any other quoted. */
function step(key: PropertyKey): string {
  const text = String(key);
  return /^[\w-]{1,64}$/.test(text) ? text : quote(text);
}

/** A value on one line. JSON.stringify writes Infinity, which JSON.parse makes of 1e999, as null. */
export function show(value: unknown): string {
  const text = typeof value === "number" ? String(value) : JSON.stringify(value);
  return oneLine(text, MAX_SHOWN);
}
