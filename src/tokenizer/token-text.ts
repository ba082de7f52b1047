import { trimEndOf } from "./trim-end.ts";

const WAITING: ReadonlySet<string> = new Set(" 'nvr");
/** A character that lacks bytes decodes as this one until the next token completes it. */
const REPLACEMENT: ReadonlySet<string> = new Set("\uFFFD");

/** Turns tokens into text as they come, never showing half a character. */
export interface TokenText {
  /** The text that these tokens finish. */
  push(tokens: readonly string[]): string;
  /** What was held back. Nothing may be pushed afterwards. */
  end(): string;
}

/** Byte-level tokens: each character of a token stands for one byte of UTF-8. */
export function byteLevelText(): TokenText {
  let held: readonly number[] = [];
  return {
    push(tokens) {
      const bytes = [...held];
      for (const token of tokens) {
        for (const byte of bytesOfToken(token)) bytes.push(byte);
      }
      const end = finishedBytes(bytes);
      held = bytes.slice(end);
      return decodeUtf8(bytes.slice(0, end));
    },
    end: () => decodeUtf8(held),
  };
}

/**
 * WordPiece tokens: a space before each but the first and those that begin with `prefix`.
 * `cleanup` removes the space before punctuation; `cleanUpSpaces` does so over the whole text (token boundaries included).
 */
export function wordPieceText(options: {
  prefix: string;
  cleanup: boolean;
  cleanUpSpaces: boolean;
}): TokenText {
  let first = true;
  let held = "";
  return {
    push(tokens) {
      const pieces = tokens.map((token) => {
        const continues = token.startsWith(options.prefix);
        const piece = first ? token : continues ? token.slice(options.prefix.length) : ` ${token}`;
        first = false;
        return options.cleanup ? cleanUp(piece) : piece;
      });
      const text = held + pieces.join("");
      if (!options.cleanUpSpaces) return text;
      // Every pattern of `cleanUp` that spans a cut has one of the waiting characters before the cut.
      const finished = trimEndOf(text, WAITING);
      held = text.slice(finished.length);
      return cleanUp(finished);
    },
    end: () => cleanUp(held),
  };
}

/**
 * Tokens of any other decoder: the whole text is decoded anew with each push, which takes time in proportion to its
 * length. Without a decoder the tokens stand with spaces between.
 */
export function wholeText(decoder: { decode(tokens: readonly string[]): string } | null): TokenText {
  const all: string[] = [];
  let shown = "";
  const decode = () => (decoder === null || all.length === 0 ? all.join(" ") : decoder.decode(all));
  return {
    push(tokens) {
      for (const token of tokens) all.push(token);
      const finished = trimEndOf(decode(), REPLACEMENT);
      if (!finished.startsWith(shown)) return "";
      const fresh = finished.slice(shown.length);
      shown = finished;
      return fresh;
    },
    end() {
      const text = decode();
      return text.startsWith(shown) ? text.slice(shown.length) : "";
    },
  };
}

/**
 * The byte that each character of a byte-level token stands for: printable Latin-1 for itself, the other 68 in
 * order for U+0100 to U+0143 (`bytes_to_unicode` of OpenAI's GPT-2).
 */
const BYTE_OF_CHARACTER = byteTable();

function byteTable(): ReadonlyMap<string, number> {
  const table = new Map<string, number>();
  let others = 0;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    table.set(String.fromCharCode(printable ? byte : 0x100 + others++), byte);
  }
  return table;
}

/** A token with any other character stands for its own UTF-8. */
function bytesOfToken(token: string): Iterable<number> {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) return new TextEncoder().encode(token);
    bytes.push(byte);
  }
  return bytes;
}

/** Ill-formed bytes become U+FFFD, one for each maximal part of a character (Unicode 16, section 3.9). */
function decodeUtf8(bytes: readonly number[]): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}

/** How many of the bytes can be decoded now: all but a last character that lacks some. A lead byte is a safe cut. */
function finishedBytes(bytes: readonly number[]): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back]!;
    if (byte >= 0x80 && byte < 0xc0) continue;
    const needed = byte < 0xc2 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : byte < 0xf5 ? 4 : 1;
    return needed > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Hugging Face's `clean_up_tokenization`: the same replacements in the same order. */
function cleanUp(text: string): string {
  return text
    .replaceAll(" .", ".")
    .replaceAll(" ?", "?")
    .replaceAll(" !", "!")
    .replaceAll(" ,", ",")
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
