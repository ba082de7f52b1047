const BACKSLASH = 0x5c;
const LETTER_U = 0x75;
/** Bytes of a `\\uXXXX`. */
const UNIT_BYTES = 6;
/** Code unit that a letter after a backslash stands for; 0 where it stands for none. */
const SIMPLE = simpleEscapes();

/**
 * What the JSON escape at `at` (its backslash) stands for: its code point, a surrogate pair as one; -1 when it is no
 * escape. Half of a pair is none: a name that holds one could not be written to any other file.
 */
export function escapeAt(bytes: Uint8Array, at: number): number {
  const letter = bytes[at + 1] ?? 0;
  if (letter !== LETTER_U) return SIMPLE[letter] || -1;
  const first = unitAt(bytes, at);
  if (first < 0xd800 || first > 0xdfff) return first;
  const second = first > 0xdbff ? -1 : unitAt(bytes, at + UNIT_BYTES);
  if (second < 0xdc00 || second > 0xdfff) return -1;
  return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

/** Bytes of the escape at `at`, which stands for `codePoint`. */
export function escapeLength(bytes: Uint8Array, at: number, codePoint: number): number {
  if (bytes[at + 1] !== LETTER_U) return 2;
  return codePoint > 0xffff ? 2 * UNIT_BYTES : UNIT_BYTES;
}

/** The UTF-16 code unit of the `\\uXXXX` at `at`, -1 when there is none. Makes no object: a file may hold 16 million. */
function unitAt(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== BACKSLASH || bytes[at + 1] !== LETTER_U) return -1;
  let unit = 0;
  for (let i = at + 2; i < at + UNIT_BYTES; i++) {
    const digit = hexDigit(bytes[i] ?? 0);
    if (digit < 0) return -1;
    unit = 16 * unit + digit;
  }
  return unit;
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  // The bit 0x20 makes a letter small.
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x61 + 10 : -1;
}

function simpleEscapes(): Uint8Array {
  const table = new Uint8Array(256);
  const pairs = ['""', "\\\\", "//", "b\b", "f\f", "n\n", "r\r", "t\t"];
  for (const pair of pairs) table[pair.charCodeAt(0)] = pair.charCodeAt(1);
  return table;
}
