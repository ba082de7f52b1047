import { CheckpointError } from "./checkpoint-error.ts";
import { escapeAt } from "./json-escape.ts";
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
  /** Default: those of a header. */
  readonly limits?: JsonLimits;
}

export interface JsonLimits {
  /** Objects and arrays inside one another. */
  readonly depth: number;
  /** Keys in the whole text: bounds time and memory of the search for duplicates. */
  readonly keys: number;
  /** Values of any kind in the whole text: bounds what JSON.parse makes of it. */
  readonly values: number;
}

/** Safetensors need a depth of 3, and 400,000 keys for 100,000 tensors; values that nobody wants cost no memory. */
const HEADER_LIMITS: JsonLimits = { depth: 8, keys: 500_000, values: Number.POSITIVE_INFINITY };
/** Up to this length a text is put together here; TextDecoder costs more to call. */
const SHORT_TEXT = 32;
/** Pieces of a string with escapes that wait to be joined. */
const MAX_PIECES = 4096;
const TAB = 0x09;
const LINE_FEED = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const MINUS = 0x2d;
const PLUS = 0x2b;
const POINT = 0x2e;
const DIGIT_0 = 0x30;
const LETTER_E = 0x65;
const LETTER_U = 0x75;

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
  private keys = 0;
  private values = 0;
  private readonly limits: JsonLimits;

  constructor(source: JsonSource, bytes: Uint8Array) {
    this.source = source;
    this.limits = source.limits ?? HEADER_LIMITS;
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
        if (++this.keys > this.limits.keys) throw this.tooMany("keys");
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
      if (begin < this.at) pieces.push(this.text(begin, this.at));
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
    this.skipNumber();
    return this.text(begin, this.at);
  }

  /** Read the next value, whatever it is, and forget it. */
  skip(): void {
    const kind = this.kind();
    if (++this.values > this.limits.values) throw this.tooMany("values");
    if (kind === "object") this.object(() => this.skip());
    else if (kind === "array") this.array(() => this.skip());
    else if (kind === "string") this.string();
    else if (kind === "number") this.skipNumber();
    else this.literal();
  }

  /** Start over: a caller that has skipped through the whole text knows it to be JSON and now reads what it means. */
  rewind(): void {
    this.at = 0;
    this.depth = 0;
    this.keys = 0;
    this.values = 0;
  }

  /** Only white space may be left. */
  end(): void {
    this.skipSpace();
    if (this.at < this.bytes.length) throw this.unexpected("the end");
  }

  /** A number's grammar: minus, whole part without leading zeros, fraction, exponent. */
  private skipNumber(): void {
    if (this.bytes[this.at] === MINUS) this.at++;
    if (this.bytes[this.at] === DIGIT_0) this.at++;
    else this.skipDigits();
    if (this.bytes[this.at] === POINT) {
      this.at++;
      this.skipDigits();
    }
    // The bit 0x20 makes a letter small.
    if ((this.bytes[this.at]! | 0x20) !== LETTER_E) return;
    this.at++;
    if (this.bytes[this.at] === MINUS || this.bytes[this.at] === PLUS) this.at++;
    this.skipDigits();
  }

  private skipDigits(): void {
    const begin = this.at;
    while (this.bytes[this.at]! >= DIGIT_0 && this.bytes[this.at]! <= DIGIT_0 + 9) this.at++;
    if (this.at === begin) throw this.unexpected("a digit");
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
    const text = escapeAt(this.bytes, this.at);
    if (text === undefined) throw this.unexpected("a JSON escape");
    // `\n` takes 2 bytes, `\uXXXX` 6, a pair of them 12.
    this.at += this.bytes[this.at + 1] === LETTER_U ? 6 * text.length : 2;
    return text;
  }

  private open(bracket: string): void {
    this.expect(bracket);
    this.depth++;
    if (this.depth > this.limits.depth) {
      const where = `${this.source.what} nests deeper than ${this.limits.depth} at byte ${this.at - 1}`;
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
    if (end - begin <= SHORT_TEXT) {
      let text = "";
      let at = begin;
      while (at < end && this.bytes[at]! < 0x80) text += String.fromCharCode(this.bytes[at++]!);
      if (at === end) return text;
    }
    return this.decoder.decode(this.bytes.subarray(begin, end));
  }

  private tooMany(what: "keys" | "values"): CheckpointError {
    const limit = this.limits[what];
    return this.error(this.source.codes.limit, `${this.source.what} has more than ${limit} ${what}`);
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

function show(byte: number): string {
  return byte > SPACE && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : hex(byte);
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
