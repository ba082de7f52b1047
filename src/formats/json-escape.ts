const BACKSLASH = 0x5c;
/** Bytes of a `\uXXXX`. */
const UNIT_BYTES = 6;
const SIMPLE = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);

/**
 * The character that the JSON escape at `at` (its backslash) stands for, a surrogate pair as one; undefined when it is
 * no escape. Half of a pair is none: a name that holds one could not be written to any other file.
 */
export function escapeAt(bytes: Uint8Array, at: number): string | undefined {
  const letter = String.fromCharCode(bytes[at + 1] ?? 0);
  if (letter !== "u") return SIMPLE.get(letter);
  const first = unitAt(bytes, at);
  if (first === undefined) return undefined;
  if (first < 0xd800 || first > 0xdfff) return String.fromCharCode(first);
  const second = unitAt(bytes, at + UNIT_BYTES);
  if (first > 0xdbff || second === undefined || second < 0xdc00 || second > 0xdfff) return undefined;
  return String.fromCharCode(first, second);
}

/** The UTF-16 code unit of the `\uXXXX` at `at`, undefined when there is none. */
function unitAt(bytes: Uint8Array, at: number): number | undefined {
  if (bytes[at] !== BACKSLASH) return undefined;
  const text = String.fromCharCode(...bytes.subarray(at + 1, at + UNIT_BYTES));
  return /^u[0-9a-fA-F]{4}$/.test(text) ? Number.parseInt(text.slice(1), 16) : undefined;
}
