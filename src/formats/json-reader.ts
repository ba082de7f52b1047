import { CheckpointError } from "./checkpoint-error.ts";
import { quote } from "./quote.ts";
import { firstInvalidUtf8 } from "./utf8.ts";

/** What JSON calls the value that comes next. */
export type JsonKind = "object" | "array" | "string" | "number" | "boolean" | "null";

/** The text that is read and the error codes its faults get. */
export interface JsonSource {
  /** File name for messages. */
  readonly file: string;
  /** What the text is: "header", "index". */
  readonly what: string;
  readonly codes: {
    readonly utf8: string;
    readonly json: string;
    readonly depth: string;
    readonly duplicate: string;
    readonly limit: string;
  };
}

/** Objects and arrays inside one another; safetensors needs 3. */
const MAX_DEPTH = 8;
/** Keys in one object: bounds the memory that the search for duplicates takes. */
const MAX_KEYS = 200_000;
/** Pieces of a string with escapes that wait to be joined. */
const MAX_PIECES = 4096;
const TAB = 0x09;
const LINE_FEED = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$/;
const ESCAPES = new Map([
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
 * A strict JSON reader (RFC 8259) that walks the bytes and hands out one value at a time, because JSON.parse
 * keeps the last of two equal keys, rounds integers above 2^53, and builds the whole tree before anything is checked.
 * Numbers come as their text. Throws CheckpointError with the source's codes; positions count from the text's start.
 */
export class JsonReader {
  private readonly source: JsonSource;
  private readonly bytes: Uint8Array;
  /** ignoreBOM keeps a byte order mark in the text, where it is an error, instead of dropping it. */
  private readonly decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  private at = 0;
  private depth = 0;

  constructor(source: JsonSource, bytes: Uint8Array) {
    this.source = source;
    this.bytes = bytes;
    const bad = firstInvalidUtf8(bytes);
    if (bad >= 0) {
      const byte = hex(bytes[bad]!);
      throw this.error(source.codes.utf8, `${source.what} is not UTF-8 at byte ${bad}: got ${byte}`);
    }
  }

  /** Kind of the next value, which stays unread. */
  kind(): JsonKind {
    this.skipSpace();
    const byte = this.bytes[this.at];
    if (byte === QUOTE) return "string";
    const character = byte === undefined ? "" : String.fromCharCode(byte);
    if (character === "{") return "object";
    if (character === "[") return "array";
    if (character === "t" || character === "f") return "boolean";
    if (character === "n") return "null";
    if (character === "-" || (character >= "0" && character <= "9")) return "number";
    throw this.unexpected("a value");
  }

  /** Read an object; `onMember` reads exactly one value for each key. Two equal keys are an error. */
  object(onMember: (key: string) => void): void {
    this.open("{");
    const seen = new Set<string>();
    if (!this.accept("}")) {
      do {
        this.skipSpace();
        const begin = this.at;
        const key = this.string();
        if (seen.has(key)) {
          throw this.error(
            this.source.codes.duplicate,
            `${quote(key)} appears twice, again at byte ${begin}`,
          );
        }
        if (seen.size === MAX_KEYS) {
          throw this.error(
            this.source.codes.limit,
            `more than ${MAX_KEYS} keys in one object at byte ${begin}`,
          );
        }
        seen.add(key);
        this.expect(":");
        onMember(key);
      } while (this.accept(","));
      this.expect("}");
    }
    this.depth--;
  }

  /** Read an array; `onItem` reads exactly one value for each item. */
  array(onItem: (index: number) => void): void {
    this.open("[");
    if (!this.accept("]")) {
      let index = 0;
      do onItem(index++);
      while (this.accept(","));
      this.expect("]");
    }
    this.depth--;
  }

  string(): string {
    this.expect('"');
    let text = "";
    // Joined in batches: one concatenation per escape would keep a rope node alive for every one of them.
    let pieces: string[] = [];
    let begin = this.at;
    for (;;) {
      const byte = this.bytes[this.at];
      if (byte === undefined || byte < SPACE) throw this.unexpected("the end of a string");
      if (byte !== QUOTE && byte !== BACKSLASH) {
        this.at++;
        continue;
      }
      pieces.push(this.text(begin, this.at));
      if (byte === QUOTE) {
        this.at++;
        return text + pieces.join("");
      }
      pieces.push(this.escapeSequence());
      begin = this.at;
      if (pieces.length >= MAX_PIECES) {
        text += pieces.join("");
        pieces = [];
      }
    }
  }

  /** The number as it is written: the caller decides what it may be. */
  number(): string {
    this.skipSpace();
    const begin = this.at;
    while (this.at < this.bytes.length && isNumberByte(this.bytes[this.at]!)) this.at++;
    const text = this.text(begin, this.at);
    if (!NUMBER.test(text)) {
      this.at = begin;
      throw this.unexpected("a number");
    }
    return text;
  }

  /** Read the next value, whatever it is, and forget it. */
  skip(): void {
    const kind = this.kind();
    if (kind === "object") this.object(() => this.skip());
    else if (kind === "array") this.array(() => this.skip());
    else if (kind === "string") this.string();
    else if (kind === "number") this.number();
    else this.literal();
  }

  /** Start over: a caller that has skipped through the whole text knows it to be JSON and now reads what it means. */
  rewind(): void {
    this.at = 0;
    this.depth = 0;
  }

  /** Only white space may be left. */
  end(): void {
    this.skipSpace();
    if (this.at < this.bytes.length) throw this.unexpected("the end");
  }

  private literal(): void {
    for (const word of ["true", "false", "null"]) {
      if (String.fromCharCode(...this.bytes.subarray(this.at, this.at + word.length)) !== word) continue;
      this.at += word.length;
      return;
    }
    throw this.unexpected("a value");
  }

  private escapeSequence(): string {
    const begin = this.at;
    const letter = String.fromCharCode(this.bytes[begin + 1] ?? 0);
    if (letter !== "u") {
      const plain = ESCAPES.get(letter);
      if (plain === undefined) throw this.invalidEscape(begin);
      this.at += 2;
      return plain;
    }
    const first = this.codeUnit(begin);
    if (first < 0xd800 || first > 0xdfff) return String.fromCharCode(first);
    // Half of a pair is no character: a name that holds one could not be written to any other file.
    if (first > 0xdbff || this.bytes[this.at] !== BACKSLASH) throw this.invalidEscape(begin);
    const second = this.codeUnit(this.at);
    if (second < 0xdc00 || second > 0xdfff) throw this.invalidEscape(begin);
    return String.fromCharCode(first, second);
  }

  /** The UTF-16 code unit of the `\uXXXX` at `begin`. */
  private codeUnit(begin: number): number {
    const text = String.fromCharCode(...this.bytes.subarray(begin, begin + 6));
    if (!/^\\u[0-9a-fA-F]{4}$/.test(text)) throw this.invalidEscape(begin);
    this.at = begin + 6;
    return Number.parseInt(text.slice(2), 16);
  }

  private invalidEscape(begin: number): CheckpointError {
    this.at = begin;
    return this.unexpected("a JSON escape");
  }

  private open(bracket: string): void {
    this.expect(bracket);
    this.depth++;
    if (this.depth > MAX_DEPTH) {
      const where = `${this.source.what} nests deeper than ${MAX_DEPTH} at byte ${this.at - 1}`;
      throw this.error(this.source.codes.depth, where);
    }
  }

  private accept(character: string): boolean {
    this.skipSpace();
    if (this.bytes[this.at] !== character.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  private expect(character: string): void {
    if (!this.accept(character)) throw this.unexpected(`'${character}'`);
  }

  private skipSpace(): void {
    for (; this.at < this.bytes.length; this.at++) {
      const byte = this.bytes[this.at];
      if (byte !== SPACE && byte !== LINE_FEED && byte !== RETURN && byte !== TAB) return;
    }
  }

  private text(begin: number, end: number): string {
    return this.decoder.decode(this.bytes.subarray(begin, end));
  }

  private unexpected(expected: string): CheckpointError {
    const byte = this.bytes[this.at];
    const where = `${this.source.what} is not JSON at byte ${this.at}`;
    return this.error(
      this.source.codes.json,
      `${where}: got ${byte === undefined ? "the end" : show(byte)}, expected ${expected}`,
    );
  }

  private error(code: string, detail: string): CheckpointError {
    return new CheckpointError(code, this.source.file, detail);
  }
}

/** Digits, sign, point, exponent. */
function isNumberByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e ||
    (byte | 0x20) === 0x65
  );
}

function show(byte: number): string {
  return byte > SPACE && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : hex(byte);
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
